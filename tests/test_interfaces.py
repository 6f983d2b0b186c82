"""What a user's system brings: consoles, names, spreadsheets and shells."""

import configparser
import csv
import inspect
import io
import logging
import multiprocessing
import os
import subprocess
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path

import pytest
import torch

from lit_mimdit import cli, csv_file, escaping
from lit_mimdit.ablation.command import run_all
from lit_mimdit.completion import TRAINER_OPTIONS, script
from lit_mimdit.console import HANDLER, printable, readable
from lit_mimdit.data.fonts import covers, drawable
from lit_mimdit.evaluation.page import Page
from lit_mimdit.evaluation.pairing import pair, require_whole
from lit_mimdit.evaluation.tables import latex, markdown
from lit_mimdit.models.captions import read_captions
from lit_mimdit.quiet import REMARKS, SHOW_ALL, hush, hush_imports
from lit_mimdit.signatures import signature_of

ROOT = Path(__file__).parents[1]
NASTY = r"a_b & 50% $x$ #1 {c} ~^ <i> [z] *s* `t` | \n"


def test_no_file_is_left_out_of_the_type_checker():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    sections = [name for name in config.sections() if name.startswith("mypy")]
    assert "files" in config["mypy"] and len(sections) == 2
    assert not any("ignore_errors" in config[name] for name in sections)


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_the_signature_that_is_read_is_the_one_that_runs(name):
    module, function, _ = cli.COMMANDS[name]
    real, light = getattr(import_module(module), function), signature_of(module, function)
    assert inspect.signature(light, eval_str=True) == inspect.signature(real, eval_str=True)
    assert inspect.getdoc(light) == inspect.getdoc(real)


