"""Does the page's work without a page: it restores, and keeps what shows why."""

import secrets
import shutil
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lit_mimdit.data.image_io import image_info, read_photo, write_photo
from lit_mimdit.demo_page.looks import Looks, looks_of
from lit_mimdit.demo_page.watched import Report, Watched
from lit_mimdit.files import write_bytes
from lit_mimdit.inference import tiling
from lit_mimdit.inference.corrector import Corrector, choose_fidelity
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.restore_files import restore_file
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.inference.system_file import PACKAGE, system_path
from lit_mimdit.models.decisions import Decisions
from lit_mimdit.models.network import MiMDiTNetwork
from lit_mimdit.models.prompts import PromptConfig, Prompts
from lit_mimdit.models.what_if import NO_ROUTERS, titles
from lit_mimdit.routing.records import choices_of

KEPT = 24  # results whose files stay; the oldest are removed


@dataclass(frozen=True)
class Settings:
    """The settings that a user may choose; None is what the system was exported with.

    Args:
        seed: of the noise.
        steps, tile, colour, guidance: see SamplingConfig.
        fidelity_weight: of the fidelity network's correction, from 0 to 1.
        prompt: what the backbone is told about the photograph.
        inter: weights of groups in the place of the Inter routers'.
        intra: sub-experts by group in the place of the Intra routers'.
    """

    seed: int = 0
    steps: int | None = None
    tile: int | None = None
    colour: str | None = None
    guidance: float | None = None
    fidelity_weight: float | None = None
    prompt: str | None = None
    inter: dict[str, float] | None = None
    intra: dict[str, list[int]] | None = None


@dataclass
class Result:
    """A restored photograph on disk.

    Args:
        name: of the photograph.
        before: the degraded photograph as a PNG that every browser shows, upright and in sRGB.
        after: the restored photograph as the restore command writes it.
        size: (height, width) in pixels.
        inter: Inter weights (tiles, L, G); None without routers.
        chosen: share of the tiles that each sub-expert worked on, (L, G, E); None without routers.
        boxes: where the tiles lie, in pixels: (top, left, height, width).
    """

    name: str
    before: Path
    after: Path
    size: tuple[int, int]
    inter: np.ndarray | None = None
    chosen: np.ndarray | None = None
    boxes: list[tiling.Box] | None = None


