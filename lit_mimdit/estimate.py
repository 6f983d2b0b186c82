"""Estimates the memory of a training step on each device, without weights, data or a device.

The step itself is run on tensors that have shapes and no values (PyTorch's FakeTensorMode), and
what is alive is added up. What a strategy keeps beside it is in training/strategy_memory.py.
"""

import inspect
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary

from lit_mimdit.systems.base import RestorationSystem

ATTENTION = (
    torch.ops.aten._scaled_dot_product_efficient_attention.default
)  # as much memory as the flash kernels, and it takes a mask


def _tensors(*values: Any) -> Iterator[Tensor]:
    """Yields the tensors among an operation's values, in lists of them too.

    PyTorch's tree_map takes a quarter of a dry run's time.
    """
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(*value)


# 2 B C_out H W (C_in / groups) k^2 for each of the two gradients, as for the convolution itself
def backward_flops(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    wanted: list[bool],
    **_: Any,
) -> int:
    """Returns operations of a convolution's backward pass.

    PyTorch's own count takes a convolution of groups for a whole one where the weight's gradient is
    concerned. A depthwise one of 48 channels then counts 24 times.

    Args:
        grad: of the output.
        x: the input.
        weight: (C_out, C_in / groups, k, k), or (C_in, C_out / groups, k, k) if `transposed`.
        wanted: whether the gradients of input, weight and bias are asked for.
    """
    positions = x if transposed else grad
    return 2 * positions.numel() * weight.shape[1:].numel() * sum(wanted[:2])


FLOPS = flop_registry | {torch.ops.aten.convolution_backward: backward_flops}


