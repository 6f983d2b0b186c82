"""Features of VGG16, for losses that compare them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from lit_mimdit.evaluation.metrics import VGG16
from lit_mimdit.evaluation.weights import VARIABLE, find


class VGGFeatures(nn.Module):
    """The first layers of VGG16, which return what they have after some of them.

    indices: of torchvision's `features`; 3, 8 and 15 are relu1_2, relu2_2 and relu3_3.
    The weights are frozen and the network stays in evaluation mode. They are random until loaded.
    """

    def __init__(self, indices: Sequence[int] = (3, 8, 15)):
        super().__init__()
        self.indices = tuple(indices)
        self.layers = make_layers(cfgs["D"], batch_norm=False)[: self.indices[-1] + 1]
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the features at each index. x: (B, 3, H, W), not normalised here."""
        features = []
        for index, layer in enumerate(self.layers):
            # ReLU works in place; its input belongs to no one but the convolution before
            x = layer(x)
            if index in self.indices:
                features.append(x)
        return features

    def train(self, mode: bool = True) -> "VGGFeatures":
        return super().train(False)


def pretrained(folder: Path | None = None, indices: Sequence[int] = (3, 8, 15)) -> VGGFeatures:
    """Returns VGG16's layers with the ImageNet weights of torchvision.

    folder: looked in first; then the places of the weights of metrics. Nothing is downloaded.
    Raises ValueError if the file is on none of them or is not VGG16.
    """
    file = find(VGG16, folder)
    if file is None:
        raise ValueError(
            f"{VGG16.name} is missing, which the perceptual loss needs; fetch {VGG16.source} and"
            f" put it into ./weights or a folder that ${VARIABLE} names"
        )
    state = torch.load(file.path, map_location="cpu", weights_only=True)
    network = VGGFeatures(indices)
    names = {name: f"features.{name}" for name in network.layers.state_dict()}
    missing = [official for official in names.values() if official not in state]
    if missing:
        raise ValueError(
            f"{file.path}: not the weights of VGG16, as {missing[0]} is missing; fetch"
            f" {VGG16.source}"
        )
    network.layers.load_state_dict({name: state[official] for name, official in names.items()})
    return network
