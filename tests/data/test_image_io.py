"""Image files of every kind that users and data sets have, written here by independent writers (PIL, tifffile, raw bytes)."""

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageOps

from lit_mimdit.data.image_io import (
    ImageError,
    image_info,
    image_size,
    list_images,
    output_format,
    read_photo,
    read_rgb,
    to_tensor,
    write_bytes,
    write_photo,
)

FOUNDIR = Path(__file__).resolve().parents[3] / "shared" / "data" / "pairs" / "foundir"


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def smooth(height, width):
    """A picture that JPEG keeps well: (H, W, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 255 - 255 * x / width], axis=2).astype(np.uint8)


def png(pixels, before=(), after=()):
    """A PNG made by hand, 8 or 16 bits, with extra chunks before or after its pixels."""
    height, width, channels = pixels.shape
    bits = 8 * pixels.itemsize
    raw = pixels.astype(f">u{pixels.itemsize}").tobytes()
    stride = len(raw) // height
    rows = b"".join(b"\0" + raw[i * stride : (i + 1) * stride] for i in range(height))
    header = struct.pack(">IIBBBBB", width, height, bits, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(rows)), *after, (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def exif(orientation):
    block = Image.Exif()
    block[274] = orientation
    return block


# --- what is in the file decides ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name,options", [("a.png", {}), ("a.bmp", {}), ("a.tif", {}), ("a.webp", {"lossless": True}), ("a.ppm", {})])
@pytest.mark.parametrize("shape", [(1, 1, 3), (33, 47, 3), (64, 3, 3)])
def test_rgb_is_read_exactly(tmp_path, name, options, shape):
    pixels = noise(*shape)
    Image.fromarray(pixels).save(tmp_path / name, **options)
    read = read_rgb(tmp_path / name)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, pixels)
    assert image_size(tmp_path / name) == shape[:2]


def test_content_decides_the_format_not_the_name(tmp_path):
    path = tmp_path / "1118.png"
    Image.fromarray(smooth(30, 40)).save(path, "JPEG", exif=exif(6))
    info = image_info(path)
    assert info == (40, 30, "JPEG", 6)
    np.testing.assert_array_equal(read_rgb(path), np.asarray(ImageOps.exif_transpose(Image.open(path))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_all_orientations_as_pil_applies_them(tmp_path, kind, orientation):
    path = tmp_path / "photo"
    Image.fromarray(smooth(21, 34)).save(path, kind, exif=exif(orientation))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_rgb(path), expected)
    assert image_size(path) == expected.shape[:2] == ((34, 21) if orientation >= 5 else (21, 34))
    assert image_info(path).orientation == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_all_orientations_of_16_bit_files(tmp_path, kind, orientation):
    pixels, path = noise(21, 34, 3, dtype=np.uint16), tmp_path / "photo"
    if kind == "PNG":
        path.write_bytes(png(pixels, before=[(b"eXIf", exif(orientation).tobytes().removeprefix(b"Exif\0\0"))]))
    else:
        tifffile.imwrite(path, pixels, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    # PIL cannot hold 16-bit RGB, so each byte of it is turned as an 8-bit image
    low, high = ((pixels >> shift & 255).astype(np.uint8) for shift in (0, 8))
    turned = []
    for part in (low, high):
        Image.fromarray(part).save(tmp_path / "part.png", exif=exif(orientation))
        turned.append(np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "part.png"))).astype(np.uint16))
    expected = turned[1] << 8 | turned[0]
    np.testing.assert_array_equal(read_rgb(path), expected)
    assert image_size(path) == expected.shape[:2]


def test_orientation_stored_after_the_pixels_of_a_png(tmp_path):
    path = tmp_path / "late.png"
    path.write_bytes(png(noise(21, 34, 3), after=[(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0"))]))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_rgb(path), expected)
    assert image_size(path) == (34, 21)


@pytest.mark.parametrize(
    "block", [b"garbage", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0"]
)
def test_a_broken_or_impossible_orientation_leaves_the_picture_as_stored(tmp_path, block):
    path = tmp_path / "photo.jpg"
    Image.fromarray(smooth(21, 34)).save(path, exif=block)
    assert read_rgb(path).shape == (21, 34, 3)
    assert image_size(path) == (21, 34)


def test_size_is_read_without_decoding(tmp_path):
    for name in ("a.png", "a.jpg", "a.tif"):
        path = tmp_path / name
        Image.fromarray(smooth(300, 200)).save(path)
        whole = path.read_bytes()
        if name != "a.tif":  # PIL writes the header of a TIFF first, others last
            path.write_bytes(whole[: len(whole) // 2])
        assert image_size(path) == (300, 200)


# --- kinds of pixels ----------------------------------------------------------------------------------------------------


def test_gray_gives_three_equal_channels(tmp_path):
    pixels = noise(15, 17)
    Image.fromarray(pixels).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "gray.png"), np.stack([pixels] * 3, axis=2))
    photo = read_photo(tmp_path / "gray.png")
    assert photo.gray and photo.alpha is None and photo.bits == 8


def test_one_bit_image(tmp_path):
    bits = noise(15, 17) > 127
    Image.fromarray(bits).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "bits.png")[..., 1], np.where(bits, 255, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped_and_colours_of_transparent_pixels_stay(tmp_path, mode):
    pixels = noise(15, 17, len(mode))
    pixels[:8, :, -1] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = pixels[..., :3] if mode == "RGBA" else pixels[..., :1].repeat(3, axis=2)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), expected)
    photo = read_photo(tmp_path / "a.png")
    assert photo.gray == (mode == "LA")
    torch.testing.assert_close(photo.alpha, torch.from_numpy(pixels[None, ..., -1] / np.float32(255)), rtol=0, atol=1e-7)


@pytest.mark.parametrize("transparent", [False, True])
def test_palette(tmp_path, transparent):
    colours, index = noise(4, 3, seed=1), noise(15, 17) % 4
    image = Image.fromarray(index)
    image.putpalette(colours.tobytes())
    assert image.mode == "P"
    image.save(tmp_path / "p.png", **({"transparency": bytes([0, 128, 255, 7])} if transparent else {}))
    np.testing.assert_array_equal(read_rgb(tmp_path / "p.png"), colours[index])
    photo = read_photo(tmp_path / "p.png")
    assert not photo.gray and (photo.alpha is not None) == transparent
    if transparent:
        np.testing.assert_array_equal((photo.alpha[0] * 255).round(), np.array([0, 128, 255, 7])[index])


def test_one_transparent_colour(tmp_path):
    pixels = noise(5, 6, 3)
    pixels[2, 3] = (1, 2, 3)
    Image.fromarray(pixels).save(tmp_path / "t.png", transparency=(1, 2, 3))
    np.testing.assert_array_equal(read_rgb(tmp_path / "t.png"), pixels)
    alpha = read_photo(tmp_path / "t.png").alpha
    assert alpha[0, 2, 3] == 0 and alpha.sum() == 29


def test_cmyk_jpeg(tmp_path):
    Image.fromarray(smooth(32, 48)).convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    assert np.abs(read_rgb(tmp_path / "c.jpg").astype(int) - smooth(32, 48)).mean() < 2


def test_unsupported_pixels_are_named(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ImageError, match=r"f\.tif: pixels of type F are not supported"):
        read_rgb(tmp_path / "f.tif")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_keeps_16_bits(tmp_path, channels):
    pixels = noise(13, 19, channels, dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png(pixels))
    read = read_rgb(tmp_path / "a.png")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, pixels[..., :3] if channels >= 3 else pixels[..., :1].repeat(3, axis=2))
    photo = read_photo(tmp_path / "a.png")
    assert photo.bits == 16 and photo.gray == (channels <= 2) and (photo.alpha is not None) == (channels in (2, 4))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("extra", [[], ["unassalpha"], ["unspecified"]])
@pytest.mark.parametrize("byteorder,bigtiff", [("<", False), (">", False), ("<", True)])
def test_16_bit_tiff_keeps_16_bits(tmp_path, planar, extra, byteorder, bigtiff):
    pixels = noise(13, 19, 3 + len(extra), dtype=np.uint16)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, 2, 0)
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, stored.copy(), photometric="rgb", planarconfig=planar, extrasamples=extra or None, byteorder=byteorder, bigtiff=bigtiff
    )
    read = read_rgb(path)
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, pixels[..., :3])
    photo = read_photo(path)
    assert photo.bits == 16 and (photo.alpha is not None) == (extra == ["unassalpha"])


def test_16_bit_gray_tiff_and_inverted_gray(tmp_path):
    pixels = noise(13, 19, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "black.tif", pixels, photometric="minisblack")
    tifffile.imwrite(tmp_path / "white.tif", 65535 - pixels, photometric="miniswhite")
    for name in ("black.tif", "white.tif"):
        np.testing.assert_array_equal(read_rgb(tmp_path / name)[..., 2], pixels)
        assert read_photo(tmp_path / name).gray


def test_16_bit_tiff_with_premultiplied_colours(tmp_path):
    colours, alpha = noise(13, 19, 3, dtype=np.uint16), noise(13, 19, 1, dtype=np.uint16, seed=1) | 0x8000
    stored = np.concatenate([(colours / 65535.0 * alpha).round().astype(np.uint16), alpha], axis=2)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
    assert np.abs(read_rgb(tmp_path / "a.tif").astype(int) - colours).max() <= 1


def test_to_tensor_covers_the_range():
    for dtype in (np.uint8, np.uint16):
        top = np.iinfo(dtype).max
        array = np.arange(top + 1, dtype=dtype)[None, :, None].repeat(3, axis=2)
        tensor = to_tensor(array)
        assert tensor.dtype == torch.float32 and tensor.shape == (3, 1, top + 1) and tensor.is_contiguous()
        assert tensor.min() == 0 and tensor.max() == 1
        assert torch.equal((tensor[0, 0] * top).round().long(), torch.arange(top + 1))
    for wrong in (np.zeros((2, 2, 3)), np.zeros((2, 2), np.uint8)):
        with pytest.raises(ValueError, match="expected pixels"):
            to_tensor(wrong)


# --- broken files -------------------------------------------------------------------------------------------------------


def one_line(error):
    return "\n" not in str(error.value)


def test_missing_empty_and_folder(tmp_path):
    (tmp_path / "empty.png").touch()
    for name, reason in [("no.png", "no such file"), ("empty.png", "zero bytes"), ("", "Is a directory")]:
        for read in (read_rgb, read_photo, image_size):
            with pytest.raises(ImageError, match=reason) as error:
                read(tmp_path / name)
            assert one_line(error) and str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extension", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_truncated(tmp_path, extension, part, bits):
    if bits == 16 and extension in (".jpg", ".webp"):
        pytest.skip(f"{extension} has no 16 bits")
    path = tmp_path / f"t{extension}"
    write_photo(path, to_tensor(noise(64, 96, 3)), bits=bits)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ImageError, match=r"truncated|corrupt") as error:
        read_rgb(path)
    assert one_line(error) and str(path) in str(error.value)


def test_not_an_image(tmp_path):
    (tmp_path / "a.png").write_bytes(b"<html>404</html>" * 20)
    (tmp_path / "b.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    for name in ("a.png", "b.eps"):
        with pytest.raises(ImageError, match="not an image") as error:
            read_rgb(tmp_path / name)
        assert one_line(error)


def test_decompression_bombs(tmp_path):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    whole = png(noise(2, 2, 3))
    chunk = b"IHDR" + header
    (tmp_path / "bomb.png").write_bytes(whole[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + whole[33:])
    tifffile.imwrite(tmp_path / "bomb.tif", noise(4, 4, 3, dtype=np.uint16), photometric="rgb")
    with tifffile.TiffFile(tmp_path / "bomb.tif", mode="r+b") as tiff:
        tiff.pages.first.tags["ImageWidth"].overwrite(60000)
        tiff.pages.first.tags["ImageLength"].overwrite(60000)
    for name in ("bomb.png", "bomb.tif"):
        with pytest.raises(ImageError, match="decompression bomb") as error:
            read_rgb(tmp_path / name)
        assert one_line(error)


def test_mutated_files_give_pixels_or_an_image_error(tmp_path):
    rng = np.random.default_rng(0)
    for extension, bits in [(".png", 8), (".png", 16), (".jpg", 8), (".tif", 8), (".tif", 16), (".webp", 8)]:
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


# --- writing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [".png", ".tif", ".TIFF", ".webp"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_lossless_round_trip(tmp_path, extension, bits, gray, with_alpha):
    if extension == ".webp" and (bits == 16 or gray):
        pytest.skip("WebP has neither 16 bits nor gray")
    pixels = noise(21, 34, 4, dtype=np.uint8 if bits == 8 else np.uint16)
    if gray:
        pixels[..., 1:3] = pixels[..., :1]
    pixels[:5, :, 3] = 0
    path = tmp_path / f"a{extension}"
    write_photo(path, to_tensor(pixels[..., :3]), to_tensor(pixels[..., 3:]) if with_alpha else None, gray, bits)
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
    """PIL keeps the high bytes of 16-bit RGB: enough to see that an independent reader takes the file."""
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
    with pytest.raises(ImageError, match="there is no folder"):
        write_photo(tmp_path / "no" / "a.png", rgb)
    assert list(tmp_path.iterdir()) == []


def test_failing_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    """A process that may write 20,000 bytes a file, as on a full disk: the write fails in the middle, for real."""
    target = tmp_path / "photo.png"
    target.write_bytes(b"old")
    script = f"""
import resource, signal, torch
from lit_mimdit.data.image_io import ImageError, write_photo
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_photo({str(target)!r}, torch.rand(3, 200, 300))
except ImageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{target}: cannot be written: File too large"
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"] and target.read_bytes() == b"old"


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


# --- folders ------------------------------------------------------------------------------------------------------------


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


@pytest.mark.skipif(not FOUNDIR.is_dir(), reason="needs the real FoundIR pairs next to the repository (../shared/data)")
def test_real_foundir_pairs():
    """1118 is a JPEG with a .png name: the pair must come out with one size."""
    for stem, size in [("0001", (1080, 1920)), ("1118", (1528, 2720))]:
        for side in ("lq", "gt"):
            path = FOUNDIR / side / f"{stem}.png"
            assert image_size(path) == size
            assert read_rgb(path).shape == (*size, 3)
    assert "JPEG" in {image_info(FOUNDIR / side / "1118.png").format for side in ("lq", "gt")}
