"""Images extended to the sizes that networks take."""

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Images (B, 3, H, W) extended at the bottom and right to multiples of `multiple`.

    The border is mirrored where the image is large enough; else its edge is repeated.
    """
    height, width = image.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not bottom and not right:
        return image
    mirror = bottom < height and right < width
    return F.pad(image, (0, right, 0, bottom), mode="reflect" if mirror else "replicate")
