"""Recomputes a golden file of a compared system with our code and compares every number in it.

    python tests/systems/check_golden.py FILE.safetensors [--schedules schedules.json]

One line for each tensor or number: the largest difference and its tolerance. What is not compared
is named with a reason. Exit status 1 if anything is above its tolerance, or is neither compared nor
excused.

Protocol
    A golden file has tensors, and JSON under the metadata key `golden`, whose `system` says which
    file of tests/systems/golden/ knows it: the name in lower case without signs ("DA-CLIP" is
    daclip.py), or an entry of ALIASES. Without `system`, the beginning of the file's name decides.
    That file has

        def compare(golden: Golden, report: Report) -> None
        RESULTS: tuple[str, ...]   keys of the JSON that hold results (optional)

    `compare` accounts for every tensor but those of the state dict (names that begin with `state.`)
    and for every number below the keys in RESULTS, whose names are paths such as
    "losses/stage1/loss". For each it calls one of

        report.tensor(name, ours, tolerance)   largest |ours - stored| at most tolerance
        report.number(name, ours, relative)    |ours - stored| at most relative * |stored|
        report.given(name, ...)                an input of the computation, not a result
        report.skip(name, reason)              not compared, for a reason that is printed

    `report.value(name, ours, theirs, tolerance)` compares what stands elsewhere (schedules).
    What remains when `compare` returns counts as a failure.
"""

import argparse
import importlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
for folder in (str(ROOT), str(HERE)):  # the package of this checkout, and golden/
    if folder not in sys.path:
        sys.path.insert(0, folder)

import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402
from torch import Tensor, nn  # noqa: E402

SHARED = Path(os.environ.get("LIT_MIMDIT_SHARED", ROOT.parent / "shared")) / "systems"
ALIASES = {"dgunetplus": "dgunet"}
F64 = 1e-9  # outputs in float64, and losses relative to their size
GRADIENTS = 1e-7  # norms of gradients, relative to their size
F32 = 5  # times the stated float32 error


