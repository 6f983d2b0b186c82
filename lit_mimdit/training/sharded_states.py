"""States that DeepSpeed's ZeRO shards over the processes, given and taken as whole tensors."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lit_mimdit.systems.optim import moments_by_name

MASTER = None  # key of a parameter's own 32-bit value among the states that are given and taken

BUNDLE = 2**24  # numbers that travel at once, unless a single parameter has more


def bundles(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters in their order, as many at once as BUNDLE allows."""
    bundle: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        numel = getattr(parameter, "ds_numel", parameter.numel())  # ZeRO-3's own are empty
        if bundle and size + numel > BUNDLE:
            yield bundle
            bundle, size = [], 0
        bundle.append(parameter)
        size += numel
    if bundle:
        yield bundle


class ShardedStates:
    """A strategy's part that knows how DeepSpeed lays out Adam's state and the 32-bit parameters.

    Every process holds a part of each. The strategy sets what is annotated here.
    """

    config: dict[str, Any]  # of DeepSpeed
    stage: int  # of ZeRO
    engine: Any  # DeepSpeed's; None before it is set up
    lightning_module: Any
    root_device: torch.device
    world_size: int
    global_rank: int
    is_global_zero: bool
    _groups: list[list[nn.Parameter]]  # the optimizer's, before they were sharded

    def _flats(self, sharded: Any = None) -> list[Tensor]:
        """This process's parts of the 32-bit parameters, flat; the keys of Adam's state."""
        sharded = sharded or self.engine.optimizer
        return list(
            sharded.fp32_partitioned_groups_flat
            if self.stage == 3
            else sharded.single_partition_of_fp32_groups
        )

    def _link(self, sharded: Any) -> None:
        """Let DeepSpeed know all entries of Adam's state; stages 1 and 2 look them up only once."""
        if self.stage < 3:
            sharded._hp_optimizer_states_linked = False
            sharded._lazy_init_hp_params_optimizer_state()

    @property
    def trained(self) -> list[nn.Parameter]:
        """The trained parameters in the optimizer's order."""
        return list(itertools.chain.from_iterable(self._groups))

    def add_state(self, key: str) -> None:
        """A further sharded state, which starts as a copy of the parameters."""
        for flat in self._flats():
            self.engine.optimizer.optimizer.state[flat][key] = flat.detach().clone()
        self._link(self.engine.optimizer)

    @torch.no_grad()
    def lerp_state(self, key: str, weight: float) -> None:
        """state = state + weight (parameter - state), each process its own part.

        The processes do not communicate.
        """
        flats = self._flats()
        torch._foreach_lerp_(
            [self.engine.optimizer.optimizer.state[flat][key] for flat in flats],
            [f.detach() for f in flats],
            weight,
        )

    @torch.no_grad()
    def full(self, parameters: Iterable[nn.Parameter], key: str | None) -> Iterator[Tensor]:
        """Yields a state of each parameter put together from all processes, float32 of its shape;
        all of them must ask. Many travel at once: each message costs time, and there are thousands.
        """
        for bundle in bundles(parameters):
            parts = [self._part(parameter, key).flatten() for parameter in bundle]
            flat = torch.cat([part.to(self.root_device, torch.float32) for part in parts])
            sizes = [part.numel() for part in parts]
            if self.stage == 3:  # each process has a part of every parameter
                whole = flat.new_empty(self.world_size, len(flat))
                dist.all_gather(list(whole), flat)
                values = [columns.flatten() for columns in whole.split(sizes, dim=1)]
            else:  # what others have is 0 here
                dist.all_reduce(flat)
                values = list(flat.split(sizes))
            for parameter, value in zip(bundle, values, strict=True):
                shape = parameter.ds_shape if self.stage == 3 else parameter.shape
                yield value[: shape.numel()].view(shape)

    def _part(self, parameter: nn.Parameter, key: str | None) -> Tensor:
        """This process's part of a state: in ZeRO-3 that alone, else with zeros around it."""
        from deepspeed.utils import safe_get_local_fp32_param, safe_get_local_optimizer_state

        if self.stage == 3:
            return (
                safe_get_local_fp32_param(parameter)
                if key is MASTER
                else safe_get_local_optimizer_state(parameter, key)
            )
        whole = torch.zeros_like(parameter, dtype=torch.float32).flatten()
        mapping = parameter._hp_mapping  # None where all of it is another process's
        if mapping is not None:
            place = mapping.lp_fragment_address
            part = mapping.get_hp_fragment(key)
            whole.narrow(0, place.start, place.numel).copy_(part)
        return whole

    def set_full(self, parameter: nn.Parameter, value: Tensor, key: str | None = MASTER) -> None:
        """The inverse of `full`: each process keeps its part of `value`."""
        from deepspeed.utils import (
            safe_set_full_fp32_param,
            safe_set_full_optimizer_state,
            safe_set_local_fp32_param,
            safe_set_local_optimizer_state,
        )

        if (
            self.stage == 3
        ):  # DeepSpeed's own would fail where the processes do not divide the parameter
            size = parameter.ds_tensor.numel()
            flat = nn.functional.pad(value.flatten(), (0, size * self.world_size - value.numel()))
            value = flat[size * self.global_rank : size * (self.global_rank + 1)]
            set_master, set_state = safe_set_local_fp32_param, safe_set_local_optimizer_state
        else:
            set_master, set_state = safe_set_full_fp32_param, safe_set_full_optimizer_state
        if key is MASTER:
            set_master(parameter, value)
        else:
            set_state(parameter, value, key)

    def gradient_norm(self) -> Tensor:
        """Returns the L2 norm of the gradient over all processes, before clipping."""
        sharded, flats = self.engine.optimizer, self._flats()
        if "offload_optimizer" in self.config["zero_optimization"]:
            parts: Iterable[Tensor] = [flat.grad for flat in flats]
        else:
            every = itertools.chain.from_iterable(
                gradients or [] for gradients in sharded.averaged_gradients.values()
            )
            parts = [gradient for gradient in every if gradient is not None]
        squares = [part.detach().float().square().sum().to(self.root_device) for part in parts]
        total = torch.stack(squares).sum() if squares else torch.zeros((), device=self.root_device)
        dist.all_reduce(total)
        return total.sqrt() / sharded.loss_scale

    def first_bad_gradient(self, named: Iterable[tuple[str, nn.Parameter]]) -> str | None:
        """Returns the name of the first parameter whose gradient is not finite; all processes must
        ask.
        """
        from deepspeed.utils import safe_get_full_grad

        return next(
            (
                name
                for name, p in named
                if p.requires_grad and not torch.isfinite(safe_get_full_grad(p)).all()
            ),
            None,
        )

    # -- as one process would have them

    def collect(
        self, named: Mapping[Any, nn.Parameter], key: str | None, everywhere: bool = False
    ) -> dict[Any, Tensor]:
        """Whole states of parameters, on the CPU of the first process or of all; all processes must
        ask.
        """
        states = {}
        for name, whole in zip(named, self.full(named.values(), key), strict=True):
            if everywhere or self.is_global_zero:
                states[name] = whole.detach().cpu().clone()
        return states

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Returns Adam's state in PyTorch's own format, on the first process; {} on the others."""
        adam = self.engine.optimizer.optimizer
        named = dict(enumerate(self.trained))
        moments = {key: self.collect(named, key) for key in ("exp_avg", "exp_avg_sq")}
        if not self.is_global_zero:
            return {}
        step = adam.state[self._flats()[0]]["step"]
        state: dict[int, dict[str, Tensor]] = {}
        for index in named:
            state[index] = {"step": step.detach().float().cpu().clone()}
            state[index] |= {key: values[index] for key, values in moments.items()}
        indices, groups = iter(range(len(named))), []
        for group, parameters in zip(adam.param_groups, self._groups, strict=True):
            values = {key: value for key, value in group.items() if key != "params"}
            groups.append(values | {"params": [next(indices) for _ in parameters]})
        return {"state": state, "param_groups": groups}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """The 32-bit parameters (the module was loaded before, in its own precision) and the
        moments. The settings of the groups stay those of the configuration.
        """
        adam, saved = self.engine.optimizer.optimizer, checkpoint["optimizer_states"][0]
        for name, parameter in self.lightning_module.named_parameters():
            if parameter.requires_grad:
                self.set_full(parameter, checkpoint["state_dict"][name].float())
        state = moments_by_name(adam.param_groups, saved)
        for index, parameter in enumerate(self.trained):
            for key in ("exp_avg", "exp_avg_sq"):
                self.set_full(parameter, state[index][key].float(), key)
        for flat in self._flats():
            adam.state[flat]["step"].fill_(float(state[0]["step"]))
