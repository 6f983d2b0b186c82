"""LPIPS as a loss (arXiv 1801.03924): the network of the metric, with gradients."""

from typing import Any

import torch
from torch import nn

from lit_mimdit.evaluation.metrics import choose
from lit_mimdit.evaluation.perceptual import load
from lit_mimdit.evaluation.weights import find_all


def pretrained(key: str) -> nn.Module:
    """Returns LPIPS's network, frozen; it takes two batches (B, 3, H, W) in [0, 1].

    Nothing is downloaded. ValueError, which names the setting `key`, if its weights are missing.
    """
    metric = choose(["lpips"])[0]
    hits, missing = find_all(metric)
    if missing:
        raise ValueError(
            f"{key} needs weights that are missing ({', '.join(file.name for file in missing)}):"
            " see `python -m lit_mimdit metrics`, or set it to 0"
        )
    net: Any = load(metric, hits, torch.device("cpu")).net  # pyiqa's wrapper gives no gradients
    return net
