"""Image files of every kind that users and data sets have, written here by independent writers
(PIL, tifffile, raw bytes).
"""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageOps

from lit_mimdit.data.image_io import ImageError, image_info, image_size, read_photo, read_rgb

FOUNDIR = Path(__file__).resolve().parents[3] / "shared" / "data" / "pairs" / "foundir"


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def smooth(height, width):
    """A picture that JPEG keeps well: (H, W, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 255 - 255 * x / width], axis=2).astype(
        np.uint8
    )


def png(pixels, before=(), after=()):
    """A PNG made by hand, 8 or 16 bits, with extra chunks before or after its pixels."""
    height, width, channels = pixels.shape
    bits = 8 * pixels.itemsize
    raw = pixels.astype(f">u{pixels.itemsize}").tobytes()
    stride = len(raw) // height
    rows = b"".join(b"\0" + raw[i * stride : (i + 1) * stride] for i in range(height))
    header = struct.pack(
        ">IIBBBBB", width, height, bits, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0
    )
    chunks = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(rows)), *after, (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def exif(orientation):
    block = Image.Exif()
    block[274] = orientation
    return block


# --- what is in the file decides ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name,options",
    [("a.png", {}), ("a.bmp", {}), ("a.tif", {}), ("a.webp", {"lossless": True}), ("a.ppm", {})],
)
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
    assert info == (40, 30, "JPEG", 6, 1, "")
    np.testing.assert_array_equal(
        read_rgb(path), np.asarray(ImageOps.exif_transpose(Image.open(path)))
    )


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
        path.write_bytes(
            png(pixels, before=[(b"eXIf", exif(orientation).tobytes().removeprefix(b"Exif\0\0"))])
        )
    else:
        tifffile.imwrite(
            path, pixels, photometric="rgb", extratags=[(274, "H", 1, orientation, True)]
        )
    # PIL cannot hold 16-bit RGB, so each byte of it is turned as an 8-bit image
    low, high = ((pixels >> shift & 255).astype(np.uint8) for shift in (0, 8))
    turned = []
    for part in (low, high):
        Image.fromarray(part).save(tmp_path / "part.png", exif=exif(orientation))
        turned.append(
            np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "part.png"))).astype(np.uint16)
        )
    expected = turned[1] << 8 | turned[0]
    np.testing.assert_array_equal(read_rgb(path), expected)
    assert image_size(path) == expected.shape[:2]


def test_orientation_stored_after_the_pixels_of_a_png(tmp_path):
    path = tmp_path / "late.png"
    path.write_bytes(
        png(noise(21, 34, 3), after=[(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0"))])
    )
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_rgb(path), expected)
    assert image_size(path) == (34, 21)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    "block", [b"Exif\0\0garbage and more", b"Exif\0\0MM\0*\xff\xff\xff\xff", exif(99).tobytes()]
)
def test_a_broken_or_impossible_orientation_leaves_the_picture_as_stored(tmp_path, block):
    path = tmp_path / "photo.jpg"
    Image.fromarray(smooth(21, 34)).save(path, exif=block)
    assert read_rgb(path).shape == (21, 34, 3)
    assert image_info(path) == (21, 34, "JPEG", 1, 1, "")


def test_a_broken_exif_text_of_a_png_leaves_the_picture_as_stored(tmp_path):
    (tmp_path / "a.png").write_bytes(
        png(noise(21, 34, 3), before=[(b"tEXt", b"Raw profile type exif\0\nexif\n 10\nnot hex")])
    )
    assert read_rgb(tmp_path / "a.png").shape == (21, 34, 3)
    assert image_size(tmp_path / "a.png") == (21, 34)


def test_size_is_read_without_decoding(tmp_path):
    for name in ("a.png", "a.jpg", "a.tif"):
        path = tmp_path / name
        Image.fromarray(smooth(300, 200)).save(path)
        whole = path.read_bytes()
        if name != "a.tif":  # PIL writes the header of a TIFF first, others last
            path.write_bytes(whole[: len(whole) // 2])
        assert image_size(path) == (300, 200)


# --- kinds of pixels ------------------------------------------------------------------------------


def test_gray_gives_three_equal_channels(tmp_path):
    pixels = noise(15, 17)
    Image.fromarray(pixels).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "gray.png"), np.stack([pixels] * 3, axis=2))
    photo = read_photo(tmp_path / "gray.png")
    assert photo.gray and photo.alpha is None and photo.bits == 8
    assert torch.equal(photo.rgb * 255, torch.from_numpy(pixels).float().expand(3, -1, -1))


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
    torch.testing.assert_close(
        photo.alpha, torch.from_numpy(pixels[None, ..., -1] / np.float32(255)), rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("transparent", [False, True])
def test_palette(tmp_path, transparent):
    colours, index = noise(4, 3, seed=1), noise(15, 17) % 4
    image = Image.fromarray(index)
    image.putpalette(colours.tobytes())
    assert image.mode == "P"
    image.save(
        tmp_path / "p.png", **({"transparency": bytes([0, 128, 255, 7])} if transparent else {})
    )
    np.testing.assert_array_equal(read_rgb(tmp_path / "p.png"), colours[index])
    photo = read_photo(tmp_path / "p.png")
    assert not photo.gray and (photo.alpha is not None) == transparent
    if transparent:
        np.testing.assert_array_equal(
            (photo.alpha[0] * 255).round(), np.array([0, 128, 255, 7])[index]
        )


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
    Image.fromarray(smooth(4, 4)).convert("LAB").save(tmp_path / "lab.tif")
    with pytest.raises(ImageError, match=r"lab\.tif: pixels of type LAB are not supported"):
        read_rgb(tmp_path / "lab.tif")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_keeps_16_bits(tmp_path, channels):
    pixels = noise(13, 19, channels, dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png(pixels))
    read = read_rgb(tmp_path / "a.png")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(
        read, pixels[..., :3] if channels >= 3 else pixels[..., :1].repeat(3, axis=2)
    )
    photo = read_photo(tmp_path / "a.png")
    assert (
        photo.bits == 16
        and photo.gray == (channels <= 2)
        and (photo.alpha is not None) == (channels in (2, 4))
    )


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("extra", [[], ["unassalpha"], ["unspecified"]])
@pytest.mark.parametrize("byteorder,bigtiff", [("<", False), (">", False), ("<", True)])
def test_16_bit_tiff_keeps_16_bits(tmp_path, planar, extra, byteorder, bigtiff):
    pixels = noise(13, 19, 3 + len(extra), dtype=np.uint16)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, 2, 0)
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        stored.copy(),
        photometric="rgb",
        planarconfig=planar,
        extrasamples=extra or None,
        byteorder=byteorder,
        bigtiff=bigtiff,
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
    colours, alpha = (
        noise(13, 19, 3, dtype=np.uint16),
        noise(13, 19, 1, dtype=np.uint16, seed=1) | 0x8000,
    )
    stored = np.concatenate([(colours / 65535.0 * alpha).round().astype(np.uint16), alpha], axis=2)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
    assert np.abs(read_rgb(tmp_path / "a.tif").astype(int) - colours).max() <= 1


@pytest.mark.skipif(
    not FOUNDIR.is_dir(),
    reason="needs the real FoundIR pairs next to the repository (../shared/data)",
)
def test_real_foundir_pairs():
    """1118 is a JPEG with a .png name: the pair must come out with one size."""
    for stem, size in [("0001", (1080, 1920)), ("1118", (1528, 2720))]:
        for side in ("lq", "gt"):
            path = FOUNDIR / side / f"{stem}.png"
            assert image_size(path) == size
            assert read_rgb(path).shape == (*size, 3)
    assert "JPEG" in {image_info(FOUNDIR / side / "1118.png").format for side in ("lq", "gt")}
