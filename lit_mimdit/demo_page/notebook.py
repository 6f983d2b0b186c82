"""A photograph restored inside a notebook: slider and router weights as plain HTML."""

import tempfile
import threading
from pathlib import Path
from typing import Any

import torch

from lit_mimdit.data.image_io import read_photo
from lit_mimdit.demo_page.looks import looks_of
from lit_mimdit.demo_page.microscope import microscope
from lit_mimdit.demo_page.watched import Watched
from lit_mimdit.demo_page.workbench import Result, Settings, Workbench, add_routing
from lit_mimdit.evaluation.slider import data_uri, slider
from lit_mimdit.inference.pipeline_images import Picture, photos, pictures


class Shown:
    """A restored photograph that a notebook shows with its slider and its router weights.

    Args:
        image: the restored photograph, a PIL image.
        html: what the notebook shows.
    """

    def __init__(self, image: Any, html: str) -> None:
        self.image, self.html = image, html

    def _repr_html_(self) -> str:
        return self.html


def show(
    photo: str | Path | Picture,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    *,
    looks: bool = True,
    **settings: Any,
) -> Shown:
    """Returns a restored photograph that a notebook shows inline; nothing is fetched from anywhere.

    Args:
        photo: path of a photograph, PIL image, array (H, W, 3) or tensor (3, H, W).
        checkpoint: exported file; None is the one that comes with the package.
        device: name of a device.
        looks: stand the mean weights of known degradations beside the photograph's.
        settings: see Settings in demo_page/workbench.py, such as seed=1 or inter={"spatial": 0}.

    Raises:
        ValueError: the photograph or a setting cannot be used.
    """
    try:
        chosen = Settings(**settings)
    except TypeError as error:
        names = ", ".join(Settings.__dataclass_fields__)
        raise ValueError(f"{', '.join(settings)}: choose among the settings {names}") from error
    is_path = isinstance(photo, (str, Path))
    name = Path(photo).name if is_path else "photograph"
    lq = read_photo(photo).rgb if is_path else photos(photo)[0]
    checkpoint = None if checkpoint is None else Path(checkpoint)
    bench = Workbench(Path(tempfile.gettempdir()), checkpoint, device=device)
    restorer = Watched(bench.restorer_for(chosen), lambda share, said: None, threading.Event())
    restored, (decisions,) = restorer(lq[None], torch.tensor([chosen.seed]))
    before, after = pictures([lq, restored[0]], "pil")
    parts = [
        slider(data_uri(before), data_uri(after), before.width, ("degraded", "restored"), name)
    ]
    if decisions:
        result = Result(name, Path(), Path(), tuple(lq.shape[-2:]))
        add_routing(result, decisions, restorer)
        beside = looks_of(bench.restorer, bench.checkpoint) if looks else None
        parts.append(
            microscope(result.inter, result.chosen, bench.groups, beside, result.boxes, result.size)
        )
    return Shown(after, "".join(parts))
