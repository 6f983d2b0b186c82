"""Depth, bands, compression and transparency: read for what they are, or refused by name."""

import builtins
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from lit_mimdit.data.image_io import ImageError, image_info, read_photo, read_rgb


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def as_bands(path, pixels, planar, **options):
    """As programs for satellite images write it: gray, and the other bands unspecified."""
    stored = pixels if planar == "contig" else np.moveaxis(pixels, 2, 0).copy()
    tifffile.imwrite(
        path,
        stored,
        photometric="minisblack",
        planarconfig=planar,
        extrasamples=["unspecified"] * (pixels.shape[2] - 1),
        metadata=None,
        **options,
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("bands", [3, 4])
def test_three_bands_without_an_rgb_tag_are_rgb(tmp_path, dtype, planar, bands):
    pixels = noise(9, 11, bands, dtype=dtype)
    as_bands(tmp_path / "b.tif", pixels, planar)
    np.testing.assert_array_equal(read_rgb(tmp_path / "b.tif"), pixels[..., :3])
    photo = read_photo(tmp_path / "b.tif")
    assert not photo.gray and photo.alpha is None and photo.bits == 8 * pixels.itemsize
    assert photo.metadata.notes == (("1 extra band(s) beside RGB",) if bands == 4 else ())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [2, 5, 7])
def test_other_numbers_of_bands_are_refused_by_their_number(tmp_path, dtype, bands):
    as_bands(tmp_path / "b.tif", noise(9, 11, bands, dtype=dtype), "contig")
    with pytest.raises(ImageError, match=f"b.tif: {bands} bands of which none is said to be"):
        read_rgb(tmp_path / "b.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("gray", [False, True])
def test_alpha_of_a_tiff_is_alpha(tmp_path, dtype, kind, gray):
    top, channels = np.iinfo(dtype).max, 2 if gray else 4
    pixels = noise(9, 11, channels, dtype=dtype)
    pixels[..., -1] |= top // 2 + 1
    stored = pixels.copy()
    if kind == "assocalpha":
        stored[..., :-1] = (pixels[..., :-1] / top * pixels[..., -1:]).round().astype(dtype)
    photometric = "minisblack" if gray else "rgb"
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric=photometric, planarconfig="contig",
        extrasamples=[kind],
    )  # fmt: skip
    photo = read_photo(tmp_path / "a.tif")
    assert photo.gray == gray and photo.alpha is not None
    assert np.abs(photo.rgb[0].numpy() * top - pixels[..., 0]).max() < 1.5
    np.testing.assert_allclose(photo.alpha[0].numpy(), pixels[..., -1] / top, atol=1e-6)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compressions_of_tiff(tmp_path, compression, dtype):
    pixels = noise(20, 23, 3, dtype=dtype)
    tifffile.imwrite(tmp_path / "c.tif", pixels, photometric="rgb", compression=compression)
    np.testing.assert_array_equal(read_rgb(tmp_path / "c.tif"), pixels)


def test_a_missing_decoder_is_named(tmp_path, monkeypatch):
    pixels = noise(20, 23, 3, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "c.tif", pixels, photometric="rgb", compression="lzw")
    real = builtins.__import__

    def without(name, *args, **options):
        if name.split(".")[0] == "imagecodecs":
            raise ImportError(name)
        return real(name, *args, **options)

    class Empty(dict):
        def __missing__(self, key):
            raise KeyError(key)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", Empty())
    with pytest.raises(ImageError, match="compression LZW needs another .* install imagecodecs"):
        read_rgb(tmp_path / "c.tif")


def test_an_unknown_compression_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "c.tif", noise(9, 9, 3, dtype=np.uint16), photometric="rgb")
    with tifffile.TiffFile(tmp_path / "c.tif", mode="r+b") as tiff:
        tiff.pages.first.tags["Compression"].overwrite(32766)  # NeXT
    with pytest.raises(ImageError, match="compression NEXT .*has no decoder") as error:
        read_rgb(tmp_path / "c.tif")
    assert "copy" not in str(error.value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("gray", [False, True])
def test_floats_from_0_to_1_become_16_bits(tmp_path, dtype, gray):
    levels = np.random.default_rng(0).random((9, 11, 3)).astype(dtype)
    levels[0, 0], levels[0, 1] = 0, 1
    stored = levels[..., 0] if gray else levels
    tifffile.imwrite(tmp_path / "f.tif", stored, photometric="minisblack" if gray else "rgb")
    photo = read_photo(tmp_path / "f.tif")
    assert photo.bits == 16 and photo.gray == gray
    expected = levels.transpose(2, 0, 1)[0 if gray else 2]
    np.testing.assert_allclose(photo.rgb[2].numpy(), expected, atol=0.6 / 65535)


@pytest.mark.parametrize(
    "pixels, message",
    [
        (np.full((4, 4, 3), 200, np.float32), "float pixels from 200 to 200; scale them"),
        (np.full((4, 4, 3), np.nan, np.float32), "are no numbers"),
        (np.full((4, 4, 3), -0.5, np.float16), "float pixels from -0.5"),
        (np.full((4, 4, 3), 7, np.int16), "signed integers of 16 bits"),
        (np.full((4, 4, 3), 7, np.int8), "signed integers of 8 bits"),
        (np.full((4, 4, 3), 7, np.int32), "signed integers of 32 bits"),
        (np.full((4, 4, 3), 7, np.uint64), "unsigned integers of 64 bits"),
        (np.full((4, 4), 7, np.complex64), "complex numbers of 64 bits"),
    ],
)
def test_numbers_that_are_no_colours_are_refused_for_what_they_are(tmp_path, pixels, message):
    photometric = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "n.tif", pixels, photometric=photometric)
    with pytest.raises(ImageError, match=message) as error:
        read_rgb(tmp_path / "n.tif")
    assert "copy or download" not in str(error.value)


