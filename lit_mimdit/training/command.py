"""`fit`, `validate`, `test` and `predict`: LightningCLI, driven by one YAML."""

import sys
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import yaml
from jsonargparse import Namespace, set_loader, set_parsing_settings
from jsonargparse._optionals import get_omegaconf_loader
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    SaveConfigCallback,
)
from lightning.pytorch.utilities import rank_zero_info

import lit_mimdit.training.strategies  # noqa: F401  their names
from lit_mimdit.renamed import reading_old_names, with_new_names
from lit_mimdit.training.callbacks import ResultTable
from lit_mimdit.training.dry_run import dry_run
from lit_mimdit.training.resume import SameStart, checkpoint_to_resume
from lit_mimdit.training.trainer import Trainer

RESUME = (
    "checkpoint to go on from. `auto` takes the newest whole one in the folder of the"
    " ModelCheckpoint. `auto` without one, and `never`, start anew, or from --ckpt_path"
)
DRY_RUN = (
    "print the modules, the trained and frozen parameters and an estimate of the memory on each"
    " device, and do no more. `fit` alone has it; it needs neither weights nor data nor GPUs. Say"
    " for how many: --trainer.devices 8 --trainer.num_nodes 2"
)
MATMUL_PRECISION = "precision of float32 matrix products, see torch.set_float32_matmul_precision"
PARSER_MODE = "omegaconf+"
BARE = ("--trainer.fast_dev_run", "--dry_run")  # they mean true, as in Lightning's documentation


class EffectiveConfig(SaveConfigCallback):
    """Writes the configuration, every default in it, to config.yaml in the log folder.

    It was checked when it was read: to check it again takes longer than to write it.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # on every process: it is a broadcast; a logger may have no folder of its own
        folder = trainer.log_dir or trainer.default_root_dir
        if self.already_saved:
            return
        self.already_saved = True
        if trainer.is_global_zero:
            Path(folder).mkdir(parents=True, exist_ok=True)
            path = str(Path(folder) / self.config_filename)
            self.parser.save(
                self.config, path, skip_none=False, skip_validation=True, overwrite=True
            )


class TrainerCommand(LightningCLI):
    """LightningCLI whose YAML and command line always beat what a checkpoint remembers.

    Model and data are given by class_path.
    """

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Returns the command that is called, alone: each parser takes long to build."""
        called = sys.argv[1]
        return {called: LightningCLI.subcommands()[called]}

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Build the parser of the command that is called.

        A parser of commands around it would read and check every value a second time.
        """
        (called,) = self.subcommands()
        self._subcommand_method_arguments: dict[str, list[str]] = {}
        options = main_kwargs | {"prog": f"{main_kwargs['prog']} {called}"}
        self.parser = self._prepare_subcommand_parser(Trainer, called, **options)
        self._subcommand_parsers = {called: self.parser}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Read the values of the command, and keep them under its name as Lightning does."""
        called, *options = sys.argv[1:]
        self.config = Namespace({called: parser.parse_args(options), "subcommand": called})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        choices = Literal["highest", "high", "medium"]
        parser.add_argument(
            "--matmul_precision", type=choices, default="highest", help=MATMUL_PRECISION
        )
        parser.add_argument("--resume", type=str, default="never", help=RESUME)
        parser.add_argument("--dry_run", type=bool, default=False, help=DRY_RUN)

    def _parse_ckpt_path(self) -> None:
        """Leave the checkpoint's hyper-parameters alone: they would silently win."""

    def _dump_config(self) -> None:
        """Lightning's, without the check of what has just been read."""
        if not hasattr(self, "config_dump"):
            values = self.config[self.subcommand]
            text = self._parser(self.subcommand).dump(
                values, skip_link_targets=False, skip_none=False, skip_validation=True
            )
            self.config_dump = yaml.safe_load(text)

    def instantiate_classes(self) -> None:
        """Build nothing for a dry run: a logger would open its folder, a strategy ask for GPUs."""
        values = self.config[self.subcommand]
        if values.dry_run:
            return
        built = self.parser.instantiate_classes(values)
        self.config_init = Namespace({self.subcommand: built})
        self.model, self.datamodule = built.model, built.get("data")
        self.trainer = self.instantiate_trainer()

    def _run_subcommand(self, subcommand: str) -> None:
        if not self.config[subcommand].dry_run:
            super()._run_subcommand(subcommand)
        elif subcommand != "fit":
            raise ValueError(f"--dry-run is of fit, not of {subcommand}; leave it out")
        else:
            dry_run(self.config[subcommand].as_dict())

    def before_validate(self) -> None:
        self._require_last()

    def before_test(self) -> None:
        self._require_last()

    def before_predict(self) -> None:
        self._require_last()

    def _require_last(self) -> None:
        """Raises ValueError for `--ckpt_path last` of a run that has no checkpoint.

        Lightning would go on with untrained weights.
        """
        keepers = [
            keeper
            for keeper in self.trainer.checkpoint_callbacks
            if isinstance(keeper, ModelCheckpoint)
        ]
        last = [path for keeper in keepers for path in keeper._find_last_checkpoints(self.trainer)]
        if self.config_init[self.subcommand].ckpt_path == "last" and not last:
            folders = ", ".join(str(keeper.dirpath) for keeper in keepers) or "no folder"
            raise ValueError(
                f"--ckpt_path is last, and there is no last.ckpt in {folders}: train first, or"
                " name a checkpoint"
            )

    def before_fit(self) -> None:
        """`resume`: the checkpoint to go on from."""
        fit = self.config_init.fit
        if fit.resume == "never":
            return
        path = checkpoint_to_resume(
            fit.resume, [getattr(c, "dirpath", None) for c in self.trainer.checkpoint_callbacks]
        )
        self.trainer.callbacks.insert(0, SameStart(path))
        if path is not None:
            rank_zero_info(
                f"resume: going on from {path}"
                + (f", not from --ckpt_path {fit.ckpt_path}" if fit.ckpt_path else "")
            )
            fit.ckpt_path = str(path)

    def after_fit(self) -> None:
        """The final weights' table, unless the run was cut short.

        Weights that training has just validated are not validated again.
        """
        trainer = self.trainer
        stopped = any(getattr(callback, "requested", False) for callback in trainer.callbacks)
        if stopped or trainer.fast_dev_run or trainer.limit_val_batches == 0:
            return
        if trainer.fit_loop.epoch_loop.validated_at == trainer.global_step:
            for callback in trainer.callbacks:
                if isinstance(callback, ResultTable):
                    callback.show(trainer, self.model, "val")
        else:
            trainer.validate(self.model, datamodule=self.datamodule, verbose=False)

    def before_instantiate_classes(self) -> None:
        torch.set_float32_matmul_precision(self.config[self.subcommand].matmul_precision)
        if self.subcommand == "predict":
            # WriteRestored writes them; a folder of photographs does not fit in memory
            self.config.predict.return_predictions = False