LIGHT = """
import sys
import time
from lit_mimdit import cli
for args in {commands!r}:
    try:
        cli.main(args)
    except SystemExit:
        pass
heavy = {{"torch", "lightning", "diffusers", "transformers", "pyiqa", "matplotlib", "scipy"}}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


def test_help_of_every_command_loads_none_of_the_heavy_libraries(processes):
    commands = [[*name.split(), "--help"] for name in cli.COMMANDS]
    commands += [["--help"], ["fit", "--help"], ["restore", "--stepz", "3", "x", "-o", "y"]]
    code = LIGHT.format(commands=commands)
    done = processes.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr.splitlines()[-1] == "[]", done.stderr[-2000:]
    assert "--fidelity_weight" in done.stdout and "--resume auto" in done.stdout


def test_importing_restore_loads_torch_and_neither_diffusers_nor_the_compiler(processes):
    code = (
        "import sys, lit_mimdit.inference.restore; print(sorted({'diffusers', 'lightning',"
        " 'transformers', 'torch._dynamo', 'scipy', 'pyiqa'} & set(sys.modules)))"
    )
    done = processes.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stdout + done.stderr[-2000:]


def complete(text: str, *words: str) -> list[str]:
    line = f"COMP_WORDS=({' '.join(repr(w) for w in words)}); COMP_CWORD={len(words) - 1}"
    code = f'{text}\n{line}; _lit_mimdit; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return done.stdout.split()


def test_bash_completes_commands_options_and_their_words():
    text = script("bash", cli.TRAINER_COMMANDS, cli.COMMANDS)
    assert complete(text, "lit-mimdit", "re") == ["restore", "report"]
    assert complete(text, "lit-mimdit", "restore", "--sol") == ["--solver"]
    solvers = ["euler", "heun", "dpmpp_2m", "unipc"]
    assert complete(text, "lit-mimdit", "restore", "--solver", "") == solvers
    assert complete(text, "lit-mimdit", "data", "") == ["check", "shard", "latents", "teacher"]
    assert "--contact_sheet" in complete(text, "lit-mimdit", "data", "check", "--")
    assert complete(text, "lit-mimdit", "fit", "--trainer.max") == [
        "--trainer.max_epochs",
        "--trainer.max_steps",
    ]
    assert complete(text, "lit-mimdit", "restore", "photo") == []  # the shell's own: files
    assert script("zsh", {}, {}).startswith("autoload")


def test_the_shell_offers_only_keys_that_there_are():
    import lightning as L

    from lit_mimdit.data.datamodule import FoundIRDataModule
    from lit_mimdit.systems.mimdit import MiMDiT

    owners = {
        "--trainer.": L.Trainer,
        "--data.init_args.": FoundIRDataModule,
        "--model.init_args.": MiMDiT,
    }
    for start, owner in owners.items():
        keys = {key.removeprefix(start) for key in TRAINER_OPTIONS if key.startswith(start)}
        assert keys and keys <= set(inspect.signature(owner.__init__).parameters)


def test_an_unknown_shell_is_named(capsys):
    assert cli.main(["--print_completion", "fish"]) == 2
    assert "'fish': choose among bash, zsh" in capsys.readouterr().err


def test_a_console_of_code_page_1252_shows_every_text(processes):
    code = (
        "from lit_mimdit.console import accept_everything; accept_everything();"
        " print('PSNR \\u2191 \\u65e5\\u672c \\u2501\\u2503\\u250f 50 \\u00b1 \\ud800')"
    )
    done = processes.run(
        [sys.executable, "-c", code],
        capture_output=True,
        cwd=ROOT,
        env={"PYTHONIOENCODING": "cp1252", "PATH": ""},
    )
    assert done.stdout.decode("cp1252").strip() == (
        "PSNR ^ \\u65e5\\u672c -|+ 50 \u00b1 \\ud800"
    ), done.stderr
    assert "\u65e5".encode("ascii", HANDLER) == b"\\u65e5" and readable("\u2593") == "\\u2593"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_spreadsheet_of_any_country_is_read(tmp_path, encoding, separator):
    lines = [["ID", "caption"], ["a", "Stra\u00dfe"], ["", ""], ["b", f"x{separator}y"]]
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=separator, lineterminator="\r\n").writerows(lines)
    path = tmp_path / "captions.csv"
    path.write_bytes(buffer.getvalue().encode(encoding))
    assert read_captions(path) == {"a": "Stra\u00dfe", "b": f"x{separator}y"}


def test_sep_lines_and_decimal_commas():
    assert csv_file.parse("sep=;\r\nlq;psnr\r\na,b;1,5\r\n") == [{"lq": "a,b", "psnr": "1,5"}]
    for text, value in (
        ("1,5", 1.5), ("1.5", 1.5), ("1.234,5", 1234.5), ("1,234.5", 1234.5), ("\u22122", -2.0),
        ("1e-3", 1e-3), ("12", 12.0),
    ):  # fmt: skip
        assert csv_file.number(text) == value
    with pytest.raises(ValueError, match="could not convert"):
        csv_file.number("a")


def test_cells_that_a_spreadsheet_would_compute_are_text_and_come_back():
    for text in ("=1+1", "+x", "-x", "@sum", "\tx", "'=1"):
        assert escaping.csv_cell(text).startswith("'")
        assert escaping.csv_text(escaping.csv_cell(text)) == text
    for text in ("-1.5", "+2e-3", "nan", "-inf", "plain", "it's", ""):
        assert escaping.csv_cell(text) == text == escaping.csv_text(text)


def test_names_act_in_no_format(tmp_path):
    (line,) = [line for line in latex([NASTY], [["1"]], "c").splitlines() if line.startswith("a")]
    assert line == (
        r"a\_b \& 50\% \$x\$ \#1 \{c\} \textasciitilde{}\textasciicircum{}"
        r" \textless{}i\textgreater{}"
        r" [z] *s* `t` \textbar{} \textbackslash{}n \\"
    )
    row = markdown(["h"], [[NASTY]]).splitlines()[2]
    assert row == (r"| a\_b \& 50% \$x\$ \#1 {c} \~^ \<i\> [z] \*s\* \`t\` \| \\n |")
    page = Page(NASTY, tmp_path)
    page.heading(NASTY, 2)
    page.items([NASTY])
    page.pairs({"name": NASTY})
    page.text("two\nlines")
    page.table(["h"], [[NASTY]])
    page.markdown_tables(f"t\n\n{markdown(['h'], [[NASTY]])}")
    page.svg("<svg/>", "x y")
    page.svg("<svg/>", "x_y")
    page.write()
    text, shown = ((tmp_path / f"report.{e}").read_text("utf-8") for e in ("md", "html"))
    assert "<i>" not in text.replace("\\<i\\>", "") and "two lines" in text
    assert "<i>" not in shown and shown.count("&lt;i&gt;") == 7 and "\\_" not in shown
    assert len(list((tmp_path / "pictures").iterdir())) == 2


def test_remarks_of_libraries_are_silent_unless_asked_for(monkeypatch, caplog):
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    monkeypatch.setattr(logger, "filters", [])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        monkeypatch.delenv(SHOW_ALL, raising=False)
        hush()
        logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: no")
        logger.warning("something else")
        warnings.warn("Found 403 module(s) in eval mode at the start of training.", stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert [record.message for record in caplog.records] == ["something else"]
    assert [str(warning.message) for warning in seen] == ["another"]
    monkeypatch.setattr(logger, "filters", [])
    with warnings.catch_warnings(record=True) as seen:
        monkeypatch.setenv(SHOW_ALL, "1")
        hush()
        logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: no")
        warnings.warn("Found 403 module(s) in eval mode at the start of training.", stacklevel=1)
    assert len(caplog.records) == 2 and len(seen) == 1


def test_a_name_with_line_breaks_and_escape_sequences_stays_in_its_line():
    name = "a\nb\tc\x1b[31md\u2028e\u202ef\udce9\x85.png"
    assert printable(name) == r"a\nb\tc\x1b[31md\u2028e\u202ef\udce9\x85.png"
    assert printable("夜景 Größe_1 ±") == "夜景 Größe_1 ±"


def test_importing_the_package_silences_what_imports_remark(monkeypatch, caplog):
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    before = list(warnings.filters)
    for shown, count in (("0", 0), ("1", 1)):
        caplog.clear()
        monkeypatch.setattr(logger, "filters", [])
        monkeypatch.setenv(SHOW_ALL, shown)
        hush_imports()
        logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: no")
        assert len(caplog.records) == count
    assert warnings.filters == before  # they are the importing program's own
    assert "\nhush_imports()\n" in (ROOT / "lit_mimdit" / "__init__.py").read_text()


def test_a_remark_that_lightning_makes_in_its_own_module_is_silent(monkeypatch, caplog):
    from lightning.pytorch.trainer.connectors import checkpoint_connector

    monkeypatch.setattr(checkpoint_connector.log, "filters", [])
    monkeypatch.delenv(SHOW_ALL, raising=False)
    with warnings.catch_warnings():
        hush()
    checkpoint_connector.log.warning("`weights_only` was not set, defaulting to `False`.")
    assert not caplog.records


def test_lightning_does_not_ask_for_srun(monkeypatch, tmp_path):
    from lightning.fabric.plugins.environments import SLURMEnvironment

    srun = tmp_path / "srun"
    srun.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("SLURM_NTASKS", SHOW_ALL):
        monkeypatch.delenv(name, raising=False)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert not SLURMEnvironment.detect()
        assert len(seen) == 1  # Lightning still says it
        hush()
        assert not SLURMEnvironment.detect()
    assert len(seen) == 1


def test_what_the_hub_is_asked_again_is_not_told(monkeypatch, caplog):
    """A real connection that is refused, by the hub's own client."""
    from huggingface_hub.utils import http_backoff

    logger = logging.getLogger("huggingface_hub.utils._http")
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.delenv(SHOW_ALL, raising=False)
    for count in (3, 0):
        caplog.clear()
        with pytest.raises(Exception, match="refused"):
            http_backoff("HEAD", "http://127.0.0.1:9", max_retries=1)
        assert len(caplog.records) == count
        with warnings.catch_warnings():
            hush()
    logger.warning("Rate limited. Waiting 300.0s before retry [Retry 1/5].")
    assert len(caplog.records) == 1


