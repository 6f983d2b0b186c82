"""Colour profiles and metadata: converted or copied, and never lost without a word."""

import io
import struct

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms, PngImagePlugin

from lit_mimdit.data import colour_profile
from lit_mimdit.data.image_io import (
    encode_photo,
    held,
    image_info,
    losses,
    read_photo,
    read_rgb,
    write_photo,
)

EXIF, GPS = 0x8769, 0x8825
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"'
    b' xmp:Rating="4"><xmp:Thumbnails><rdf:li xmpGImg:image="AAAA"/></xmp:Thumbnails>'
    b"<tiff:Orientation>8</tiff:Orientation></rdf:Description></rdf:RDF></x:xmpmeta>"
)
KINDS = [".jpg", ".png", ".tif", ".webp"]


def adobe_rgb(name: str = "RGB built-in") -> bytes:
    """A profile with the primaries of Adobe RGB (1998) and the curve of sRGB."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", made[128:132])[0]
    primaries = {
        b"rXYZ": (0.60974, 0.31111, 0.01947),
        b"gXYZ": (0.20528, 0.62567, 0.06087),
        b"bXYZ": (0.14919, 0.06322, 0.74457),
    }
    for number in range(count):
        tag, place, _ = struct.unpack(">4sII", made[132 + 12 * number : 144 + 12 * number])
        if tag in primaries:
            values = [round(value * 65536) for value in primaries[tag]]
            made[place + 8 : place + 20] = struct.pack(">iii", *values)
    return bytes(made)


def gray_gamma_1() -> bytes:
    """A profile of linear gray, made by hand."""
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0\0\0\0\0"  # no entries: identity
    text = b"desc\0\0\0\0\0\0\0\7linear\0" + bytes(8 + 2 + 1 + 67)
    text += bytes(-len(text) % 4)
    tags, body, place = [], b"", 128 + 4 + 3 * 12
    for name, data in ((b"wtpt", white), (b"kTRC", curve), (b"desc", text)):
        tags.append(struct.pack(">4sII", name, place + len(body), len(data)))
        body += data
    size = place + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", 3) + b"".join(tags) + body


def colours(height=24, width=32):
    """Not too saturated, so that no colour lies outside sRGB."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([90 + 2 * x, 100 + 3 * y, 190 - 2 * x], axis=2).astype(np.uint8)


def by_pil(pixels, icc):
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    moved = ImageCms.profileToProfile(
        Image.fromarray(pixels), profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    return np.asarray(moved)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.jpg"])
def test_an_embedded_profile_is_converted_as_pil_converts_it(tmp_path, name):
    options = {"lossless": True} if name == "a.webp" else {}
    options |= {"quality": 100, "subsampling": 0} if name == "a.jpg" else {}
    Image.fromarray(colours()).save(tmp_path / name, icc_profile=adobe_rgb(), **options)
    with Image.open(tmp_path / name) as image:
        stored = np.asarray(image)
    read, expected = read_rgb(tmp_path / name).astype(int), by_pil(stored, adobe_rgb())
    assert np.abs(read - expected).max() <= 1
    assert np.abs(read - stored).max() > 10, "the conversion changes something"
    assert image_info(tmp_path / name).profile != ""


def test_16_bits_are_converted_in_16_bits(tmp_path):
    pixels = colours().astype(np.uint16) * 257 + 77
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", iccprofile=adobe_rgb())
    read = read_rgb(tmp_path / "a.tif")
    assert read.dtype == np.uint16 and len(np.unique(read & 255)) > 100
    assert np.abs(read / 257 - by_pil((pixels >> 8).astype(np.uint8), adobe_rgb())).max() < 1.5


def test_srgb_itself_changes_no_number(tmp_path):
    Image.fromarray(colours()).save(tmp_path / "a.png", icc_profile=colour_profile.srgb())
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), colours())
    assert image_info(tmp_path / "a.png").profile == ""


def test_linear_gray_becomes_srgb_gray(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "g.png", icc_profile=gray_gamma_1())
    linear = levels / 255
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(read_rgb(tmp_path / "g.png")[..., 0] - 255 * curve).max() < 1.5
    assert read_photo(tmp_path / "g.png").gray


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_profile_leaves_the_numbers_and_is_named(tmp_path):
    Image.fromarray(colours()).save(tmp_path / "a.png", icc_profile=b"no profile" * 20)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), colours())
    assert "colour profile" in read_photo(tmp_path / "a.png").metadata.notes[0]