class Alive(TorchDispatchMode):
    """Adds up the storages that operations make, until they are freed. peak, live: bytes; flops: of
    all operations.

    What is an operation's input before any made it was there before: a view of it, such as a
    transposed weight, is no new storage.

    PyTorch's FlopCounterMode would keep what gradient checkpointing recomputes alive: its hooks
    hold the tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = self.flops = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for tensor in _tensors(args, *(kwargs or {}).values()):
            self._was_there(tensor)
        result = func(*args, **(kwargs or {}))
        if (count := FLOPS.get(func._overloadpacket)) is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        for tensor in _tensors(result):
            self._note(tensor)
        return result

    def _was_there(self, tensor: Tensor) -> None:
        self._known.setdefault(tensor.untyped_storage(), 0)

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, size).atexit = False

    def _free(self, size: int) -> None:
        self.live -= size


@contextmanager
def attention(math: bool) -> Iterator[None]:
    """Lets attention use a kernel that keeps the N x N matrix ("math"), or one that does not.

    This holds where the backward pass recomputes, too.

    Left to itself PyTorch takes "math" for tensors without values. A mode of torch.overrides would
    not reach into the backward pass.
    """

    def compute(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_: Any
    ) -> Tensor:
        if math:
            return torch.ops.aten._scaled_dot_product_attention_math(query, key, value, attn_mask)[
                0
            ]
        if attn_mask is not None:
            attn_mask = attn_mask.to(query.dtype).expand(*query.shape[:-1], key.shape[-2])
        return ATTENTION(query, key, value, attn_mask, torch.is_grad_enabled())[0]

    own = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = compute
    try:
        yield
    finally:
        F.scaled_dot_product_attention = own


@dataclass(frozen=True)
class Step:
    """The needs of one training step of one device.

    activations: bytes beside parameters and their gradients, at the peak.
    flops: of forward and backward.
    """

    activations: int
    flops: int


def fresh(kind: type[RestorationSystem], arguments: dict[str, Any]) -> dict[str, Any]:
    """Returns arguments of a system that starts from no file; its constructor may know none."""
    knows_init = "init" in inspect.signature(kind).parameters
    return arguments | ({"init": None} if knows_init else {})


def meta_system(kind: type[RestorationSystem], arguments: dict[str, Any]) -> RestorationSystem:
    """Returns a system on the meta device: shapes without values, and the empty prompt.

    Args:
        kind: class of the system.
        arguments: of its constructor, typed.
    """
    own = fresh(kind, arguments)
    if "prompt" in own:
        own["prompt"] = None
    if "sampling" in own:  # guidance needs a prompt
        own["sampling"] = replace(own["sampling"], guidance=1.0)
    with torch.device("meta"):
        system = kind(**own)
        system.assemble_on_meta()
    system.log = system.log_dict = lambda *args, **options: None
    return system


def imagine(module: nn.Module) -> None:
    """Parameters and buffers of the meta device as fake ones, which autocast takes for the CPU's;
    within a FakeTensorMode.
    """
    for part in module.modules():
        for name, p in part._parameters.items():
            if p is not None:
                part._parameters[name] = nn.Parameter(
                    torch.empty(p.shape, dtype=p.dtype), requires_grad=p.requires_grad
                )
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


LOW = {
    "bf16-mixed": torch.bfloat16,
    "bf16-true": torch.bfloat16,
    "16-mixed": torch.float16,
    "16-true": torch.float16,
}


def simulate(
    kind: type[RestorationSystem],
    arguments: dict[str, Any],
    *,
    batch: int,
    crop: int,
    precision: str,
    stage: int = 0,
    gpu: bool = False,
) -> Step:
    """Run a system's training step and its backward pass without values.

    Args:
        kind: class of the system.
        arguments: of its constructor, typed.
        batch: pairs that a device is given at once.
        crop: side of their crops in pixels.
        precision: of the trainer.
        stage: of ZeRO, or 0. DeepSpeed keeps the trained module itself in the trainer's 16 bits in
            place of autocast.
        gpu: whether the device is one; some systems compute in another way there than on a CPU.
    """
    batch, crop = kind.taken(arguments, batch, crop)
    low, sharded = LOW.get(precision), stage > 0
    system = meta_system(kind, kind.estimated(arguments, gpu, stage))
    if low is not None and (sharded or precision.endswith("true")):
        system.trained.to(low)
    mixed = low is not None and not sharded and precision.endswith("mixed")
    seeds = torch.arange(batch)  # with values: noise is drawn from them
    with FakeTensorMode(allow_non_fake_inputs=True):
        imagine(system.train())
        data = imagined_batch(seeds, crop)
        system.prepare_estimate(arguments, data, gpu, stage)
        for parameter in system.parameters():
            if parameter.requires_grad:  # of the step before: they are there throughout
                parameter.grad = torch.zeros_like(parameter)
        math = getattr(system, "kernels", None) == [SDPBackend.MATH]
        with attention(math), Alive() as alive:
            with torch.autocast("cpu", low) if mixed else nullcontext():
                loss = system.training_step(data, 0)["loss"]
            loss.backward()
    return Step(alive.peak, alive.flops)


def imagined_batch(seeds: Tensor, crop: int) -> dict[str, Any]:
    """Returns a training batch with shapes and, but for its seeds (B,), no values."""
    size = len(seeds)
    images = {name: torch.empty(size, 3, crop, crop) for name in ("lq", "gt")}
    about = {name: [""] * size for name in ("id", "degradation", "dataset")}
    return images | about | {"seed": seeds}


@dataclass(frozen=True)
class Sizes:
    """Holds the sizes of the model, in bytes and numbers.

    frozen_bytes: parameters and buffers that do not train; trained: number of parameters that do.
    """

    frozen_bytes: int
    frozen: int
    trained: int


def sizes_of(module: nn.Module) -> Sizes:
    """Returns the sizes of a system; of a quantized backbone those that it will have."""
    frozen = [p for p in module.parameters() if not p.requires_grad]
    state = frozen + list(module.buffers())
    return Sizes(
        sum(t.nbytes for t in state) - getattr(module, "saved_bytes", 0),
        sum(p.numel() for p in frozen),
        sum(p.numel() for p in module.parameters() if p.requires_grad),
    )
