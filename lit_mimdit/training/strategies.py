"""Trains over many processes by DeepSpeed's ZeRO, whose stages have names here.

Checkpoints do not know how many processes wrote them.

`trainer.strategy` is `zero1`, `zero2` or `zero3`. `zero1` shards the optimizer's state over the
processes. `zero2` also shards the gradients. `zero3` also shards the parameters, the frozen
backbone's too. `_offload` at the end of a name keeps the optimizer's state in the memory of the
host. `ddp` is Lightning's own.

DeepSpeed's own checkpoints are folders for one number of processes and one stage. They hold pickled
code and are not written atomically. Here the processes put their parts together instead, since the
trained branch is small. The first process writes the same file that a single process would. It
resumes under every strategy and number of processes, and everything that reads checkpoints reads
it.
"""

import functools
import itertools
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.plugins.precision import DeepSpeedPrecision, Precision
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.model_summary import model_summary_deepspeed
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_mimdit.training.sharded_states import MASTER, ShardedStates

DEFAULT_TIMEOUT = timedelta(minutes=10)
# After every module, DeepSpeed looks whether its parameters are used again in the modules that
# follow, until those have so many parameters. Its own 1e9 reaches to the end of a step, which costs
# the square of the number of modules: seconds a step for MiM-DiT's thousands of small ones.
# Parameters of up to 1e5 numbers stay anyway (stage3_param_persistence_threshold).
REUSE_DISTANCE = 10_000

# Lightning's summary asks for DeepSpeed's version once for every parameter, and reads it from the
# package's files each time: seconds before the first step
model_summary_deepspeed.RequirementCache = functools.cache(model_summary_deepspeed.RequirementCache)


def refuse_quantized(stage: int, system: nn.Module) -> None:
    """Raises ValueError for stage 3 of ZeRO with a quantized backbone.

    Its weights are not numbers.
    """
    quantize = getattr(system, "backbone_quantize", None)
    if stage == 3 and quantize is not None:
        raise ValueError(
            f"model.backbone_quantize is {quantize} under ZeRO stage 3, which cuts frozen weights"
            " into parts, and quantized ones cannot be cut; choose zero2 or ddp"
        )


class FullPrecisionInputs(DeepSpeedPrecision):
    """DeepSpeed's precision without its rounding of every input.

    References would be scored in 16 bits, and the network casts itself.
    """

    def convert_input(self, data: Any) -> Any:
        return data


