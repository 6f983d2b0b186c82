"""Keeps a frozen backbone and its text encoder in 4 or 8 bits, by diffusers' own quantizers.

    nf4         4 bits   bitsandbytes (QLoRA, arXiv 2305.14314, section 3)
    int8        8 bits   bitsandbytes (LLM.int8(), arXiv 2208.07339)
    fp8         8 bits   torchao, floating point with 4 bits of exponent
    gguf:FILE   as the file says: one that others made of the backbone's transformer

The linear layers of the blocks are quantized, and nothing else: SKIPPED are small, and the output
projection tells backbones apart. The branch is never quantized.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lit_mimdit.models.folder import first_line, not_from_hub, unavailable

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel

PACKAGES = {"nf4": "bitsandbytes", "int8": "bitsandbytes", "fp8": "torchao"}
NONE, GGUF = "none", "gguf:"
SKIPPED = ("pos_embed", "time_text_embed", "context_embedder", "norm_out", "proj_out")
NF4_BLOCK = 64  # weights that share one scale


def lacks_file(value: str) -> bool:
    """Returns whether a quantization names a GGUF file that this machine does not have."""
    return value.startswith(GGUF) and not Path(value.removeprefix(GGUF)).expanduser().is_file()


def checked(value: str | None, key: str = "model.backbone_quantize") -> str | None:
    """Returns a quantization, None for "none".

    Raises ValueError, which names `key`, if there is no such quantization, its package or its file.
    """
    if value is None or value == NONE:
        return None
    if value.startswith(GGUF):
        if lacks_file(value):
            raise ValueError(
                f"{key} is {value!r}: there is no such file; give the .gguf file of the backbone's"
                " transformer"
            )
        package = "gguf"
    elif value in PACKAGES:
        package = PACKAGES[value]
    else:
        raise ValueError(
            f"{key} is {value!r}: choose among {', '.join(PACKAGES)}, {GGUF}FILE and {NONE}"
        )
    if find_spec(package) is None:
        raise ValueError(
            f"{key} is {value!r}, which needs the package {package}: install it with pip install"
            f" {package}"
        )
    return value


def quantizer(kind: str, dtype: torch.dtype, skipped: tuple[str, ...] = SKIPPED) -> Any:
    """Returns diffusers' configuration of a quantization; `dtype` is that of the computation."""
    from diffusers import BitsAndBytesConfig, GGUFQuantizationConfig, TorchAoConfig

    if kind.startswith(GGUF):
        return GGUFQuantizationConfig(compute_dtype=dtype)
    if kind == "fp8":
        from torchao.quantization import Float8WeightOnlyConfig

        return TorchAoConfig(Float8WeightOnlyConfig(), modules_to_not_convert=list(skipped))
    let_cpus_quantize()
    return BitsAndBytesConfig(llm_int8_skip_modules=list(skipped), **_bits(kind, dtype))


def encoder_quantizer(kind: str, dtype: torch.dtype) -> Any:
    """Returns transformers' configuration of the same quantization, for a text encoder."""
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if kind == "fp8":
        from torchao.quantization import Float8WeightOnlyConfig

        return TorchAoConfig(Float8WeightOnlyConfig())
    return BitsAndBytesConfig(**_bits(kind, dtype))


def _bits(kind: str, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of both libraries' BitsAndBytesConfig."""
    if kind == "int8":
        return {"load_in_8bit": True}
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": dtype,
    }


def let_cpus_quantize() -> None:
    """Lets diffusers load bitsandbytes' layers without a GPU.

    diffusers 0.42 refuses that, from times when bitsandbytes had no kernels for CPUs. On a machine
    with a GPU nothing changes.
    """
    from diffusers.quantizers import auto

    for name in ("bitsandbytes_4bit", "bitsandbytes_8bit"):
        own: Any = auto.AUTO_QUANTIZER_MAPPING[name]
        if not hasattr(own, "on_cpu"):
            auto.AUTO_QUANTIZER_MAPPING[name] = _on_cpu(own)


def _on_cpu(own: Any) -> Any:
    """The quantizer `own`, which also takes the CPU where there is nothing else."""

    class OnCPU(own):
        on_cpu = True

        def validate_environment(self, *args: Any, **options: Any) -> None:
            if _has_accelerator():
                super().validate_environment(*args, **options)

        def update_device_map(self, device_map: Any) -> Any:
            if device_map is None and not _has_accelerator():
                return {"": "cpu"}
            return super().update_device_map(device_map)

    return OnCPU


def _has_accelerator() -> bool:
    return torch.cuda.is_available() or torch.xpu.is_available() or torch.mps.is_available()