def test_32_bits_become_16(tmp_path):
    levels = noise(9, 11, 3, dtype=np.uint16)
    stored = levels.astype(np.uint32) * 65537
    tifffile.imwrite(tmp_path / "u.tif", stored, photometric="rgb")
    np.testing.assert_array_equal(read_rgb(tmp_path / "u.tif"), levels)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_odd_depths_fill_the_range(tmp_path, bits):
    levels = noise(8, 16, dtype=np.uint16) >> (16 - bits)
    levels[0, 0] = 2**bits - 1
    _packed(tmp_path / "o.tif", levels, bits)
    expected = np.round(levels / (2**bits - 1) * 65535)
    np.testing.assert_array_equal(read_rgb(tmp_path / "o.tif")[..., 0], expected)


def _packed(path, levels, bits):
    """A TIFF of `bits` bits a pixel, made by hand: rows of whole bytes."""
    rows = b"".join(
        np.packbits((row[:, None] >> np.arange(bits)[::-1] & 1).astype(np.uint8).ravel()).tobytes()
        for row in levels
    )
    height, width = levels.shape
    tags = [
        (256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8 + 2 + 9 * 12 + 4),
        (277, 1), (278, height), (279, len(rows)),
    ]  # fmt: skip
    directory = struct.pack("<H", len(tags))
    directory += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + rows)


def test_16_bit_cmyk_becomes_rgb(tmp_path):
    rgb = noise(9, 11, 3, dtype=np.uint16)
    inks = np.dstack([65535 - rgb, np.zeros(rgb.shape[:2], np.uint16)])
    tifffile.imwrite(tmp_path / "k.tif", inks, photometric="separated", planarconfig="contig")
    np.testing.assert_array_equal(read_rgb(tmp_path / "k.tif"), rgb)