class Workbench:
    """A system with its photographs; several requests may use it, one after the other.

    Args:
        folder: where results lie, each in a folder of its own that nobody can guess.
        checkpoint: what `system_path` takes; None: the one that comes with the package.
        backbone: folder or hub id of the backbone, if it is not where it was in training.
        device: name of a device.
        fidelity: as of the restore command.
        max_megapixels: larger photographs are refused before they are decoded.

    Raises:
        ValueError: the file cannot be read or does not fit.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: Path | None = None,
        backbone: str | None = None,
        device: str = "auto",
        fidelity: str = "auto",
        max_megapixels: float = 50.0,
    ) -> None:
        if not max_megapixels > 0:
            raise ValueError(f"max_megapixels is {max_megapixels}: it must be more than 0")
        own_branch = checkpoint is None or str(checkpoint) == PACKAGE
        chosen = choose_fidelity(fidelity, own_branch=own_branch)
        self.checkpoint = system_path(checkpoint)
        self.restorer: Any = load_restorer(
            self.checkpoint, backbone, device, dtype="auto", fidelity=chosen
        )
        self.folder, self.max_megapixels = folder, max_megapixels
        self._results: list[Path] = []
        self._looks: Looks | None = None
        self._lock = threading.Lock()

    # -- what the system can do

    @property
    def has_routers(self) -> bool:
        return isinstance(getattr(self.restorer, "network", None), MiMDiTNetwork)

    @property
    def samples(self) -> bool:
        """Returns whether it has steps, tiles, colours and a fidelity weight to choose."""
        return type(self.restorer) is Restorer

    @property
    def groups(self) -> list[str]:
        """Names of the expert groups; none without routers."""
        return titles(self.restorer.network.branch.config.groups) if self.has_routers else []

    @property
    def experts(self) -> int:
        """Sub-experts of a group."""
        return self.restorer.network.branch.config.intra.experts if self.has_routers else 0

    @property
    def knows_text(self) -> bool:
        """Returns whether the backbone has text encoders, so that a prompt can be given."""
        if not self.samples or self.restorer.identity is None:
            return False
        name = self.restorer.identity.name
        return (Path(name) / "text_encoder").is_dir() or (
            name != "nano" and not Path(name).exists()
        )

    @property
    def looks(self) -> Looks:
        """Inter weights of known degradations; computed once."""
        with self._lock:
            if self._looks is None:
                self._looks = looks_of(self.restorer, self.checkpoint)
            return self._looks

    # -- restoring

    def restorer_for(self, settings: Settings) -> Any:
        """Returns what restores with these settings. ValueError for impossible ones."""
        own = self.restorer
        given = {
            name: getattr(settings, name)
            for name in ("steps", "tile", "colour", "guidance")
            if getattr(settings, name) is not None
        }
        others = settings.fidelity_weight is not None or bool(settings.prompt)
        if (given or others) and not self.samples:
            name = next(iter(given), "prompt" if settings.prompt else "fidelity_weight")
            raise ValueError(f"{name} is given, but this system has no {name}; leave it out")
        if given or others:
            if "tile" in given and own.config.overlap >= given["tile"]:
                given["overlap"] = given["tile"] // 4 // own.multiple * own.multiple
            config = replace(own.config, **given)
            parts = own.network, own.vae, own.scheduler, config, own.identity
            own = Restorer(*parts, self._prompts(settings.prompt), self._corrector(settings))
        if settings.inter or settings.intra:
            if not self.has_routers:
                raise ValueError(NO_ROUTERS)
            own = own.forced(settings.inter or None, settings.intra or None)
        return own

    def _prompts(self, text: str | None) -> Prompts | None:
        own = self.restorer
        if not text:
            return own.prompts
        if not self.knows_text:
            raise ValueError(
                f"prompt is {text!r}, but this backbone has no text encoders; leave it out"
            )
        name = own.identity.name
        network = own.network
        return Prompts(PromptConfig(text), name, name, network.backbone, network.prompt)

    def _corrector(self, settings: Settings) -> Corrector | None:
        own, weight = self.restorer.corrector, settings.fidelity_weight
        if weight is None:
            return own
        if own is None:
            raise ValueError(
                f"fidelity_weight is {weight}, but no fidelity network was loaded; start the page"
                " with --fidelity"
            )
        return Corrector(own.network, weight, own.about)

    def require_allowed(self, path: Path) -> None:
        """Reads the head of an image file. ImageError if it is none, ValueError if it is larger
        than allowed: nothing of it is decoded then.
        """
        info = image_info(path)
        megapixels = info.width * info.height / 1e6
        if megapixels > self.max_megapixels:
            raise ValueError(
                f"{path.name}: {info.width} x {info.height} are {megapixels:.1f} megapixels, and"
                f" this page takes {self.max_megapixels:g}; start it with --max_megapixels, or use"
                " the restore command"
            )

    def restore(
        self,
        path: Path,
        settings: Settings,
        report: Report,
        stop: threading.Event,
        restorer: Any = None,
    ) -> Result:
        """Restore one photograph.

        Args:
            path: the photograph.
            settings: what the user chose.
            report: called after each evaluation.
            stop: ends the computation when set.
            restorer: another system, restored by as it is; None: this one with the settings.

        Raises:
            ValueError: the photograph or the settings cannot be used.
            Cancelled: `stop` was set.
        """
        self.require_allowed(path)
        inner = self.restorer_for(settings) if restorer is None else restorer
        watched = Watched(inner, report, stop)
        place = self.new_folder()
        after = place / f"{path.stem}_restored.png"
        data, _ = restore_file(watched, path, after, settings.seed, path.stem)
        write_bytes(after, data)
        photo = read_photo(path)
        before = place / "before.png"
        write_photo(before, photo.rgb, photo.alpha, bits=8)
        height, width = photo.rgb.shape[-2:]
        result = Result(path.name, before, after, (height, width))
        (decisions,) = watched.decisions
        if decisions:
            add_routing(result, decisions, watched)
        return result

    # -- files

    def new_folder(self) -> Path:
        """Returns a new folder for a result, and removes the oldest beyond `KEPT`."""
        place = self.folder / secrets.token_hex(16)
        place.mkdir(parents=True)
        with self._lock:
            self._results.append(place)
            old, self._results = self._results[:-KEPT], self._results[-KEPT:]
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
        return place


def add_routing(result: Result, decisions: Decisions, restorer: Any) -> None:
    """Write into a result what the routers of a restorer decided about its tiles."""
    choices = choices_of(decisions)
    result.inter = choices.inter.cpu().numpy()
    result.chosen = choices.chosen.mean(0).cpu().numpy()
    boxes = restorer.layout.boxes(*restorer.layout.padded(*result.size))
    result.boxes = boxes if len(boxes) == len(result.inter) else None


def plain_error(error: BaseException, paths: list[Path]) -> str:
    """Returns one line about an error, with the names of uploaded files and not where they lie."""
    text = " ".join(str(error).split()) or type(error).__name__
    for path in sorted(paths, key=lambda path: -len(str(path))):
        text = text.replace(str(path), path.name)
    return text