def keep_layout(model: nn.Module) -> None:
    """Lets layers of 4 bits keep the numbers that they were loaded with.

    On a CPU with AVX-512 bitsandbytes lays them out anew at the first call without a gradient. It
    also rounds their scales to bfloat16, and takes only multiples of 32 rows. Validation would
    change what training computes with.
    """
    for module in model.modules():
        layer: Any = module
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def load_gguf(where: str, kind: str, dtype: torch.dtype) -> "SD3Transformer2DModel":
    """Returns the transformer of a GGUF file, with the configuration of the folder or hub id
    `where`.

    Raises ValueError if the file is no GGUF, or of a transformer of other sizes.
    """
    from diffusers import SD3Transformer2DModel

    file = Path(kind.removeprefix(GGUF)).expanduser()
    remedy = "give the .gguf file of this backbone's transformer"
    try:
        model: Any = SD3Transformer2DModel.from_single_file(
            str(file),
            quantization_config=quantizer(kind, dtype),
            torch_dtype=dtype,
            config=where,
            subfolder="transformer",
        )
    # readers of foreign formats raise many types
    except (OSError, ValueError, KeyError, IndexError, RuntimeError, TypeError) as error:
        if not_from_hub(where, error) is not None:
            raise unavailable(where, error) from error
        raise ValueError(
            f"backbone_quantize is {kind!r}: the file does not fit ({first_line(error)}); {remedy}"
        ) from error
    lacking = [name for name, tensor in model.state_dict().items() if tensor.is_meta]
    if lacking:
        raise ValueError(
            f"backbone_quantize is {kind!r}: the file lacks {len(lacking)} tensors such as"
            f" {lacking[0]}; {remedy}"
        )
    return model


def quantized_as(model: nn.Module) -> str | None:
    """Returns how diffusers quantized a model: nf4, int8, fp8, gguf, or None."""
    config: Any = getattr(getattr(model, "hf_quantizer", None), "quantization_config", None)
    if config is None:
        return None
    method = str(getattr(config.quant_method, "value", config.quant_method))
    if method == "bitsandbytes":
        return "int8" if config.load_in_8bit else "nf4"
    return {"torchao": "fp8", "gguf": "gguf"}.get(method, method)


def plain_weight(layer: nn.Module) -> Tensor:
    """Returns the weight of a layer as ordinary numbers: of a quantized one, what it stands for."""
    weight: Any = layer.weight
    name = type(weight).__name__
    if name == "Params4bit":
        import bitsandbytes as bnb

        return bnb.functional.dequantize_4bit(weight.data, weight.quant_state)
    if name == "Int8Params":
        import bitsandbytes as bnb

        return bnb.functional.int8_vectorwise_dequant(weight.data, _int8_scales(layer))
    if name == "GGUFParameter":
        from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

        return dequantize_gguf_tensor(weight).detach()
    return weight.dequantize() if hasattr(weight, "__tensor_flatten__") else weight.detach()


def _int8_scales(layer: Any) -> Tensor:
    """One scale a row; bitsandbytes moves them from the weight to the layer at the first call."""
    return layer.state.SCB if layer.weight.SCB is None else layer.weight.SCB


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """Returns the state of a frozen module by name, quantized weights as ordinary numbers.

    Trained copies of frozen layers begin with these.
    """
    kept = module.state_dict().keys()
    tensors = (*module.named_parameters(), *module.named_buffers())
    state = {name: tensor.detach() for name, tensor in tensors if name in kept}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            state[f"{name}.weight" if name else "weight"] = plain_weight(layer)
    return state


def held_bytes(module: nn.Module) -> int:
    """Returns the bytes that parameters and buffers of a module take, with quantization scales."""
    total = sum(_bytes(tensor) for tensor in (*module.parameters(), *module.buffers()))
    for layer in module.modules():
        weight: Any = getattr(layer, "weight", None)
        if type(weight).__name__ == "Params4bit":
            total += _bytes(weight.quant_state.absmax)
        elif type(weight).__name__ == "Int8Params":
            total += _bytes(_int8_scales(layer))
    return total


def _bytes(tensor: Any) -> int:
    """Bytes of a tensor, or of the parts of one that consists of others."""
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.nbytes


# of a weight of n x m numbers, in bytes:  nf4: n m / 2 + 4 n m / 64;  int8, fp8: n m + 4 n
def planned_bytes(rows: int, columns: int, kind: str) -> int:
    """Returns the bytes of a weight (rows, columns) quantized as nf4, int8 or fp8."""
    count = rows * columns
    if kind == "nf4":
        return -(-count // 2) + 4 * -(-count // NF4_BLOCK)
    return count + 4 * rows


def planned_saving(transformer: nn.Module, kind: str) -> int:
    """Returns how many bytes fewer a quantized transformer takes than this one does.

    Args:
        transformer: not quantized; the meta device will do.
        kind: nf4, int8, fp8 or gguf:FILE, whose file's own sizes count.

    Raises:
        ValueError: the file cannot be read.
    """
    if kind.startswith(GGUF):
        own = sum(tensor.nbytes for tensor in transformer.state_dict().values())
        return own - _file_bytes(kind)
    return sum(
        layer.weight.nbytes - planned_bytes(layer.out_features, layer.in_features, kind)
        for layer in _to_quantize(transformer)
    )


def largest_layer(transformer: nn.Module) -> int:
    """Returns the bytes of the largest weight that is quantized.

    A layer computes with ordinary numbers, which it makes of its own weight at each call.
    """
    return max(layer.weight.nbytes for layer in _to_quantize(transformer))


def _to_quantize(transformer: nn.Module) -> list[nn.Linear]:
    return [
        layer
        for name, layer in transformer.named_modules()
        if isinstance(layer, nn.Linear) and name.split(".")[0] not in SKIPPED
    ]


def _file_bytes(kind: str) -> int:
    """Bytes of the tensors in a GGUF file."""
    from gguf import GGUFReader

    try:
        tensors = GGUFReader(Path(kind.removeprefix(GGUF)).expanduser()).tensors
    except ValueError as error:
        raise ValueError(
            f"backbone_quantize is {kind!r}: no readable GGUF file ({error}); give another"
        ) from error
    return sum(int(tensor.n_bytes) for tensor in tensors)
