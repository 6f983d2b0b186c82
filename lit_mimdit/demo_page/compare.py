"""Several systems on one photograph, with scores where a reference is there."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch

from lit_mimdit.data.image_io import read_photo
from lit_mimdit.demo_page.watched import Report
from lit_mimdit.demo_page.workbench import Result, Settings, Workbench
from lit_mimdit.evaluation.metrics import METRICS
from lit_mimdit.evaluation.scorer import Scorer
from lit_mimdit.inference.hub import title
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.system_file import system_path
from lit_mimdit.systems.classical import Classical, Method

SCORES = ("psnr", "ssim_y", "lpips")


@dataclass
class Compared:
    """A photograph as one system restored it.

    Args:
        system: its name.
        result: what it made.
        scores: by key of a metric, as text; a reason where there is no number.
    """

    system: str
    result: Result
    scores: dict[str, str] = field(default_factory=dict)


class Systems:
    """All restorers of this page; networks are loaded when first chosen.

    Args:
        bench: whose system is the first choice.
        files: exported files of other systems, or their names on the hub.
        device: of their networks.
    """

    def __init__(self, bench: Workbench, files: list[Path], device: str) -> None:
        self.bench, self.device = bench, device
        files = [system_path(path) for path in files]
        self.files = {title(path): path for path in files}
        if len(self.files) < len(files):
            raise ValueError("systems: two files have one name; rename one of them")
        for path in files:
            if not path.is_file():
                raise ValueError(f"systems: {path}: no such file")
        self._loaded: dict[str, Any] = {}
        self._scorer: Scorer | None = None

    @property
    def own(self) -> str:
        """Name of the page's own system."""
        return f"this page's system ({title(self.bench.checkpoint)})"

    @property
    def names(self) -> list[str]:
        """All names, the own system first."""
        return [self.own, *(f"classical: {name}" for name in get_args(Method)), *self.files]

    def restorer(self, name: str) -> Any:
        """Returns what restores under a name. ValueError for an unknown one."""
        if name not in self.names:
            raise ValueError(f"there is no system {name!r}: choose among {', '.join(self.names)}")
        if name == self.own:
            return self.bench.restorer
        if name not in self._loaded:
            self._loaded[name] = (
                load_restorer(self.files[name], device=self.device, dtype="auto")
                if name in self.files
                else Classical(name.removeprefix("classical: ")).restorer()
            )
        return self._loaded[name]

    def compare(
        self,
        path: Path,
        reference: Path | None,
        names: list[str],
        seed: int,
        report: Report,
        stop: threading.Event,
    ) -> list[Compared]:
        """Restore one photograph by several systems, and score them and the photograph itself.

        Returns:
            The degraded photograph first, then a row a system. ValueError for a reference of
            another size, no system, or a photograph that cannot be read.
        """
        if not names:
            raise ValueError("no system is chosen: choose at least one")
        clean = self._reference(path, reference)
        rows = []
        for number, name in enumerate(names):

            def part(share: float, said: str, number: int = number, name: str = name) -> None:
                report((number + share) / len(names), f"{name}: {said}")

            restorer = self.restorer(name)
            result = self.bench.restore(path, Settings(seed=seed), part, stop, restorer)
            rows.append(Compared(name, result))
        degraded = rows[0].result
        first = Compared("degraded", Result(path.name, degraded.before, degraded.before, (0, 0)))
        rows.insert(0, first)
        if clean is not None:
            for row in rows:
                row.scores = self._scores(read_photo(row.result.after).rgb, clean)
        return rows

    def _reference(self, path: Path, reference: Path | None) -> torch.Tensor | None:
        self.bench.require_allowed(path)
        if reference is None:
            return None
        self.bench.require_allowed(reference)
        clean, degraded = read_photo(reference).rgb, read_photo(path).rgb
        if clean.shape != degraded.shape:
            sizes = (f"{one.shape[-1]} x {one.shape[-2]}" for one in (clean, degraded))
            raise ValueError(
                f"{reference.name} is {{}} and {path.name} {{}} pixels: give a reference of"
                " the photograph's size".format(*sizes)
            )
        return clean

    def _scores(self, image: torch.Tensor, clean: torch.Tensor) -> dict[str, str]:
        if self._scorer is None:
            self._scorer = Scorer(SCORES, self.device if self.device != "auto" else "cpu")
        (computed,) = self._scorer.score(image[None], clean[None])
        reasons = self._scorer.missing | computed.errors
        return {
            key: (
                f"{computed.scores[key]:.{METRICS[key].decimals}f}"
                if key in computed.scores
                else reasons.get(key, "not computed")
            )
            for key in SCORES
        }