@pytest.mark.parametrize("extension", KINDS)
def test_the_restored_image_shows_the_colours_of_its_input(tmp_path, extension):
    """Read with its own profile, it equals the input read with its own."""
    Image.fromarray(colours()).save(tmp_path / "in.png", icc_profile=adobe_rgb())
    photo = held(f"out{extension}", read_photo(tmp_path / "in.png"))
    write_photo(tmp_path / f"out{extension}", *photo)
    with Image.open(tmp_path / f"out{extension}") as image:
        shown = by_pil(np.asarray(image), image.info["icc_profile"])
    assert np.abs(shown.astype(int) - by_pil(colours(), adobe_rgb())).mean() < 1.5


def with_everything(path, **options):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0132] = 6, "Cam", "2024:05:01 10:00:00"
    exif[0x013B] = "Zoë"
    exif[EXIF] = {
        0x9003: "2024:05:01 09:59:59", 0x829A: 0.008, 0x9204: -0.5, 0xA001: 2, 0xA002: 32,
        0xA003: 24, 0x927C: b"maker's own" * 3, 0xA434: "50mm",
    }  # fmt: skip
    exif[GPS] = {1: "N", 2: (52.0, 30.0, 15.5), 3: "E", 4: (13.0, 24.0, 0.0)}
    if path.suffix == ".tif":
        exif[700] = XMP
    else:
        options["xmp"] = XMP
    Image.fromarray(colours()).save(path, exif=exif.tobytes(), dpi=(300, 300), **options)
    return path


@pytest.mark.parametrize("source", ["in.jpg", "in.webp", "in.tif"])
@pytest.mark.parametrize("extension", KINDS)
@pytest.mark.parametrize("bits", [8, 16])
def test_camera_date_and_place_are_copied(tmp_path, source, extension, bits):
    photo = read_photo(with_everything(tmp_path / source))
    assert photo.rgb.shape == (3, 32, 24)
    photo = held(f"out{extension}", photo._replace(bits=bits))
    write_photo(tmp_path / f"out{extension}", *photo)
    np.testing.assert_allclose(read_photo(tmp_path / f"out{extension}").rgb, photo.rgb, atol=0.1)
    exif = Image.Exif()
    if extension == ".tif":
        with open(tmp_path / "out.tif", "rb") as file:
            exif.load_from_fp(file)
            camera, place = dict(exif.get_ifd(EXIF)), dict(exif.get_ifd(GPS))
    else:
        with Image.open(tmp_path / f"out{extension}") as image:
            exif, xmp = image.getexif(), image.info["xmp"]
            camera, place = dict(exif.get_ifd(EXIF)), dict(exif.get_ifd(GPS))
            thumbnail = exif.get_ifd(0x0201)
        assert not thumbnail
        assert xmp.count(b'Orientation="1"') == 1 and b">1<" in xmp
        assert b"Thumbnails" not in xmp and b'Rating="4"' in xmp
    assert exif.get(0x0112, 1) == 1
    assert (exif[0x010F], exif[0x0132]) == ("Cam", "2024:05:01 10:00:00")
    assert camera[0x9003] == "2024:05:01 09:59:59" and camera[0xA434] == "50mm"
    assert float(camera[0x829A]) == pytest.approx(0.008) and float(camera[0x9204]) == -0.5
    assert camera[0x927C] == b"maker's own" * 3
    assert (camera[0xA001], camera[0xA002], camera[0xA003]) == (1, 24, 32)
    assert place[1] == "N" and [float(value) for value in place[2]] == [52.0, 30.0, 15.5]


def test_texts_and_resolution_of_a_png_are_copied(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "Ada")
    info.add_itxt("Title", "夜")
    Image.fromarray(colours()).save(tmp_path / "in.png", pnginfo=info, dpi=(300, 300))
    photo = read_photo(tmp_path / "in.png")
    write_photo(tmp_path / "out.png", *photo)
    with Image.open(tmp_path / "out.png") as image:
        assert image.text["Author"] == "Ada" and image.text["Title"] == "夜"
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    assert any("text chunks" in loss for loss in losses("a.jpg", False, 8, photo.metadata))


def test_what_does_not_fit_into_a_jpeg_is_said_before(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Cam"
    exif[EXIF] = {0x927C: bytes(70_000), 0xA434: "50mm"}
    Image.fromarray(colours()).save(tmp_path / "in.png", exif=exif)
    photo = read_photo(tmp_path / "in.png")
    assert "shortened" in losses("out.jpg", False, 8, photo.metadata)[0]
    assert losses("out.png", False, 8, photo.metadata) == []
    (tmp_path / "out.jpg").write_bytes(encode_photo("out.jpg", *held("out.jpg", photo)))
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.getexif().get_ifd(EXIF)[0xA434] == "50mm"


def test_a_picture_without_metadata_gets_none(tmp_path):
    write_photo(tmp_path / "a.png", torch.zeros(3, 4, 4))
    with Image.open(tmp_path / "a.png") as image:
        assert set(image.info) == set() and not image.getexif()
