"""Pixels as tensors, writing that leaves a whole file or none, and listing folders."""

import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from lit_mimdit.data.image_io import (
    ImageError,
    image_info,
    list_images,
    output_format,
    read_photo,
    read_rgb,
    to_tensor,
    write_photo,
)
from lit_mimdit.files import FileError, write_bytes


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def smooth(height, width):
    """A picture that JPEG keeps well: (H, W, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 255 - 255 * x / width], axis=2).astype(
        np.uint8
    )


def test_to_tensor_covers_the_range():
    for dtype in (np.uint8, np.uint16):
        top = np.iinfo(dtype).max
        array = np.arange(top + 1, dtype=dtype)[None, :, None].repeat(3, axis=2)
        tensor = to_tensor(array)
        assert (
            tensor.dtype == torch.float32
            and tensor.shape == (3, 1, top + 1)
            and tensor.is_contiguous()
        )
        assert tensor.min() == 0 and tensor.max() == 1
        assert torch.equal((tensor[0, 0] * top).round().long(), torch.arange(top + 1))
    for wrong in (np.zeros((2, 2, 3)), np.zeros((2, 2), np.uint8)):
        with pytest.raises(ValueError, match="expected pixels"):
            to_tensor(wrong)


# --- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extension,bits,gray",
    [
        (name, bits, gray)
        for name in (".png", ".tif", ".TIFF")
        for bits in (8, 16)
        for gray in (False, True)
    ]
    + [(".webp", 8, False)],
)
@pytest.mark.parametrize("with_alpha", [False, True])
def test_lossless_round_trip(tmp_path, extension, bits, gray, with_alpha):
    pixels = noise(21, 34, 4, dtype=np.uint8 if bits == 8 else np.uint16)
    if gray:
        pixels[..., 1:3] = pixels[..., :1]
    pixels[:5, :, 3] = 0
    path = tmp_path / f"a{extension}"
    write_photo(
        path,
        to_tensor(pixels[..., :3]),
        to_tensor(pixels[..., 3:]) if with_alpha else None,
        gray,
        bits,
    )
    photo = read_photo(path)
    np.testing.assert_array_equal(read_rgb(path), pixels[..., :3])
    assert (photo.gray, photo.bits, photo.alpha is not None) == (gray, bits, with_alpha)
    if with_alpha:
        assert torch.equal(photo.alpha, to_tensor(pixels[..., 3:]))
    assert image_info(path).format == output_format(path).upper()


def test_every_16_bit_level_survives(tmp_path):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1).repeat(3, axis=2)
    for name in ("a.png", "a.tif"):
        write_photo(tmp_path / name, to_tensor(levels), bits=16)
        np.testing.assert_array_equal(read_rgb(tmp_path / name), levels)


def test_16_bit_png_is_read_by_others(tmp_path):
    """PIL keeps the high bytes of 16-bit RGB.

    Enough to see that an independent reader takes the file.
    """
    pixels = noise(21, 34, 3, dtype=np.uint16)
    write_photo(tmp_path / "a.png", to_tensor(pixels), bits=16)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), pixels >> 8)


def test_values_are_clipped_and_rounded(tmp_path):
    rgb = torch.tensor([-0.5, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 7.0]).expand(3, 1, 6)
    write_photo(tmp_path / "a.png", rgb)
    assert read_rgb(tmp_path / "a.png")[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]


def test_jpeg_has_quality_95_and_no_subsampling(tmp_path):
    write_photo(tmp_path / "a.jpg", to_tensor(smooth(64, 64)))
    Image.fromarray(smooth(64, 64)).save(tmp_path / "pil.jpg", quality=95, subsampling="4:4:4")
    with Image.open(tmp_path / "a.jpg") as image, Image.open(tmp_path / "pil.jpg") as reference:
        assert image.quantization == reference.quantization
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3


def test_what_jpeg_cannot_hold_is_left_out_with_a_warning(tmp_path):
    rgb = to_tensor(smooth(16, 16))
    with pytest.warns(UserWarning, match="no alpha"):
        write_photo(tmp_path / "a.jpg", rgb, rgb[:1])
    with pytest.warns(UserWarning, match="8 bits"):
        write_photo(tmp_path / "a.jpg", rgb, bits=16)
    assert read_photo(tmp_path / "a.jpg").alpha is None


def test_impossible_requests(tmp_path):
    rgb = torch.zeros(3, 4, 4)
    for name in ("a.gif", "a", "a.xyz"):
        with pytest.raises(ValueError, match=r"choose one of \.png, \.jpg"):
            write_photo(tmp_path / name, rgb)
    for arguments, message in [
        ((rgb[:1],), r"expected rgb \(3, H, W\)"),
        ((rgb, torch.zeros(1, 4, 5)), "alpha"),
        ((rgb, None, False, 12), "bits must be 8 or 16"),
        ((rgb.log() - rgb.log(),), "not finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            write_photo(tmp_path / "a.png", *arguments)
    with pytest.raises(ImageError, match=r"cannot be encoded as WebP.*write \.png"):
        write_photo(tmp_path / "a.webp", torch.zeros(3, 2, 17000))
    with pytest.raises(FileError, match="there is no folder"):
        write_photo(tmp_path / "no" / "a.png", rgb)
    assert list(tmp_path.iterdir()) == []


def test_failing_disk_leaves_the_old_file_and_nothing_else(processes, tmp_path):
    """A process that may write 20,000 bytes a file, as on a full disk.

    The write fails in the middle, for real.
    """
    target = tmp_path / "photo.png"
    target.write_bytes(b"old")
    script = f"""
import resource, signal, torch
from lit_mimdit.data.image_io import write_photo
from lit_mimdit.files import FileError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_photo({str(target)!r}, torch.rand(3, 200, 300))
except FileError as error:
    print(error)
"""
    done = processes.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{target}: cannot be written: File too large"
    assert [path.name for path in tmp_path.iterdir()] == [
        "photo.png"
    ] and target.read_bytes() == b"old"


def test_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a.png", b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_written_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "plain").touch()
    write_photo(tmp_path / "a.png", torch.zeros(3, 4, 4))
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


# --- folders --------------------------------------------------------------------------------------


def test_list_images_in_natural_order(tmp_path):
    names = ["b/frame10.PNG", "b/frame2.png", "A/x.JPG", "a2.webp", "a10.tiff", "B1.jpeg"]
    hidden = [".hidden.png", "b/._frame2.png", ".cache/x.png", "notes.txt", "b/png", "٣.txt"]
    for name in names + hidden:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["A/x.JPG", "a2.webp", "a10.tiff", "b/frame2.png", "b/frame10.PNG", "B1.jpeg"]


def test_list_images_follows_links_once(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "set").mkdir()
    (tmp_path / "disk" / "a.png").touch()
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "loop").symlink_to(tmp_path / "disk")
    assert list_images(tmp_path / "set") == [tmp_path / "set" / "linked" / "a.png"]


def test_list_images_needs_a_folder(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        list_images(tmp_path / "no")
