"""Colours without an embedded profile: against matrices and curves worked out independently."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from lit_mimdit.data.deep_pixels import encode_png16, png_chunk
from lit_mimdit.data.image_io import ImageError, image_info, read_photo, read_rgb

# to linear sRGB, both D65, from the published chromaticities (Lindbloom's RGB calculator)
ADOBE = [[1.3982832, -0.3982831, 0.0], [0.0, 1.0, 0.0], [0.0, -0.0429383, 1.0429383]]
P3 = [
    [1.2249401, -0.2249404, 0.0],
    [-0.0420569, 1.0420571, 0.0],
    [-0.0196376, -0.0786361, 1.0982735],
]
SRGB_POINTS = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
ADOBE_POINTS = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)


def colours():
    """Not too saturated, so that no colour lies outside sRGB."""
    y, x = np.mgrid[0:16, 0:24]
    return np.stack([90 + 2 * x, 100 + 3 * y, 190 - 2 * x], axis=2).astype(np.uint8)


def encoded(light):
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return 255 * curve.clip(0, 1)


def from_adobe(pixels):
    return encoded((pixels / 255.0) ** 2.19921875 @ np.transpose(ADOBE))


def from_p3(pixels):
    value = pixels / 255.0
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return encoded(light @ np.transpose(P3))


def gamma(value):
    return png_chunk(b"gAMA", struct.pack(">I", value))


def points(values):
    return png_chunk(b"cHRM", struct.pack(">8I", *values))


def code(primaries, transfer):
    return png_chunk(b"cICP", bytes([primaries, transfer, 0, 1]))


def png(path, *chunks, pixels=None, **options):
    """Writes a PNG with chunks behind its header."""
    buffer = io.BytesIO()
    Image.fromarray(colours() if pixels is None else pixels).save(buffer, "PNG", **options)
    data = buffer.getvalue()
    path.write_bytes(data[:33] + b"".join(chunks) + data[33:])
    return path


def adobe_exif(index="R03", space=65535):
    exif = Image.Exif()
    exif[0x8769] = {0xA001: space, 0xA005: {1: index}}
    return exif


def assert_reads(path, expected):
    assert np.abs(read_rgb(path) - expected).max() <= 1.01
    assert np.abs(expected - colours()).max() > 8, "the conversion changes something"
    assert image_info(path).profile, "`data check` reports it"
    assert read_photo(path).metadata.icc is not None, "the restored image says that it is sRGB"


def test_gamma_and_primaries_of_a_png_are_converted(tmp_path):
    file = png(tmp_path / "a.png", gamma(45470), points(ADOBE_POINTS))
    assert_reads(file, from_adobe(colours()))


def test_a_video_code_is_converted_and_goes_before_a_profile(tmp_path):
    assert_reads(png(tmp_path / "a.png", code(12, 13)), from_p3(colours()))
    from lit_mimdit.data.colour_profile import srgb

    assert_reads(png(tmp_path / "b.png", code(12, 13), icc_profile=srgb()), from_p3(colours()))


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_adobe_rgb_that_a_camera_marks_is_converted(tmp_path, name):
    options = {"quality": 100, "subsampling": 0} if name == "a.jpg" else {}
    options |= {"lossless": True} if name == "a.webp" else {}
    Image.fromarray(colours()).save(tmp_path / name, exif=adobe_exif(), **options)
    with Image.open(tmp_path / name) as image:
        stored = np.asarray(image)
    assert_reads(tmp_path / name, from_adobe(stored))
    Image.fromarray(colours()).save(tmp_path / name, exif=adobe_exif("R98", 1), **options)
    np.testing.assert_array_equal(read_rgb(tmp_path / name), stored)


def test_16_bits_are_converted_in_16_bits(tmp_path):
    data = encode_png16(colours().astype(np.uint16) * 257 + 77)
    extra = gamma(45470) + points(ADOBE_POINTS)
    (tmp_path / "a.png").write_bytes(data[:33] + extra + data[33:])
    read = read_rgb(tmp_path / "a.png")
    assert read.dtype == np.uint16
    assert np.abs(read / 257 - from_adobe(colours() + 77 / 257)).max() < 0.5


def test_linear_gray_becomes_srgb_gray(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    file = png(tmp_path / "g.png", gamma(100000), pixels=levels)
    assert np.abs(read_rgb(file)[..., 0] - encoded(levels / 255)).max() < 1.5
    assert read_photo(file).gray


@pytest.mark.parametrize(
    "chunks",
    [
        (gamma(45455), points(SRGB_POINTS)),  # what many writers say of sRGB
        (gamma(47000),),  # within libpng's threshold
        (png_chunk(b"sRGB", b"\0"), gamma(100000)),  # sRGB goes before gAMA
        (gamma(0),),
        (code(1, 13),),
        (code(2, 2),),
        (code(200, 13),),
    ],
)
def test_what_says_srgb_or_nothing_changes_no_number(tmp_path, chunks):
    file = png(tmp_path / "a.png", *chunks)
    np.testing.assert_array_equal(read_rgb(file), colours())
    assert image_info(file).profile == ""


@pytest.mark.filterwarnings("ignore")
def test_primaries_that_make_no_colours_leave_the_numbers_and_are_named(tmp_path):
    file = png(tmp_path / "a.png", points((31270, 32900, 1, 1, 1, 1, 1, 1)))
    np.testing.assert_array_equal(read_rgb(file), colours())
    assert "cannot be used" in read_photo(file).metadata.notes[0]


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused_for_what_it_is(tmp_path, transfer, name):
    file = png(tmp_path / "a.png", code(9, transfer))
    for read in (read_rgb, image_info):
        with pytest.raises(ImageError, match=rf"a\.png: values are HDR \({name} by cICP\)"):
            read(file)


def test_the_video_code_of_an_avif_is_converted(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(colours()).save(buffer, "AVIF", quality=100, subsampling="4:4:4")
    data = buffer.getvalue()
    place = data.index(b"colrnclx") + 8
    plain = tmp_path / "plain.avif"
    plain.write_bytes(data)
    (tmp_path / "p3.avif").write_bytes(
        data[:place] + struct.pack(">HH", 12, 13) + data[place + 4 :]
    )
    assert_reads(tmp_path / "p3.avif", from_p3(read_rgb(plain)))


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_tiff_of_adobe_rgb_by_exif_is_converted(tmp_path, depth):
    path, scale = tmp_path / "a.tif", np.iinfo(depth).max // 255
    # tifffile writes no pointer to a directory: a neighbour of its number keeps the place
    pixels, extra = colours().astype(depth) * scale, [(34664, "I", 1, 0, True)]
    tifffile.imwrite(path, pixels, photometric="rgb", extratags=extra, byteorder="<")
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages.first.tags[34664]
    data = bytearray(path.read_bytes())
    data[tag.offset : tag.offset + 2] = struct.pack("<H", 34665)
    data += bytes(len(data) % 2)
    data[tag.valueoffset : tag.valueoffset + 4] = struct.pack("<I", len(data))
    data += struct.pack("<HHHIII", 1, 0xA001, 3, 1, 2, 0)  # one entry: colour space 2
    path.write_bytes(data)
    assert np.abs(read_rgb(path) / scale - from_adobe(colours())).max() < 1.01
    assert image_info(path).profile == "Adobe RGB (by EXIF)"
