"""The command line.

Its commands, its help, its errors of one line, and what YAML and options mean.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lit_mimdit import __version__, cli, function_command
from lit_mimdit.function_command import join_lists

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted(
    p
    for p in (ROOT / "experiments").rglob("*.yaml")
    if p.parent.name != "ablations" and p.name != "league.yaml"
)  # those: tests/ablation


def test_the_list_of_commands_is_known():
    """A new command needs a line here, a help text, and a test of its own."""
    assert sorted(cli.TRAINER_COMMANDS) == ["fit", "predict", "test", "validate"]
    assert sorted(cli.COMMANDS) == [
        "ablate",
        "classical",
        "data check",
        "data latents",
        "data shard",
        "data teacher",
        "demo",
        "evaluate",
        "export",
        "import-weights",
        "metrics",
        "report",
        "restore",
        "routing",
        "sample-data",
    ]


def test_help_and_version(capsys):
    for args in ([], ["-h"], ["--help"]):
        assert cli.main(args) == 0
        text = capsys.readouterr().out
        assert (
            all(f"  {name} " in text for name in (*cli.TRAINER_COMMANDS, *cli.COMMANDS))
            and cli.TRACEBACK in text
        )
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


TAUGHT = {
    "import-weights": ["-o", "--override", "--dtype"],
    "fit": [
        "--config",
        "--trainer.max_steps",
        "--ckpt_path",
        "--matmul_precision",
        "--print_config",
        "--seed_everything",
        "--dry_run",
    ],
    "validate": ["--config", "--ckpt_path"],
    "test": ["--config", "--ckpt_path"],
    "predict": ["--config", "--ckpt_path"],
    "classical": ["--output", "--method"],
    "restore": [
        "--output",
        "--checkpoint",
        "--steps",
        "--solver",
        "dpmpp_2m",
        "--strength",
        "--tile",
        "--overlap",
        "--prompt",
        "--captions",
        "--guidance",
        "--dtype",
        "--seed",
        "--device",
    ],
    "export": ["--output", "--dtype"],
    "ablate": ["-c", "--config", "--output", "--jobs", "--threads", "--only", "results.csv"],
    "sample-data": ["--size", "--train_crops", "--types", "--overwrite"],
    "data check": ["--layout"],
    "data shard": [
        "source",
        "destination",
        "--tile",
        "--overlap",
        "--codec",
        "--quality",
        "--workers",
        "--max_broken",
    ],
    "data latents": ["source", "destination", "--backbone", "--augment", "--dtype"],
    "data teacher": ["source", "destination", "--checkpoint", "--steps", "--solver", "--seed"],
    "evaluate": ["--output", "--restored", "--reference", "--metrics", "--layout"],
    "metrics": ["--only", "--weights"],
    "report": ["--output", "--by", "--cases", "--side"],
    "demo": ["--checkpoint", "--systems", "--fidelity", "--device", "--port", "--max_megapixels"],
    "routing": [
        "--output",
        "--data",
        "--checkpoint",
        "--limit",
        "--crop",
        "--severity",
        "--permutations",
        "11Raindrop",
    ],
}


@pytest.mark.parametrize("name", sorted(TAUGHT))
def test_help_of_every_command_teaches_its_options(name, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main([*name.split(), "--help_all" if name in cli.TRAINER_COMMANDS else "--help"])
    text = capsys.readouterr().out
    assert left.value.code == 0 and re.search(
        rf"usage: python -m lit_mimdit (\[options\] )?{name}\s", text
    )
    assert [option for option in TAUGHT[name] if option not in text] == []
    assert "--optimizer" not in text and "--lr_scheduler" not in text, (
        "the module's configuration is the only one"
    )
    if name in cli.COMMANDS:
        assert "<class" not in text, "a type goes by its name"
        headings = [line for line in text.splitlines() if re.fullmatch(r"\w.*:", line)]
        assert headings in (["options:"], ["positional arguments:", "options:"])


def test_every_command_has_its_help_tested():
    assert sorted(TAUGHT) == sorted([*cli.TRAINER_COMMANDS, *cli.COMMANDS])


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_experiment_parses_and_prints_back_the_same(path, capsys, tmp_path):
    def printed(config: Path) -> str:
        with pytest.raises(SystemExit) as left:
            cli.main(["fit", "-c", str(config), "--print_config"])
        assert left.value.code == 0
        return capsys.readouterr().out

    first = printed(path)
    (tmp_path / "printed.yaml").write_text(first)
    assert printed(tmp_path / "printed.yaml") == first
    written, shown = yaml.safe_load(path.read_text()), yaml.safe_load(first)
    for part in ("model", "data"):
        assert shown[part]["class_path"] == written[part]["class_path"]
        missing = shown[part]["init_args"].keys() - written[part]["init_args"].keys()
        if "nano" not in path.parts:
            assert not missing, f"an experiment is complete: {missing} left to defaults"


def printed_config(capsys, *args: str) -> dict:
    with pytest.raises(SystemExit):
        cli.main(["fit", *args, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


def test_interpolation_follows_overrides(tiny, capsys, tmp_path):
    """`${...}` across model and data; a command-line value and a second YAML propagate."""
    config = tiny(
        **{
            "data.init_args.eval_crop": "${data.init_args.crop}",
            "model.init_args.sampling.tile": "${data.init_args.crop}",
        }
    )

    def values(*args: str) -> tuple[int, int]:
        found = printed_config(capsys, "-c", config, *args)
        model, data = found["model"]["init_args"], found["data"]["init_args"]
        return data["eval_crop"], model["sampling"]["tile"]

    assert values() == (32, 32)
    assert values("--data.init_args.crop", "24") == (24, 24)
    (tmp_path / "second.yaml").write_text("data: {init_args: {crop: 40}}\n")
    assert values("-c", str(tmp_path / "second.yaml")) == (40, 40)


def test_interpolated_values_reach_the_run(tiny, capsys):
    """An override reaches what refers to it when the objects are made, not only when they are
    printed.
    """
    config = tiny(
        **{
            "data.init_args.eval_crop": "${data.init_args.crop}",
            "data.init_args.batch_size": "${oc.env:SIZE_OF_BATCH,4}",
        }
    )
    assert (
        cli.main(["fit", "-c", config, "--data.init_args.crop", "16", "--trainer.max_steps", "1"])
        == 0
    )
    saved = yaml.safe_load(next(Path("runs").rglob("config.yaml")).read_text())
    assert saved["data"]["init_args"]["crop"] == 16
    assert saved["data"]["init_args"]["eval_crop"] == 16
    log = next(Path("runs").rglob("val_scores.csv"))
    assert len(log.read_text().splitlines()) == 3


IMPOSSIBLE = {
    "model.init_args.branch.intra.top_k": (
        3,
        "branch.intra.top_k is 3 with branch.intra.experts 2: choose 1 to 2",
    ),
    "model.init_args.branch.heads": (
        3,
        "branch.width is 16 and branch.heads 3: the width must be a multiple of the heads",
    ),
    "model.init_args.branch.window": (0, "branch.window is 0"),
    "model.init_args.branch.groups": (
        ["spatial", "fourier"],
        "branch.groups holds ['fourier']: choose among spatial",
    ),
    "model.init_args.sampling.steps": (0, "sampling.steps is 0: at least 1 is needed"),
    "model.init_args.sampling.tile": (
        36,
        "sampling.tile is 36 px: this backbone takes multiples of 8 px up to 64 px",
    ),
    "model.init_args.optimizer.lr": (-1.0, "optimizer.lr is -1.0: it must be positive"),
    "model.init_args.optimizer.lr_scale": ({"routr": 2.0}, "optimizer.lr_scale names ['routr']"),
    "model.init_args.flow.time_std": (0.0, "flow.time_std is 0.0"),
    "model.init_args.flow.weighting": ("cubic", "Got value: cubic"),
    "model.init_args.balance.load": (-1.0, "balance.load is -1.0"),
    "model.init_args.backbone": ("/not/there", "model.backbone: there is no folder '/not/there'"),
    "model.init_args.init": ("not-there.ckpt", "checkpoint not-there.ckpt: no such file"),
    "model.init_args.widht": (3, "widht"),
    "model.init_args.branch.widht": (3, "widht'; see the keys there are with --help"),
    "model.class_path": ("lit_mimdit.systems.mimdit.MimDit", "MimDit'; mend the name, or"),
    "data.init_args.batch_size": (0, "data.batch_size is 0: it must be at least 1"),
    "data.init_args.micro_batch": (
        3,
        "data.batch_size is 4, but 1 processes x 1 accumulated batches x 3 pairs make 3",
    ),
    "data.init_args.crop": ("big", "Got value: big"),
    "data.init_args.eval_crop": (None, "data.eval_batch_size is 2"),
    "data.init_args.train": ("gone.txt", "gone.txt"),
    "trainer.max_stepz": (3, "max_stepz'; see the keys there are with --help"),
    "trainer.logger": (False, "no logger"),
}


@pytest.mark.parametrize("key", sorted(IMPOSSIBLE))
def test_an_impossible_value_is_one_line_and_status_2(key, tiny, capsys):
    value, message = IMPOSSIBLE[key]
    assert cli.main(["fit", "-c", tiny(**{key: value})]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and captured.err.splitlines()[-1] == lines[0], captured.err
    assert message in lines[0] and len(lines[0]) < 400, lines[0]
    assert "Traceback" not in captured.out + captured.err and "usage:" not in captured.err


@pytest.mark.parametrize(
    "args, message",
    [
        (["train"], "no command 'train'"),
        (["fit", "-c", "gone.yaml"], "gone.yaml"),
        (["fit"], "fit needs an experiment: give its YAML with -c"),
        (["test", "-c", "TINY", "--ckpt_path", "last"], "there is no last.ckpt in"),
        (["fit", "-c", "TINY", "--trainer.strategy", "zero2"], "ZeRO, which needs NVIDIA GPUs"),
        (["ablate", "-c", "TINY", "-o", "out"], "is an experiment, and `ablate` takes a study"),
        (["fit", "--model.init_args.branch.widht", "3"], "widht"),
        (
            ["fit", "--model", "torch.nn.Linear"],
            "derive it from lit_mimdit.systems.base.Restoration",
        ),
        (["restore", "--stpes", "3"], "--stpes"),
        (["restore", "photo.png", "-o", "out.png", "--steps", "many"], "steps"),
        (["restore", "photo.png"], "arguments are required: output"),
        (["export", "a.ckpt", "-o", "b.pt"], "written as .safetensors"),
        (["export", "a.ckpt", "-o", "b.safetensors"], "checkpoint a.ckpt: no such file"),
        (["sample-data", "folder", "--size", "0"], "size is 0"),
    ],
)
def test_wrong_commands_and_options_are_one_line(args, message, tiny, capsys):
    if args[0] == "fit" and any(argument.startswith("--model") for argument in args):
        args = ["fit", "-c", tiny(), *args[1:]]
    assert cli.main([tiny() if argument == "TINY" else argument for argument in args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") or error.count("\nerror: ") == 1
    assert (
        message in next(line for line in error.splitlines() if line.startswith("error: "))
        and "Traceback" not in error
    )


def test_errors_of_loader_processes_are_one_line_too(tiny, data_root, tmp_path, capsys):
    """A broken training image met by a worker: its name, and no traceback from inside."""
    root = shutil.copytree(data_root, tmp_path / "copy")
    for path in (root / "train" / "01Blur" / "LQ").iterdir():
        path.write_bytes(path.read_bytes()[:300])
    assert (
        cli.main(
            ["fit", "-c", tiny(**{"data.init_args.root": str(root), "data.init_args.workers": 1})]
        )
        == 2
    )
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and "01Blur/LQ/" in last and "Traceback" not in last


def test_the_traceback_comes_when_asked_for(capsys, monkeypatch):
    monkeypatch.setenv(cli.TRACEBACK, "1")
    assert cli.main(["export", "a.ckpt", "-o", "b.safetensors"]) == 2
    error = capsys.readouterr().err
    assert (
        "Traceback (most recent call last)" in error
        and error.splitlines()[-1] == "error: checkpoint a.ckpt: no such file"
    )


def test_a_defect_is_not_dressed_up_as_a_user_error(monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "restore", ("lit_mimdit.cli", "gone", ""))
    with pytest.raises(AssertionError, match="has no function gone"):
        cli.main(["restore", "a"])


def test_ctrl_c_outside_of_training_is_no_traceback(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(function_command, "run_function", interrupted)
    assert cli.main(["restore", "a", "-o", "b"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_program_from_outside(processes):
    """The real process: help is quick, errors go to stderr with status 2."""

    def run(*args: str):
        command = [sys.executable, "-m", "lit_mimdit", *args]
        return processes.run(command, capture_output=True, text=True, timeout=300)

    found = run("--help")
    assert found.returncode == 0 and "restore" in found.stdout
    found = run("restore", "gone.png", "-o", "out")
    assert (
        found.returncode == 2
        and found.stderr.strip().splitlines()[-1] == "error: gone.png: no such file or folder"
    )
    assert os.path.exists("out") is False


def test_yaml_and_options_beat_what_a_checkpoint_remembers(tiny):
    """Lightning would parse the hyper-parameters stored in the checkpoint over the YAML's and the
    command line's.
    """
    assert (
        cli.main(["fit", "-c", tiny(**{"trainer.max_steps": 2, "trainer.limit_val_batches": 0})])
        == 0
    )
    last = Path("runs/quickstart/checkpoints/last.ckpt")
    checkpoint = torch.load(last, weights_only=True)
    remembered = {
        "sampling": {"steps": 9},
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
    }
    torch.save(checkpoint | {"hyper_parameters": remembered}, "remembers.ckpt")
    config = tiny(
        **{
            "trainer.max_steps": 3,
            "model.init_args.sampling.steps": 1,
            "model.init_args.optimizer.lr": 0.5,
        }
    )
    assert (
        cli.main(
            [
                "fit",
                "-c",
                config,
                "--ckpt_path",
                "remembers.ckpt",
                "--model.init_args.sampling.overlap",
                "16",
            ]
        )
        == 0
    )
    kept = torch.load(last, weights_only=True)["lit_mimdit"]
    assert kept["sampling"]["steps"] == 1 and kept["sampling"]["overlap"] == 16


def test_lists_are_given_as_words_or_as_json():
    flags = {"--checkpoint", "--types"}
    assert join_lists(["--checkpoint", "a", "b", "-o", "out"], flags) == [
        "--checkpoint",
        '["a", "b"]',
        "-o",
        "out",
    ]
    assert join_lists(["x", "--types", "01Blur", "--size", "3"], flags) == [
        "x",
        "--types",
        '["01Blur"]',
        "--size",
        "3",
    ]
    for untouched in (
        ["--types", '["01Blur"]'],
        ["--types", "null"],
        ["--types"],
        ["--size", "3", "4"],
    ):
        assert join_lists(untouched, flags) == untouched
