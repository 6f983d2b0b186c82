"""Fidelity: a small network that lets the pixels of the degraded image correct the decoded one.

A latent holds less than an image. No velocity brings back what the VAE cannot carry. Where the
input was nearly clean, the decoded image is the worse of the two. CodeFormer (arXiv 2206.11253) and
StableSR (arXiv 2305.07015) therefore let features of the degraded image into the decoder, with a
weight w. Here the same is done behind the decoder, so that the VAE stays as it is:

    d = x_lq - x_hat = l + h                           light and colours l, means of 8 x 8 pixels;
    detail h, the rest
    a, b, r = F([x_hat ; x_lq ; grain(x_lq)])          shares a, b in (0, 1) for each pixel, and a
    residual r x = x_hat + w (a l + b h + g x_lq + r), with gains g where the network has them

Clean input is kept by a = b = 1. Noise is no reason to doubt the light (a = 1, b = 0), and darkness
none to doubt detail. Which of these an image needs is a matter of the whole scene, so F sees its
statistics on the coarsest level. A dark scene and a scene in the dark differ in their grain, which
too short an exposure has and blur has not. The grain is a hundredth of the range, so F sees it
enlarged. The paper has no such part: w = 0.

A cleaner may come first. It takes rain, noise and JPEG from the degraded image, so that the other
network needs to know nothing of them. It is such a network that sees the degraded image twice:

    x_lq <- x_lq + g x_lq + r,  with r, g = F'([x_lq ; x_lq ; grain(x_lq)])

Rain and noise are local, haze and darkness a matter of the scene. One small network that learned
them together learned rain a hundred times slower than one that learned rain alone
(experiments/LOG.md).

A deblurrer may follow, once more such a network. It was taught what blur does and hardly anything
else, since a blurred image and a noisy one ask for the opposite of each other. Its x' counts where
it changes a scene by much, and sharpens it. A little it sharpens whatever a lens has left soft, and
a camera's noise it smooths:

    x_lq <- x_lq + t u (x' - x_lq),  t = clamp((s - BLURRED_0) / (BLURRED_1 - BLURRED_0), 0, 1),
    s = mean |x' - x_lq| / d(x_lq),  d(x) = mean |dx x| + mean |dy x|,  u as t, with SHARPER and
    d(x') / d(x_lq)

The light of a scene (models/scene_light.py) may come after them. It lights what is dark and sees
through haze, and F sees the degraded image so:

    x_lq <- x_lq + t (x' - x_lq)
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_mimdit.models.scene_light import SceneLight, trust
from lit_mimdit.models.unet import SceneUNet

Sizes = tuple[tuple[int, ...], int, bool]  # widths, blocks, gain

CELL = 8  # pixels a side whose mean is light and colour, and no detail
BLURRED = 0.33, 0.38  # changes, of a scene's differences: the deblurrer counts nothing, all
SHARPER = 1.0, 1.02  # a scene's differences, of those before: it counts nothing, all
GRAIN = 50.0  # 1 / 50 of the range, 5 steps of 8 bits, becomes tanh(1)


def light(image: Tensor) -> Tensor:
    """Returns means of CELL x CELL pixels of (B, C, H, W), bilinear between the cells' centres.

    H and W are multiples of CELL.
    """
    return F.interpolate(
        F.avg_pool2d(image, CELL), scale_factor=CELL, mode="bilinear", align_corners=False
    )


# g = tanh(GRAIN (x - mean of the 3 x 3 pixels around x))
def grain(image: Tensor) -> Tensor:
    """Finest detail of (B, C, H, W), enlarged, in (-1, 1); the border's pixels are repeated."""
    return torch.tanh(
        GRAIN * (image - F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, stride=1))
    )


def _differences(images: Tensor) -> Tensor:
    along, across = (images.diff(dim=axis).abs().mean((1, 2, 3)) for axis in (-1, -2))
    return along + across + 1e-6


def deblurred(sharp: Tensor, blurred: Tensor) -> Tensor:
    """Returns images x_lq + t u (x' - x_lq), (B, 3, H, W), of a deblurrer's x' and its x_lq."""
    before = _differences(blurred)
    changed = trust((sharp - blurred).abs().mean((1, 2, 3)) / before, BLURRED)
    counts = changed * trust(_differences(sharp) / before, SHARPER)
    return blurred.lerp(sharp, counts.to(blurred))