@dataclass
class Golden:
    """A golden file.

    tensors: all of them, by name. info: the JSON of its metadata. path: where it lies.
    schedules: the learning rates by epoch of every system, or None where they were not found.
    """

    tensors: dict[str, Tensor]
    info: dict[str, Any]
    path: Path
    schedules: dict[str, Any] | None = None

    def state(self, prefix: str = "state.", dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The official state dict; floating point tensors are cast to `dtype` if it is given."""
        return {
            name.removeprefix(prefix): value.to(dtype)
            if dtype and value.is_floating_point()
            else value
            for name, value in self.tensors.items()
            if name.startswith(prefix)
        }

    def double(self, name: str) -> Tensor:
        """A stored tensor in float64."""
        return self.tensors[name].double()

    @property
    def system(self) -> str:
        """The name of the file in tests/systems/golden/ that knows this golden."""
        name = self.info.get("system") or self.path.stem.split("_")[0]
        plain = re.sub("[^a-z0-9]", "", str(name).lower())
        return ALIASES.get(plain, plain)


def read(path: Path, schedules: Path | None = None) -> Golden:
    """Opens a golden file. schedules: schedules.json; None looks beside the file and in shared."""
    with safe_open(path, "pt") as file:
        info = json.loads((file.metadata() or {}).get("golden", "{}"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    places = (
        [schedules] if schedules else [path.parent / "schedules.json", SHARED / "schedules.json"]
    )
    found = next((place for place in places if place.is_file()), None)
    return Golden(tensors, info, path, json.loads(found.read_text()) if found else None)


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float | None]]:
    """Every number below a JSON value with its path; null counts as a number."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from numbers(inner, f"{path}/{key}" if path else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from numbers(inner, f"{path}/{index}")
    elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield path, value


@dataclass
class Report:
    """What was compared, and what is left.

    tensors: of the file, by name. facts: numbers of its JSON, by path. quiet: prints failures only.
    left: what is neither compared nor excused. failures, skipped: what is wrong or left out.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, float | None]
    quiet: bool = False
    left: dict[str, None] = field(default_factory=dict)
    compared: int = 0
    failures: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [name for name in self.tensors if not name.startswith("state.")]
        self.left = dict.fromkeys([*names, *self.facts])

    def tensor(self, name: str, ours: Tensor, tolerance: float) -> None:
        """Compares a tensor with the stored one of that name, in float64."""
        stored = self.tensors[name]
        self.left.pop(name, None)
        if ours.shape != stored.shape:
            self._line(name, False, f"shape {tuple(ours.shape)} instead of {tuple(stored.shape)}")
            return
        difference = (ours.detach().double() - stored.double()).abs()
        largest = float(difference.max()) if difference.numel() else 0.0
        self._line(name, largest <= tolerance, _figures(largest, tolerance))  # NaN is a failure

    def number(self, name: str, ours: float | None, relative: float) -> None:
        """Compares a number with the one at that path of the JSON, relative to its size."""
        stored = self.facts[name]
        self.left.pop(name, None)
        if ours is None or stored is None:
            good = ours is None and stored is None
            self._line(name, good, "both absent" if good else f"{ours} instead of {stored}")
            return
        scale = abs(stored) or 1.0
        off = abs(float(ours) - stored) / scale
        self._line(name, off <= relative, "relative " + _figures(off, relative))

    def value(self, name: str, ours: Tensor, theirs: Tensor, tolerance: float) -> None:
        """Compares two tensors of which none is in the file."""
        self.tensors[name] = theirs
        self.tensor(name, ours, tolerance)

    def given(self, *names: str) -> None:
        """Marks inputs of the computation."""
        for name in names:
            self.left.pop(name, None)

    def skip(self, name: str, reason: str) -> None:
        """Marks what is not compared; the reason is printed."""
        assert reason
        self.left.pop(name, None)
        self.skipped[name] = reason

    def _line(self, name: str, good: bool, text: str) -> None:
        self.compared += 1
        if not good:
            self.failures.append(f"{name}: {text}")
        if not (good and self.quiet):
            print(f"{'ok   ' if good else 'WRONG'} {name}  {text}")

    def finish(self) -> bool:
        """Prints what was not compared and the sum. Returns whether all is well."""
        for name, reason in self.skipped.items():
            print(f"not compared: {name}: {reason}")
        for name in self.left:
            print(f"WRONG {name}  neither compared nor excused")
        wrong = len(self.failures) + len(self.left)
        print(
            f"{self.compared} compared, {len(self.skipped)} left out with a reason, {wrong} wrong"
        )
        return wrong == 0


def _figures(largest: float, tolerance: float) -> str:
    return f"difference {largest:.2e}, tolerance {tolerance:.1e}"


def float32_tolerance(stored: Tensor, error: float, output: Tensor | None = None) -> float:
    """The tolerance of a tensor that is stored in float32.

    F32 times the stated error of the output; more where the tensor has larger values than the
    output, and never less than 16 units in the last place of its largest value.
    """
    size = float(stored.abs().max()) if stored.numel() else 0.0
    scale = max(1.0, size / float(output.abs().max())) if output is not None else 1.0
    return max(F32 * error * scale, 16 * size * 2.0**-23)


def gradient_norms(loss: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, float | None]:
    """The L2 norm of the gradient of each parameter; None where none reaches it."""
    gradients = torch.autograd.grad(
        loss, list(parameters.values()), allow_unused=True, retain_graph=True
    )
    return {
        name: None if gradient is None else float(gradient.norm())
        for name, gradient in zip(parameters, gradients)
    }


@contextmanager
def first_calls(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Records what each module returns at its first call; of several outputs, the last."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, output: Any) -> None:
        outputs = output if isinstance(output, tuple | list) else [output]
        held = [one for one in outputs if isinstance(one, Tensor)]
        if held:
            seen.setdefault(name, held[-1])

    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: keep(name, output))
        for name, module in modules.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def rates(
    golden: Golden,
    report: Report,
    name: str,
    rate: Callable[[int], float],
    tolerance: float = 1e-12,
) -> None:
    """Compares the learning rate of every epoch with schedules.json."""
    line = f"schedules.json/{name}"
    if golden.schedules is None:
        report.skip(line, "schedules.json lies neither beside the file nor in ../shared/systems")
        return
    theirs = torch.tensor(golden.schedules[name], dtype=torch.float64)
    ours = torch.tensor([rate(epoch) for epoch in range(len(theirs))], dtype=torch.float64)
    report.value(line, ours, theirs, tolerance)


def check(path: Path, quiet: bool = False, schedules: Path | None = None) -> bool:
    """Compares everything in a golden file. Returns whether all is well."""
    golden = read(path, schedules)
    if not (HERE / "golden" / f"{golden.system}.py").is_file():
        known = sorted(file.stem for file in (HERE / "golden").glob("*.py"))
        raise ValueError(f"{path}: no comparison for {golden.system!r}; there are {known}")
    comparison = importlib.import_module(f"golden.{golden.system}")
    facts = dict(
        number
        for key in getattr(comparison, "RESULTS", ())
        if key in golden.info
        for number in numbers(golden.info[key], key)
    )
    report = Report(dict(golden.tensors), facts, quiet)
    if not report.left:
        raise ValueError(f"{path}: holds nothing to compare; give a golden file")
    comparison.compare(golden, report)
    return report.finish()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, nargs="+")
    parser.add_argument("--schedules", type=Path, help="schedules.json, if it lies elsewhere")
    parser.add_argument("--quiet", action="store_true", help="print failures only")
    given = parser.parse_args()
    torch.set_num_threads(1)
    good = True
    for path in given.file:
        print(path)
        try:
            good &= check(path, given.quiet, given.schedules)
        except (ValueError, OSError) as error:
            print(f"WRONG {error}")
            good = False
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