def test_published_weights_of_torch_jit_are_read_in_silence(monkeypatch, tmp_path):
    monkeypatch.delenv(SHOW_ALL, raising=False)
    path = tmp_path / "one.pt"
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        hush()
        torch.jit.save(torch.jit.trace(torch.nn.Identity(), torch.ones(1)), path)
        torch.jit.load(path)
    assert not [str(one.message) for one in seen]


def test_a_server_of_processes_hushes_before_it_loads_the_libraries(monkeypatch):
    monkeypatch.delitem(sys.modules, "lit_mimdit.hushed", raising=False)
    monkeypatch.delenv(SHOW_ALL, raising=False)
    logger = logging.getLogger(REMARKS[0].source)
    monkeypatch.setattr(logger, "filters", [])
    with warnings.catch_warnings():
        import_module("lit_mimdit.hushed")
    assert logger.filters
    preloaded = []
    context = multiprocessing.get_context("forkserver")
    monkeypatch.setattr(
        type(context), "set_forkserver_preload", lambda _, names: preloaded.extend(names)
    )
    run_all([], None, jobs=1, threads=1)
    assert preloaded[0] == "lit_mimdit.hushed"


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["metrics"],
        ["restore", "--help"],
        ["fit", "--help"],  # longer than stdout's buffer
        ["--print_completion", "bash"],
    ],
)
def test_a_command_whose_reader_has_gone_ends_in_silence(monkeypatch, capfd, args):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        try:
            assert cli.main(args) == cli.UNREAD
        except SystemExit:  # a newer argparse ignores a lost reader
            assert "--help" in args
        stdout.write("more")  # to the null device: closing it raises nothing
    assert capfd.readouterr().err == ""


