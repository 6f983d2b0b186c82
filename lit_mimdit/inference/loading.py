"""The restorer of a trained system, by the name of its file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lit_mimdit.inference.device import choose_device, computes_bfloat16
from lit_mimdit.inference.hub import shown
from lit_mimdit.inference.offload import Offload, offload_to_host, require_offload
from lit_mimdit.inference.system_class import build_system
from lit_mimdit.inference.system_file import load_system, system_path
from lit_mimdit.inference.tiny_vae import with_tiny_vae
from lit_mimdit.models.compiling import compile_network
from lit_mimdit.models.network import ConditionedBackbone
from lit_mimdit.models.quantize import checked
from lit_mimdit.models.what_if import NO_ROUTERS, Choice, Weight


def load_restorer(
    checkpoint: str | Path | None = None,
    backbone: str | None = None,
    device: str | torch.device = "auto",
    *,
    trust: bool = False,
    prompt: str | None = None,
    captions: str | Path | None = None,
    dtype: str | None = None,
    backbone_quantize: str | None = None,
    fidelity: str | None = None,
    fidelity_weight: float = 1.0,
    compile: bool = False,
    offload: Offload | None = None,
    vae: str | None = None,
    inter: str | Mapping[str, Weight] | None = None,
    intra: str | Mapping[str, Choice] | None = None,
    **sampling: object,
) -> Any:
    """The restorer of a trained system: called with images and seeds, it returns restored images.

    Values that are None are those that the system was trained or exported with.

    Args:
        checkpoint: exported file or training checkpoint, or OWNER/NAME or OWNER/NAME@REVISION on
            the Hugging Face Hub. None or "package" is the one that comes with the package.
        backbone: folder or hub id of the backbone, if it is not where it was in training.
        device: name of a device, "auto" for a GPU if there is one, or a torch.device.
        trust: also build classes outside lit_mimdit.systems.
        prompt: what the backbone is told about the images.
        captions: file with a caption for each image.
        dtype: precision of the frozen weights, "float32" or "bfloat16". "auto" is bfloat16 in the
            place of float32 on a processor that has instructions for it.
        backbone_quantize: how they are kept: nf4, int8, fp8, gguf:FILE, or none.
        fidelity: network that corrects the results: a file, "package", or None for none.
        fidelity_weight: of its correction, from 0 to 1.
        compile: compile the blocks of backbone and branch when they are first called.
        offload: keep "model"s or single layers ("sequential") in main memory while they rest.
        vae: folder or hub id of an AutoencoderTiny in the place of the backbone's VAE.
        inter: weights of expert groups in the place of the Inter routers': see models/what_if.py.
        intra: sub-experts by group in the place of the Intra routers'.
        sampling: values of SamplingConfig, or of a system's own constructor.

    Returns:
        see systems/base.py: ImageRestorer.

    Raises:
        ValueError: the file cannot be read or does not fit, or the system has no such value.
    """
    path = system_path(checkpoint)
    file = load_system(path)
    place = device if isinstance(device, torch.device) else choose_device(device)
    has_bfloat16 = computes_bfloat16(place)
    if dtype == "auto":
        kept = None if file.backbone is None else (file.backbone.dtype, file.backbone.quantize)
        faster = kept == ("float32", None) and has_bfloat16
        dtype = "bfloat16" if faster and backbone_quantize is None else None
    given: dict[str, Any] = {"backbone": backbone, "backbone_dtype": dtype, "fidelity": fidelity}
    quantize = checked(backbone_quantize, "--backbone_quantize")
    if quantize is not None or (backbone_quantize is not None and file.backbone is not None):
        given["backbone_quantize"] = backbone_quantize
    if fidelity is not None:
        given["fidelity_weight"] = fidelity_weight
    told = {"text": prompt, "captions": None if captions is None else str(captions)}
    told = {name: value for name, value in told.items() if value is not None}
    if told:
        given["prompt"] = told
    values = {name: value for name, value in sampling.items() if value is not None}
    if file.sampling is None:
        given |= values
    elif values:
        given["sampling"] = values
    given = {name: value for name, value in given.items() if value is not None}
    where = f"checkpoint {shown(path)}"
    system: Any = build_system(file, where, trust, **given)
    restorer = (system if offload else system.to(place)).restorer()
    corrector = getattr(restorer, "corrector", None)
    if dtype == "bfloat16" and has_bfloat16 and corrector is not None:
        corrector.network.looks_in(torch.bfloat16)
    if vae is not None:
        restorer = with_tiny_vae(restorer, vae, where)
    if offload is not None:
        require_offload(offload, place, where, restorer)
        if compile:
            raise ValueError(
                f"--compile is given with --offload {offload}: what moves between memories cannot"
                " stay compiled; leave one of them out"
            )
        restorer = offload_to_host(restorer, offload, place)
    if compile:
        network = getattr(restorer, "network", None)
        if not isinstance(network, ConditionedBackbone):
            raise ValueError(
                f"{where}: --compile needs blocks of a transformer, and"
                f" {type(system).__name__} has none; leave it out"
            )
        compile_network(network)
    if inter is None and intra is None:
        return restorer
    if not hasattr(restorer, "forced"):
        raise ValueError(NO_ROUTERS)
    return restorer.forced(inter, intra)
