"""A transformer as a GGUF file, as others publish them; blocks of 32 weights share a scale."""

from pathlib import Path

from diffusers import SD3Transformer2DModel


def write_gguf(path: Path, transformer: SD3Transformer2DModel, kind: str = "Q8_0") -> Path:
    """Quantizes the blocks' linear layers as `kind`; the rest, and rows no multiple of 32, stay."""
    import gguf

    own, written = gguf.GGMLQuantizationType[kind], gguf.GGUFWriter(str(path), "sd3")
    for name, tensor in transformer.state_dict().items():
        values = tensor.float().numpy()
        if name.startswith("transformer_blocks") and tensor.ndim == 2 and values.shape[1] % 32 == 0:
            written.add_tensor(name, gguf.quants.quantize(values, own), raw_dtype=own)
        else:
            written.add_tensor(name, values)
    written.write_header_to_file()
    written.write_kv_data_to_file()
    written.write_tensors_to_file()
    written.close()
    return path
