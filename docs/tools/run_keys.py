"""The keys of a YAML outside of system and data module: those of the run, and of the trainer."""

import inspect
from typing import get_type_hints

import lightning as L
from describe import cell, default_of, kind_of, table
from jsonargparse import ArgumentParser

from lit_mimdit.training.command import TrainerCommand

LIGHTNING = "https://lightning.ai/docs/pytorch/stable/common/trainer.html#trainer-flags"
# key -> (type, default, meaning); beside those that `fit` adds to Lightning's
RUN = {
    "model": ("class", "required", "[System](systems.md), by class_path and init_args."),
    "data": ("class", "`null`", "[Data module](data_modules.md), by class_path and init_args."),
    "trainer": ("mapping", "Lightning's", "[Settings of the trainer](#trainer)."),
    "seed_everything": (
        "integer or true or false",
        "`0`",
        "Seed of weights, order and noise, set before anything is built. `true` draws one,"
        " `false` sets none.",
    ),
    "ckpt_path": (
        "path or null",
        "`null`",
        "Checkpoint to load. `fit` goes on from it; other commands take its weights. `last` is the"
        " run's last.ckpt.",
    ),
}
# What the trainer's keys mean here, and the type where Lightning's is a class. Lightning explains
# the others.
TRAINER: dict[str, tuple[str, str | None]] = {
    "default_root_dir": ("Folder of the run, unless the logger has its own.", None),
    "max_steps": ("Optimizer steps after which the run ends. -1 sets no limit.", None),
    "max_epochs": ("Epochs after which the run ends. -1 sets no limit.", None),
    "max_time": ("Time after which the run ends, as DD:HH:MM:SS.", "text or mapping or null"),
    "accelerator": (
        "Kind of device: `auto`, `cpu`, `gpu` or `mps`. The dry run takes `auto` for GPUs.",
        "text",
    ),
    "devices": (
        "Devices on each host: their number, a list of them, or `auto` for all.",
        "list of integer, text or integer",
    ),
    "num_nodes": ("Number of hosts.", None),
    "strategy": (
        "How processes share the work: `auto`, `ddp`, or a [strategy](strategies.md) of ZeRO.",
        "text or class",
    ),
    "precision": (
        "Precision of the computation: `32-true`, `bf16-mixed`, `bf16-true` or `16-mixed`.",
        "text",
    ),
    "accumulate_grad_batches": (
        "Batches whose gradients make up one optimizer step. It multiplies `micro_batch`, never"
        " `data.batch_size`, which is that of a step.",
        None,
    ),
    "gradient_clip_val": ("Largest norm of all gradients together. `null` does not clip.", None),
    "use_distributed_sampler": (
        "Must be `false`: the data module deals out the samples itself.",
        None,
    ),
    "num_sanity_val_steps": ("Validation batches before training begins.", None),
    "val_check_interval": (
        "Optimizer steps between two validations, also with accumulation; Lightning counts batches."
        " A share such as 0.5 is of an epoch.",
        "integer, number or text",
    ),
    "check_val_every_n_epoch": (
        "Epochs between two validations. `null` counts val_check_interval over the whole run, else"
        " it counts within an epoch.",
        None,
    ),
    "limit_train_batches": (
        "Batches of an epoch, or their share. What fills no whole optimizer step is left out.",
        None,
    ),
    "limit_val_batches": ("Validation batches, or their share. 0 does not validate.", None),
    "limit_test_batches": ("Test batches, or their share.", None),
    "log_every_n_steps": ("Optimizer steps between two points of the logger.", None),
    "logger": (
        "Where curves and pictures go. `false` logs nothing, and the run's files go to"
        " default_root_dir.",
        "class, list of classes, or true or false",
    ),
    "callbacks": (
        "What runs beside training, in this order; see [Callbacks](callbacks.md).",
        "list of classes",
    ),
    "plugins": (
        "Plugins. [WholeFiles](callbacks.md#wholefiles) writes checkpoints whole or not at all.",
        "list of classes",
    ),
    "reload_dataloaders_every_n_epochs": (
        "Epochs after which the loaders are built anew. 0 keeps them.",
        None,
    ),
    "fast_dev_run": (
        "`true` runs one batch of everything, and a number so many. Nothing is written.",
        None,
    ),
    "deterministic": (
        "`true` takes algorithms of PyTorch that give the same numbers every time.",
        None,
    ),
    "enable_progress_bar": ("Whether a progress bar is shown.", None),
}
ABOUT = (
    "These keys stand below `trainer`. Intervals count optimizer steps. A class is given by"
    " `class_path` and `init_args`. The table has the keys that the experiments use, and those that"
    f" mean something else here. [Lightning]({LIGHTNING}) explains the others."
)


def own_options() -> list[list[str]]:
    """Returns rows of the options that this package adds to Lightning's: name, type, default and
    meaning.
    """
    parser = ArgumentParser()
    TrainerCommand.add_arguments_to_parser(None, parser)
    return [
        [f"`{a.dest}`", kind_of(a._typehint), default_of(a.default), cell(a.help)]
        for a in parser._actions
        if getattr(a, "_typehint", None) is not None
    ]


def sections() -> list[str]:
    """Returns the sections of the run's keys and of the trainer's."""
    head = ["Key", "Type", "Default", "Meaning"]
    run = [[f"`{key}`", *about] for key, about in RUN.items()] + own_options()
    defaults = inspect.signature(L.Trainer).parameters
    hints = get_type_hints(L.Trainer.__init__)
    trainer = [
        [f"`{key}`", kind or kind_of(hints[key]), default_of(defaults[key].default), meaning]
        for key, (meaning, kind) in TRAINER.items()
    ]
    return [
        "## Run",
        "These keys stand at the outermost level of an experiment's YAML.",
        table(head, run),
        "## Trainer",
        ABOUT,
        table(head, trainer),
    ]
