"""Files that cannot be read give one clear line, and leave nothing open."""

import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from lit_mimdit.data.image_io import (
    ImageError,
    image_size,
    list_images,
    read_photo,
    read_rgb,
    to_tensor,
    write_photo,
)


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def smooth(height, width):
    """A picture that JPEG keeps well: (H, W, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 255 - 255 * x / width], axis=2).astype(
        np.uint8
    )


def one_line(error):
    return "\n" not in str(error.value)


def jpeg(name: str, pixels: np.ndarray, **options) -> bytes:
    codecs = pytest.importorskip("imagecodecs")
    return getattr(codecs, f"{name}_encode")(pixels, **options)


def test_what_is_not_read_is_called_by_its_name(tmp_path):
    gray = noise(16, 16, dtype=np.uint16) >> 4
    files = {
        "a JPEG image of 12 bits": jpeg("jpeg8", gray, bitspersample=12),
        "a lossless JPEG image": jpeg("ljpeg", gray),
        "a JPEG-LS image": jpeg("jpegls", noise(16, 16)),
        "a JPEG XL image": jpeg("jpegxl", noise(16, 16, 3)),
        "a JPEG XR image": jpeg("jpegxr", noise(16, 16, 3)),
        "a Photoshop file": b"8BPS\0\1" + bytes(60),
        "a raw file of a camera": b"\0\0\0\x18ftypcrx " + bytes(60),
        "not an image but a film": b"\0\0\0\x18ftypisom" + bytes(60),
        "not an image but a web page": b"\n<!DOCTYPE html><p>not found",
        "not an image but a PDF document": b"%PDF-1.7" + bytes(60),
    }
    for name, content in files.items():
        path = tmp_path / "photo.jpg"
        path.write_bytes(content)
        for read in (read_rgb, read_photo, image_size):
            with pytest.raises(ImageError, match=f"photo.jpg: {name}") as error:
                read(path)
            assert one_line(error) and ("convert it" in str(error.value)) != name.startswith("not")
    damaged = {b"\0\0\0\x18ftypavif": "known format|corrupt", b"\xff\xd8\xff": "known format"}
    for head, message in damaged.items():
        path.write_bytes(head + bytes(60))
        with pytest.raises(ImageError, match=message):
            read_rgb(path)


def test_missing_empty_and_folder(tmp_path):
    (tmp_path / "empty.png").touch()
    for name, reason in [
        ("no.png", "no such file"),
        ("empty.png", "zero bytes"),
        ("", "Is a directory"),
    ]:
        for read in (read_rgb, read_photo, image_size):
            with pytest.raises(ImageError, match=reason) as error:
                read(tmp_path / name)
            assert one_line(error) and str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize(
    "extension,bits",
    [(".png", 8), (".png", 16), (".jpg", 8), (".tif", 8), (".tif", 16), (".webp", 8)],
)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_truncated(tmp_path, extension, part, bits):
    path = tmp_path / f"t{extension}"
    write_photo(path, to_tensor(noise(64, 96, 3)), bits=bits)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ImageError, match=r"truncated|corrupt") as error:
        read_rgb(path)
    assert one_line(error) and str(path) in str(error.value)


def test_a_tiff_with_missing_pixels_is_not_filled_with_black(tmp_path):
    path = tmp_path / "sparse.tif"
    tifffile.imwrite(path, noise(64, 96, 3, dtype=np.uint16), photometric="rgb", rowsperstrip=16)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tag = tiff.pages.first.tags["StripByteCounts"]
        tag.overwrite((*tag.value[:-1], 0))
    with pytest.raises(ImageError, match="truncated"):
        read_rgb(path)


def test_not_an_image(tmp_path):
    (tmp_path / "a.png").write_bytes(b"<html>404</html>" * 20)
    (tmp_path / "b.eps").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    for name in ("a.png", "b.eps"):
        with pytest.raises(ImageError, match="not an image") as error:
            read_rgb(tmp_path / name)
        assert one_line(error)


def test_decompression_bombs(tmp_path):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    Image.fromarray(noise(2, 2, 3)).save(tmp_path / "bomb.png")
    whole = (tmp_path / "bomb.png").read_bytes()
    chunk = b"IHDR" + header
    (tmp_path / "bomb.png").write_bytes(
        whole[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + whole[33:]
    )
    tifffile.imwrite(tmp_path / "bomb.tif", noise(4, 4, 3, dtype=np.uint16), photometric="rgb")
    with tifffile.TiffFile(tmp_path / "bomb.tif", mode="r+b") as tiff:
        tiff.pages.first.tags["ImageWidth"].overwrite(60000)
        tiff.pages.first.tags["ImageLength"].overwrite(60000)
    for name in ("bomb.png", "bomb.tif"):
        with pytest.raises(ImageError, match="decompression bomb") as error:
            read_rgb(tmp_path / name)
        assert one_line(error)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_mutated_files_give_pixels_or_an_image_error(tmp_path):
    rng = np.random.default_rng(0)
    for extension, bits in [
        (".png", 8),
        (".png", 16),
        (".jpg", 8),
        (".tif", 8),
        (".tif", 16),
        (".webp", 8),
    ]:
        path = tmp_path / f"m{extension}"
        write_photo(path, to_tensor(smooth(24, 32)), bits=bits)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(60):
            mutated = whole.copy()
            mutated[rng.integers(0, len(whole), 3)] = rng.integers(0, 256, 3)
            path.write_bytes(mutated.tobytes())
            for read in (read_rgb, image_size):
                try:
                    result = read(path)
                except ImageError as error:
                    assert "\n" not in str(error)
                else:
                    assert len(result) > 0


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files in /proc")
def test_no_file_stays_open(tmp_path):
    for extension in (".png", ".jpg", ".tif", ".webp"):
        write_photo(tmp_path / f"a{extension}", to_tensor(noise(20, 30, 3)), bits=8)
    write_photo(tmp_path / "b.tif", to_tensor(noise(20, 30, 3)), bits=16)
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    before, kept = len(os.listdir("/proc/self/fd")), []
    for path in list_images(tmp_path):
        for read in (read_rgb, image_size):
            try:
                read(path)
            except ImageError as error:
                kept.append(error)  # its traceback keeps the frames alive
    assert kept and len(os.listdir("/proc/self/fd")) == before
