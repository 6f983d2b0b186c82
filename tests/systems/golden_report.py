"""The report of a comparison with a golden file."""

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from golden_file import Absent, Golden
from torch import Tensor

F64 = 1e-9  # outputs in float64, and losses relative to their size
GRADIENTS = 1e-7  # norms of gradients, relative to their size
F32 = 5  # times a float32 error
MOST = 10  # a measured float32 error widens a tolerance at most by this
TABLE = 1e-6  # of a table's largest value: float32 keeps 1e-7
STATE = re.compile(r"state(_\w+)?\.")


@dataclass
class Report:
    """What was compared, and what is left.

    tensors: of the file, by name. facts, texts: results in its JSON by path, numbers and lists.
    quiet: prints failures only.
    rounding: what our code gives in float32, by name; empty where the file holds float64.
    left: what is neither compared nor excused. state: tensors of state dicts of which nothing was
        said. inputs, unloaded, failures, skipped: what was given, what was not loaded and why, what
        is wrong, and what is left out and why.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, float | None] = field(default_factory=dict)
    texts: dict[str, Any] = field(default_factory=dict)
    quiet: bool = False
    rounding: dict[str, Tensor] = field(default_factory=dict)
    left: dict[str, None] = field(default_factory=dict)
    state: dict[str, None] = field(default_factory=dict)
    inputs: dict[str, None] = field(default_factory=dict)
    unloaded: dict[str, str] = field(default_factory=dict)
    compared: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state = dict.fromkeys(name for name in self.tensors if STATE.match(name))
        names = [name for name in self.tensors if name not in self.state]
        self.left = dict.fromkeys([*names, *self.facts, *self.texts])

    # -- results

    def tensor(self, name: str, ours: Tensor, tolerance: float) -> None:
        """Compares a tensor with the stored one of that name, in float64.

        Where our own float32 run is known, the tolerance is at least F32 times its error, since the
        stored number rounds as much. MOST keeps a jump in float32 from excusing everything.
        """
        if not self._take(name, self.tensors):
            return
        stored = self.tensors[name]
        if ours.shape != stored.shape:
            self._line(name, False, f"shape {tuple(ours.shape)} instead of {tuple(stored.shape)}")
            return
        single = self.rounding.get(name)
        if single is not None and single.shape == ours.shape and stored.is_floating_point():
            error = F32 * largest(ours, single)
            tolerance = max(tolerance, min(error, MOST * tolerance))
        off = largest(ours, stored)
        self._line(name, off <= tolerance, _figures(off, tolerance))  # NaN is a failure

    def float32(self, name: str, ours: Tensor, error: float, output: Tensor | None = None) -> None:
        """Compares a tensor that is stored in float32: see `float32_tolerance`."""
        if self._take(name, self.tensors):
            self.tensor(name, ours, float32_tolerance(self.tensors[name], error, output))

    def near(self, name: str, ours: Tensor, relative: float) -> None:
        """Compares relative to the stored tensor's largest value."""
        if self._take(name, self.tensors):
            self.tensor(name, ours, relative * float(self.tensors[name].double().abs().max()))

    def table(self, name: str, ours: Tensor) -> None:
        """Compares a table relative to its largest value; rounding widens nothing."""
        self.rounding.pop(name, None)
        self.near(name, ours, TABLE)

    def taps(
        self, prefix: str, seen: Mapping[str, Tensor], error: float, output: Tensor | None = None
    ) -> None:
        """Compares every stored tensor `prefix` + module with what that module returned."""
        for name in [name for name in self.tensors if name.startswith(prefix)]:
            module = name.removeprefix(prefix)
            if module in seen:
                self.float32(name, seen[module], error, output)
            else:
                self.fail(name, "no such module")

    def number(self, name: str, ours: float | None, relative: float) -> None:
        """Compares a number with the one at that path of the JSON, relative to its size."""
        if not self._take(name, self.facts):
            return
        stored = self.facts[name]
        if ours is None or stored is None:
            good = ours is None and stored is None
            self._line(name, good, "both absent" if good else f"{ours} instead of {stored}")
            return
        scale = abs(stored) or 1.0
        off = abs(float(ours) - stored) / scale
        self._line(name, off <= relative, "relative " + _figures(off, relative))

    def same(self, name: str, ours: Any) -> None:
        """Compares a list or text of the JSON as it is."""
        if self._take(name, self.texts):
            stored = self.texts[name]
            good = ours == stored
            self._line(name, good, "equal" if good else f"{_short(ours)}, not {_short(stored)}")

    def names(self, name: str, ours: Iterable[Any]) -> None:
        """Compares a list of names, or of groups of names, of the JSON in any order."""
        if not self._take(name, self.texts):
            return
        mine, theirs = _unordered(ours), _unordered(self.texts[name])
        parts = [
            f"{word} {_short(sorted(some))}"
            for word, some in (("lacks", mine - theirs), ("has besides", theirs - mine))
            if some
        ]
        self._line(name, not parts, "; ".join(parts) or f"the same {len(mine)}")

    def value(self, name: str, ours: Tensor, theirs: Tensor, tolerance: float) -> None:
        """Compares two tensors of which none is in the file."""
        self.tensors[name] = theirs
        self.tensor(name, ours, tolerance)

    # -- what is no result

    def given(self, *names: str) -> None:
        """Marks inputs of the computation, which are listed at the end."""
        for name in names:
            if self._take(name, self.tensors):
                self.inputs[name] = None

    def loaded(self, names: Iterable[str], why: str, prefix: str = "state.") -> None:
        """Marks a state dict as used; its tensors that are not among `names` are listed.

        names: official ones that our network took. why: what the others are.
        """
        took = {prefix + name for name in names}
        for name in [name for name in self.state if name.startswith(prefix)]:
            del self.state[name]
            if name not in took:
                self.unloaded[name] = why

    def skip(self, name: str, reason: str) -> None:
        """Marks what is not compared; the reason is printed."""
        assert reason
        self.left.pop(name, None)
        self.skipped[name] = reason

    def fail(self, name: str, text: str) -> None:
        """Notes what is wrong with a name, once."""
        self.left.pop(name, None)
        if name not in self.failures:
            self._line(name, False, text)

    @contextmanager
    def part(self) -> Iterator[None]:
        """A part of a comparison: what is absent from the file ends this part, not the others."""
        try:
            yield
        except Absent as absent:
            self.fail(absent.name, "not in the file")

    def _take(self, name: str, known: Mapping[str, Any]) -> bool:
        """Whether the file has this name, which is then no longer left."""
        if name not in known:
            self.fail(name, "not in the file")
            return False
        self.left.pop(name, None)
        return True

    def _line(self, name: str, good: bool, text: str) -> None:
        self.compared += 1
        if not good:
            self.failures[name] = text
        if not (good and self.quiet):
            print(f"{'ok   ' if good else 'WRONG'} {name}: {text}")

    def finish(self) -> bool:
        """Prints what was not compared and the sum. Returns whether all is well."""
        if not self.quiet:
            _listed("input", self.inputs)
            for why in dict.fromkeys(self.unloaded.values()):
                names = [name for name, reason in self.unloaded.items() if reason == why]
                print(f"{len(names)} of the state are not loaded, {why}")
                _listed("not loaded", names)
        for name, reason in self.skipped.items():
            print(f"not compared: {name}: {reason}")
        for name in self.left:
            print(f"WRONG {name}: neither compared nor excused")
        for name in self.state:
            print(f"WRONG {name}: neither loaded nor excused")
        wrong = len(self.failures) + len(self.left) + len(self.state)
        print(
            f"{self.compared} compared, {len(self.inputs)} inputs, {len(self.unloaded)} not loaded,"
            f" {len(self.skipped)} left out with a reason, {wrong} wrong"
        )
        return wrong == 0