def prepared(args: list[str]) -> list[str]:
    """Returns the arguments as LightningCLI takes them: --dry-run as --dry_run, bare flags as
    true.
    """
    args = ["--dry_run" if argument == "--dry-run" else argument for argument in args]
    following = [*args[1:], "-"]
    return [
        f"{argument}=true" if argument in BARE and after.startswith("-") else argument
        for argument, after in zip(args, following, strict=False)
    ]


def run_trainer(args: list[str], prog: str) -> None:
    """Run a command of Lightning's Trainer.

    Args:
        args: command and options.
        prog: how the user called the program.
    """
    known = ("-c", "--config", "--model", "--help", "-h")
    if not any(argument.partition("=")[0].startswith(known) for argument in args[1:]):
        raise ValueError(
            f"{args[0]} needs an experiment: give its YAML with -c, such as"
            f" `{prog} {args[0]} -c experiments/quickstart.yaml`"
        )
    args = [with_new_names(argument) for argument in args]
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    load = reading_old_names(get_omegaconf_loader(PARSER_MODE))
    set_loader(PARSER_MODE, load, exceptions=(yaml.YAMLError,))
    sys.argv = [sys.argv[0], *prepared(args)]
    TrainerCommand(
        trainer_class=Trainer,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,  # the system's own configuration is the only one
        seed_everything_default=0,
        parser_kwargs={"prog": prog, "parser_mode": PARSER_MODE, "exit_on_error": False},
        save_config_callback=EffectiveConfig,
    )