def png(path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def test_names_that_differ_by_a_suffix_are_paired_and_hinted_at(tmp_path):
    for name in ("a/0001", "a/0002"):
        png(tmp_path / f"gt/{name}.png")
        png(tmp_path / f"out/{name}_out.png")
        png(tmp_path / f"plain/{name}.png")
        png(tmp_path / f"named/{name}_GT.png")
    out, gt = tmp_path / "out", tmp_path / "gt"
    with pytest.raises(ValueError, match="differ by '_out' only: give --suffix=_out"):
        require_whole(pair(out, gt, None), False)
    found = pair(out, gt, None, None, {"restored": "_out"})
    assert [item.id for item in found.items] == ["a/0001", "a/0002"] and not found.problems
    with pytest.raises(ValueError, match="--reference_suffix=_gt"):
        require_whole(pair(tmp_path / "plain", tmp_path / "named", None), False)
    found = pair(tmp_path / "plain", tmp_path / "named", None, None, {"reference": "_GT"})
    assert len(found.items) == 2
    png(gt / "a/other.png")
    assert pair(tmp_path / "plain", gt, None).hint == ""


def test_labels_have_letters_or_codes_and_never_boxes():
    text, font = drawable("LQ  01Blur/0001", 13)
    assert text == "LQ  01Blur/0001"
    text, font = drawable("Stra\u00dfe \u03b1\u0416", 13)
    assert covers(font, text)
    text, font = drawable("\u65e5\u672c 1", 13)
    assert covers(font, text) and text in ("\u65e5\u672c 1", "\\u65e5\\u672c 1")
    text, font = drawable("x\U0010fffdy", 13)  # of private use: no font has it
    assert text == "x\\U0010fffdy"


def test_data_check_writes_no_picture_unasked(tmp_path, monkeypatch):
    from lit_mimdit.data.check import check

    for side in ("GT", "LQ"):
        png(tmp_path / "set" / "01Blur" / side / "1.png")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    assert check(str(tmp_path / "set")) == 0
    assert list((tmp_path / "cwd").iterdir()) == []
