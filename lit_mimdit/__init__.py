"""MiM-DiT, image restoration with a mixture of experts in a diffusion transformer."""

from importlib import import_module
from typing import Any

from lit_mimdit.deferred import defer
from lit_mimdit.quiet import hush_imports

__version__ = "0.1.0"

hush_imports()
defer("bitsandbytes")


def demo(photo: Any, checkpoint: Any = None, device: str = "auto", **settings: Any) -> Any:
    """Returns a restored photograph that a notebook shows with a slider and its router weights.

    See `show` in lit_mimdit/demo_page/notebook.py for the arguments.
    """
    # imported on use: everything imports this file, and it must stay light
    show = import_module("lit_mimdit.demo_page.notebook").show
    return show(photo, checkpoint, device, **settings)
