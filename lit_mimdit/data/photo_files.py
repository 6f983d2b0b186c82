"""Photographs to restore, without references."""

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import Dataset

from lit_mimdit.data.image_io import ImageError, Photo, find_images, read_photo
from lit_mimdit.data.listing import result_names
from lit_mimdit.data.order import Cluster


class PhotoFiles(Dataset):
    """Photographs to restore, without references.

    An item is (name of the result, Photo, seed of the noise); for a broken file its ImageError.
    """

    def __init__(self, files: dict[Path, Path], seed: int) -> None:
        self.files, self.seed = list(files.items()), seed

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Path, Photo | ImageError, int]:
        name, path = self.files[index]
        try:
            return name, read_photo(path), self.seed
        except ImageError as error:
            return name, error, self.seed


def photographs_at(place: str, cluster: Cluster) -> dict[Path, Path]:
    """Returns this process's share of the photographs of a file or folder, by the result's name.

    What is left out is named in a warning. ValueError without any image.
    """
    source = Path(place)
    photographs, folder = [source], source.parent
    if not source.is_file():
        listed = find_images(source)
        photographs, folder = listed.images, source
        for path, reason in listed.left_out:
            rank_zero_warn(f"data.predict: {path} is left out: {reason}")
    if not photographs:
        raise ValueError(
            f"data.predict: no images in {str(source)!r}; name a photograph or a folder of them"
        )
    names = result_names([path.relative_to(folder) for path in photographs])
    files = dict(zip(names, photographs, strict=True))
    return dict(list(files.items())[cluster.rank :: cluster.world_size])