@pytest.mark.parametrize("tag", ["dng", "cfa"])
def test_raw_files_of_cameras_are_named(tmp_path, tag):
    extra = [(50706, "B", 4, b"\1\4\0\0", True)] if tag == "dng" else None
    tifffile.imwrite(tmp_path / "r.dng", noise(9, 11, 3), photometric="rgb", extratags=extra)
    if tag == "cfa":
        with tifffile.TiffFile(tmp_path / "r.dng", mode="r+b") as tiff:
            tiff.pages.first.tags["PhotometricInterpretation"].overwrite(32803)
    for read in (read_rgb, image_info):
        with pytest.raises(ImageError, match="camera's raw file"):
            read(tmp_path / "r.dng")


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize("gray", [False, True])
def test_16_bit_png_keeps_its_transparent_colour(tmp_path, gray):
    pixels = noise(9, 11, 1 if gray else 3, dtype=np.uint16)
    pixels[2, 3] = 0x1234
    pixels[2, 4] = 0x12FF  # the same high byte: another colour
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", 11, 9, 16, 0 if gray else 2, 0, 0, 0)
    colour = struct.pack(">H", 0x1234) * pixels.shape[2]
    (tmp_path / "t.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"tRNS", colour)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    photo = read_photo(tmp_path / "t.png")
    assert photo.bits == 16 and photo.gray == gray
    assert photo.alpha[0, 2, 3] == 0 and photo.alpha.sum() == 9 * 11 - 1
    np.testing.assert_array_equal(read_rgb(tmp_path / "t.png")[..., 0], pixels[..., 0])


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("top", [65535, 4095])
def test_ppm_of_more_than_8_bits(tmp_path, plain, top):
    levels = noise(5, 7, 3, dtype=np.uint16) & np.uint16(top)
    levels[0, 0, 0] = top
    head = f"P{3 if plain else 6}\n# made by hand\n7 5\n{top}\n".encode()
    body = " ".join(map(str, levels.ravel())).encode() if plain else levels.astype(">u2").tobytes()
    (tmp_path / "a.ppm").write_bytes(head + body)
    expected = np.round(levels.astype(float) * 65535 / top)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.ppm"), expected)
    (tmp_path / "a.ppm").write_bytes(head + body[: len(body) // 2])
    with pytest.raises(ImageError, match="truncated"):
        read_rgb(tmp_path / "a.ppm")


@pytest.mark.parametrize("gray", [False, True])
def test_jpeg_2000_of_16_and_12_bits(tmp_path, gray):
    import imagecodecs

    for bits in (16, 12):
        levels = noise(32, 32, 3, dtype=np.uint16) >> (16 - bits)
        stored = levels[..., 0].copy() if gray else levels
        data = imagecodecs.jpeg2k_encode(stored, level=0, reversible=True, bitspersample=bits)
        (tmp_path / "a.jp2").write_bytes(data)
        expected = np.round(levels[..., 0].astype(float) * 65535 / (2**bits - 1))
        np.testing.assert_array_equal(read_rgb(tmp_path / "a.jp2")[..., 0], expected)


def test_avif_of_10_bits_keeps_them(tmp_path):
    import imagecodecs

    levels = np.arange(1024, dtype=np.uint16).reshape(32, 32, 1).repeat(3, axis=2)
    (tmp_path / "a.avif").write_bytes(imagecodecs.avif_encode(levels, level=100, bitspersample=10))
    photo = read_photo(tmp_path / "a.avif")
    assert photo.bits == 16
    assert len(np.unique(photo.rgb[0].numpy())) > 900
    assert np.abs(photo.rgb.numpy().transpose(1, 2, 0) - levels / 1023).max() < 3 / 1023


def test_heic_is_read_by_its_extra_or_named(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    y, x = np.mgrid[0:64, 0:96]
    pixels = np.stack([x * 2, y * 3, 255 - x * 2], axis=2).astype(np.uint8)
    heif.from_pillow(Image.fromarray(pixels)).save(tmp_path / "a.heic", quality=95)
    assert np.abs(read_rgb(tmp_path / "a.heic").astype(int) - pixels).mean() < 3
    real = builtins.__import__

    def without(name, *args, **options):
        if name == "pillow_heif":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImageError, match="HEIC or HEIF image.*pip install pillow-heif"):
        read_rgb(tmp_path / "a.heic")


def test_the_limit_of_megapixels_can_be_raised(tmp_path, monkeypatch):
    from lit_mimdit.data.image_file import allowed_megapixels

    Image.new("1", (1500, 1000)).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((1000, 1500), np.uint16))
    for name in ("a.png", "a.tif"):
        monkeypatch.setenv("LIT_MIMDIT_MAX_MEGAPIXELS", "1.4")
        with pytest.raises(ImageError, match="1500 x 1000 are 1.5 megapixels.* --max_megapixels"):
            read_rgb(tmp_path / name)
        with allowed_megapixels(1.6):
            assert read_rgb(tmp_path / name).shape == (1000, 1500, 3)
        with pytest.raises(ImageError, match="1.5 megapixels"):
            read_rgb(tmp_path / name)
    monkeypatch.setenv("LIT_MIMDIT_MAX_MEGAPIXELS", "many")
    with pytest.raises(ValueError, match="^LIT_MIMDIT_MAX_MEGAPIXELS is 'many'"):
        read_rgb(tmp_path / "a.png")


def test_frames_and_pages_are_counted(tmp_path):
    frames = [Image.fromarray(noise(8, 9, 3, seed=seed)) for seed in range(3)]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=50)
        assert image_info(tmp_path / name).frames == 3
        assert read_photo(tmp_path / name).metadata.frames == 3
    tifffile.imwrite(tmp_path / "a.tif", noise(2, 8, 9, 3, dtype=np.uint16), photometric="rgb")
    assert read_photo(tmp_path / "a.tif").metadata.frames == 2


@pytest.mark.parametrize("compression", [None, "lzw", "jpeg"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_thumbnail_in_front_of_the_photograph_is_not_taken_for_it(tmp_path, dtype, compression):
    if compression == "jpeg" and dtype == np.uint16:
        pytest.skip("JPEG has 8 bits")
    ramp = np.linspace(0, np.iinfo(dtype).max, 64 * 48).reshape(48, 64, 1).astype(dtype)
    photo = np.repeat(ramp, 3, axis=2)
    with tifffile.TiffWriter(tmp_path / "t.tif") as file:
        file.write(photo[::4, ::4], photometric="rgb", subfiletype=1)
        file.write(photo, photometric="rgb", compression=compression)
    about = image_info(tmp_path / "t.tif")
    read = read_rgb(tmp_path / "t.tif")
    assert (about.height, about.width) == (48, 64) and read.shape == (48, 64, 3)
    np.testing.assert_allclose(read, photo, atol=3 if compression == "jpeg" else 0)