class ZeRO(ShardedStates, DeepSpeedStrategy):
    """DeepSpeed's ZeRO on GPUs, for Adam and AdamW.

    Args:
        stage: 1 shards the optimizer's state over the processes, 2 the gradients as well, 3 the
            parameters as well.
        offload: keep the optimizer's state in the host's memory, and compute its step there.
        timeout: how long a process waits for the others before the run fails, as H:MM:SS.
        config: further DeepSpeed options, such as `{zero_optimization: {reduce_bucket_size:
            100000000}}`. They win over those chosen here.
        parallel_devices: set by Lightning.
        cluster_environment: set by Lightning.
        process_group_backend: backend of the communication; `nccl` if not given.
    """

    def __init__(
        self,
        stage: int = 2,
        offload: bool = False,
        timeout: timedelta = DEFAULT_TIMEOUT,
        config: dict[str, Any] | None = None,
        parallel_devices: list[torch.device] | None = None,
        cluster_environment: Any = None,
        process_group_backend: str | None = None,
        **lightning: Any,
    ) -> None:
        if stage not in (1, 2, 3):
            raise ValueError(
                f"strategy.stage is {stage}: ZeRO has the stages 1, 2 and 3; choose one"
            )
        super().__init__(
            stage=stage,
            offload_optimizer=offload,
            timeout=timeout,
            exclude_frozen_parameters=True,
            parallel_devices=parallel_devices,
            cluster_environment=cluster_environment,
            process_group_backend=process_group_backend,
            **lightning,
        )
        # PyTorch's Adam steps on the host as well, and needs no compiler there
        self.config |= {"zero_force_ds_cpu_optimizer": False}
        if stage == 3:
            self.config["zero_optimization"]["stage3_max_reuse_distance"] = REUSE_DISTANCE
        for key, value in (config or {}).items():
            merge = isinstance(value, dict) and isinstance(self.config.get(key), dict)
            self.config[key] = self.config[key] | value if merge else value
        self._groups: list[list[nn.Parameter]] = []
        self.engine = None
        self._whole: Any = None  # DeepSpeed's context of gathered parameters, while they are

    # -- setting up

    @property
    def stage(self) -> int:
        return self.config["zero_optimization"]["stage"]

    @property
    def precision_plugin(self) -> Precision:
        return self._precision_plugin or Precision()

    @precision_plugin.setter
    def precision_plugin(self, plugin: Precision | None) -> None:
        self._precision_plugin = (
            FullPrecisionInputs(plugin.precision)
            if isinstance(plugin, DeepSpeedPrecision)
            else plugin
        )

    def setup_environment(self) -> None:
        if not isinstance(self.accelerator, CUDAAccelerator):
            raise ValueError(
                "trainer.strategy is ZeRO, which needs NVIDIA GPUs, and this run has none: set"
                " trainer.strategy to ddp, or to one that ends in _cpu"
            )
        super().setup_environment()

    def setup_distributed(self) -> None:
        super().setup_distributed()
        from deepspeed.utils import groups

        # DeepSpeed's copy of the world group would wait for 30 minutes, whatever the timeout here
        groups._WORLD_GROUP = dist.new_group(
            ranks=range(dist.get_world_size()), timeout=self._timeout
        )

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        return False  # whole weights are loaded before they are sharded

    @contextmanager
    def model_sharded_context(self) -> Generator[None, None, None]:
        """Weights are loaded whole, by diffusers, and sharded by `init_deepspeed`: each process
        holds all of them once, in the host's memory."""
        self._init_config_if_needed()
        yield

    def init_deepspeed(self) -> None:
        """Shards training only.

        validate, test and predict run as on one device, however many tiles each process has to do.
        """
        if self.lightning_module.trainer.state.fn == TrainerFn.FITTING:
            super().init_deepspeed()
        else:
            self.model_to_device()

    def _setup_model_and_optimizer(
        self, model: nn.Module, optimizer: Optimizer | None, lr_scheduler: Any = None
    ) -> Any:
        refuse_quantized(self.stage, self.lightning_module)
        if "bf16" not in self.config and "fp16" not in self.config:
            low = next(
                (name for name, p in model.named_parameters() if p.dtype != torch.float32), None
            )
            if low is not None:
                raise ValueError(
                    f"trainer.precision is 32-true, but {low} is kept in 16 bits: under ZeRO set"
                    " model.backbone_dtype to float32, or trainer.precision to bf16-mixed"
                )
        self._groups = [list(group["params"]) for group in optimizer.param_groups]
        engine, sharded = super()._setup_model_and_optimizer(model, optimizer, lr_scheduler)
        self.engine = engine
        for flat in self._flats(
            sharded
        ):  # Adam would do so at its first step; checkpoints and averages need it before
            step = torch.zeros((), dtype=torch.float32)
            sharded.optimizer.state[flat] = {
                "step": step,
                "exp_avg": torch.zeros_like(flat),
                "exp_avg_sq": torch.zeros_like(flat),
            }
        self._link(sharded)
        return engine, sharded

    # -- evaluation between the steps: whole parameters (stage 3)

    def on_validation_start(self) -> None:
        self._gather()

    def on_validation_end(self) -> None:
        if self._whole is not None:
            self._whole.__exit__(None, None, None)
            self._whole = None
            self.engine.optimizer.parameter_offload.setup_zero_stage3_hooks()

    def teardown(self) -> None:
        if (
            self.engine is not None and not self.lightning_module.trainer.interrupted
        ):  # else the other processes may be gone
            self._gather()
        if self.model is not None:
            self.model = self.lightning_module
        super().teardown()

    def _gather(self) -> None:
        """Whole parameters on every process, and no hooks that exchange them.

        The processes need not do the same from here on.
        """
        if self.stage == 3 and self.engine is not None and self._whole is None:
            import deepspeed

            self.engine.optimizer.parameter_offload._remove_module_hooks()
            self._whole = deepspeed.zero.GatheredParameters(
                list(self.lightning_module.parameters())
            )
            self._whole.__enter__()

    # -- checkpoints: one file, as if one process had written it

    def lightning_module_state_dict(self) -> dict[str, Tensor]:
        """Returns the trained parameters in 32 bits, on the first process; {} on the others."""
        module = self.lightning_module
        named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        kept = self.collect(named, MASTER)
        if self.is_global_zero:  # buffers are whole on every process
            state = module.state_dict()
            kept |= {name: t.cpu().clone() for name, t in state.items() if name not in named}
        return kept

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        DDPStrategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return DDPStrategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        DDPStrategy.load_model_state_dict(self, checkpoint, strict)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True


class ZeROOnCPU(ZeRO):
    """ZeRO on CPUs over gloo, to try and to test it without GPUs.

    Only what asks for a GPU is answered here.
    """

    @property
    def parallel_devices(self) -> list[torch.device] | None:
        return self._parallel_devices

    @parallel_devices.setter
    def parallel_devices(self, devices: list[torch.device] | None) -> None:
        self._parallel_devices = (
            [torch.device("cpu", i) for i in range(len(devices))] if devices else devices
        )  # DeepSpeed wants an index

    def setup_environment(self) -> None:
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = (
            False  # an all-reduce that would have to be compiled first
        )
        DDPStrategy.setup_environment(self)  # DeepSpeedStrategy's refuses whatever is no GPU


for _stage, _offload, _cpu in itertools.product((1, 2, 3), (False, True), (False, True)):
    _name = f"zero{_stage}" + ("_offload" if _offload else "") + ("_cpu" if _cpu else "")
    StrategyRegistry.register(
        _name,
        ZeROOnCPU if _cpu else ZeRO,
        description=_name,
        stage=_stage,
        offload=_offload,
        override=True,
    )