class Draft(Report):
    """Keeps what a comparison computes and compares nothing."""

    def __init__(self, report: Report) -> None:
        super().__init__(dict(report.tensors), dict(report.facts), dict(report.texts))
        self.seen: dict[str, Tensor] = {}

    def tensor(self, name: str, ours: Tensor, tolerance: float) -> None:
        self.left.pop(name, None)
        self.seen[name] = ours.detach()

    def _line(self, name: str, good: bool, text: str) -> None:
        pass


def twice(golden: Golden, report: Report, run: Callable[[Golden, Report], None]) -> None:
    """Compares a file of float32 numbers: in float32 first, to know how much that rounds.

    run: recomputes the file in the precision of the golden that it is given.
    """
    draft = Draft(report)
    with draft.part():
        run(replace(golden, dtype=torch.float32), draft)
    report.rounding = draft.seen
    run(golden, report)


def largest(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two tensors, in float64."""
    difference = (ours.detach().double() - theirs.double()).abs()
    return float(difference.max()) if difference.numel() else 0.0


def float32_tolerance(stored: Tensor, error: float, output: Tensor | None = None) -> float:
    """The tolerance of a tensor that is stored in float32.

    F32 times the stated error of the output; more where the tensor has larger values than the
    output, and never less than 16 units in the last place of its largest value.
    """
    size = float(stored.abs().max()) if stored.numel() else 0.0
    scale = max(1.0, size / float(output.abs().max())) if output is not None else 1.0
    return max(F32 * error * scale, 16 * size * 2.0**-23)


def _figures(off: float, tolerance: float) -> str:
    return f"difference {off:.2e}, tolerance {tolerance:.1e}"


def _short(value: Any) -> str:
    return textwrap.shorten(str(value), 200)


def _unordered(names: Iterable[Any]) -> set[Any]:
    return {name if isinstance(name, str) else tuple(sorted(name)) for name in names}


def _listed(what: str, names: Iterable[str]) -> None:
    """Prints names in lines that each say what they are."""
    for line in textwrap.wrap(
        ", ".join(names), 98 - len(what), break_long_words=False, break_on_hyphens=False
    ):
        print(f"{what}: {line}")
