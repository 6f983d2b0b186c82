"""Images extended to the sizes that networks take."""

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(image: Tensor, multiple: int, least: int = 1) -> Tensor:
    """Returns images (B, 3, H, W) extended at the bottom and right to multiples of `multiple`.

    The border is mirrored where the image is large enough; else its edge is repeated. No side is
    shorter than `least` pixels, a multiple, afterwards.
    """
    height, width = image.shape[-2:]
    bottom, right = (max(-side % multiple, least - side) for side in (height, width))
    if not bottom and not right:
        return image
    mirror = bottom < height and right < width
    return F.pad(image, (0, right, 0, bottom), mode="reflect" if mirror else "replicate")