class Fidelity(nn.Module):
    """x_hat + w (a l + b h + g x_lq + r) for images in [0, 1]; at first a = b = 1/2, g = r = 0.

    Haze and darkness multiply: J = K I + B undoes both without redrawing any detail (AOD-Net, Li et
    al., ICCV 2017, estimates that K).

    Args:
        widths: see SceneUNet.
        blocks: see SceneUNet.
        gain: whether the network has gains g, one a channel and pixel; else g is 0.
        cleaner: (widths, blocks, gain) of a cleaner of the degraded image; None: there is none.
        light: (width, blocks) of a SceneLight behind cleaner and deblurrer; None: there is none.
        deblurrer: (widths, blocks, gain) of a deblurrer behind the cleaner; None: there is none.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (20, 36, 54),
        blocks: int = 2,
        gain: bool = False,
        cleaner: Sizes | None = None,
        light: tuple[int, int] | None = None,
        deblurrer: Sizes | None = None,
    ) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.blocks = blocks
        self.gain = gain
        self.correction = SceneUNet(3, 8 if gain else 5, self.widths, blocks, scene=True)
        self.cleaner = None if cleaner is None else Fidelity(*cleaner)
        self.deblurrer = None if deblurrer is None else Fidelity(*deblurrer)
        self.scene_light = None if light is None else SceneLight(*light)

    @property
    def sizes(self) -> Sizes:
        """Returns (widths, blocks, gain), without those of what comes first."""
        return self.widths, self.blocks, self.gain

    @property
    def first(self) -> list["Fidelity"]:
        """Returns the networks that see pixels before F does."""
        return [network for network in (self.cleaner, self.deblurrer) if network is not None]

    @property
    def multiple(self) -> int:
        """Returns what both sides of an image must be divisible by."""
        first = (network.multiple for network in self.first)
        return math.lcm(self.correction.multiple, CELL, *first)

    def looks_in(self, dtype: torch.dtype) -> None:
        """Has the networks that see pixels compute in `dtype`.

        The light stays as it is. It is small, and its probability is held against narrow bounds.
        """
        for network in (self.correction, *self.first):
            network.to(dtype)

    def cleaned(self, lq: Tensor) -> Tensor:
        """Returns degraded images (B, 3, H, W) as F sees them: see `prepared`."""
        return self.prepared(lq, lambda network, images: network.correct(images, images))[0]

    def prepared(
        self, lq: Tensor, applied: Callable[["Fidelity", Tensor], Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Returns degraded images that cleaner, deblurrer and light have seen, as far as there are
        any, and the probability of `lit`.

        What one of the first two makes of images is `applied(network, images)`.
        """
        if self.cleaner is not None:
            lq = applied(self.cleaner, lq)
        if self.deblurrer is not None:
            lq = deblurred(applied(self.deblurrer, lq), lq)
        return self.lit(lq)

    def lit(self, cleaned: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns cleaned images (B, 3, H, W), lit as far as that probably makes them better, and
        the probability (B,), None without a light.
        """
        if self.scene_light is None:
            return cleaned, None
        images, better = self.scene_light.lit(cleaned)
        return cleaned.lerp(images, trust(better).to(cleaned)), better

    def _seen(self, restored: Tensor, lq: Tensor) -> Tensor:
        # around a mid-grey, so that a convolution's padding with 0 is no black frame
        seen = torch.cat([restored - 0.5, lq - 0.5, grain(lq)], dim=1)
        return seen.to(self.correction.enter.weight.dtype)

    def statistics(self, restored: Tensor, cleaned: Tensor) -> Tensor:
        """Returns what `correct` takes for tiles of a large scene, (B, 2 C): its mean over the
        tiles.
        """
        return self.correction.statistics(self._seen(restored, cleaned))

    def forward(self, restored: Tensor, lq: Tensor, weight: float = 1.0) -> Tensor:
        """Cleans the degraded images if there is a cleaner, and corrects the restored ones."""
        return self.correct(restored, self.cleaned(lq), weight)

    def correct(
        self, restored: Tensor, lq: Tensor, weight: float = 1.0, statistics: Tensor | None = None
    ) -> Tensor:
        """(B, 3, H, W), not clamped; `weight` from 0, the restored image as it is, to 1.

        The degraded images are cleaned already. `statistics` are those of the whole scene.

        A network in half precision looks in half precision. The images keep their own precision,
        since 8 bits of a bfloat16 would show as steps in a sky.
        """
        planes = self.correction(self._seen(restored, lq), statistics).to(restored.dtype)
        apart = lq - restored
        low = light(apart)
        shares, residual = planes[:, :2].sigmoid(), planes[:, 2:5]
        if self.gain:
            residual = residual + planes[:, 5:] * lq
        return restored + weight * (shares[:, :1] * low + shares[:, 1:] * (apart - low) + residual)
