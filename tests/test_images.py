"""Tests reading of images, of damaged ones and of other files: the result is pixels or one line of error."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from deconvnet_jax.errors import InputError
from deconvnet_jax.images import image_orientation, image_size, read_image, read_mask, save_picture

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n"


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, content, *chunks):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", content), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encoded(array, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.eps", "photo.tif"])
@pytest.mark.parametrize("start", [b"", b"\xc5\xd0\xd3\xc6" + struct.pack("<7I", 32, 80, 0, 0, 0, 0, 0)])
def test_postscript_never_reaches_an_interpreter(tmp_path, monkeypatch, name, start):
    interpreter = tmp_path / "gs"
    interpreter.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    interpreter.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / name).write_bytes(start + EPS)
    for read in (read_image, read_mask, image_size):
        with pytest.raises(InputError, match=rf"{name} is a PostScript file; expected an image in JPEG, "):
            read(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"%PDF-1.7\n", "a PDF document"),
        (b"8BPS\0\1", "a Photoshop document"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC or AVIF picture"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "a HEIC or AVIF picture"),
        (b"\0\0\0\x18ftypmp42", "a video"),
        (b"II*\0\x10\0\0\0CR\2\0", "a camera's raw file"),
        (b"FUJIFILMCCD-RAW 0201", "a camera's raw file"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
        (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg">', "an SVG drawing"),
        (b"\n<!DOCTYPE html><html><body>404", "a web page"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X        ", "a hidden file that macOS writes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"PK\3\4\x14\0", "a zip archive"),
        (bytes(200), "all zeros"),
        (b"", "empty"),
        (b"hello", r"not a complete image file \(it is not JPEG"),
        (b"\xff\xd8\xff\xe0\0", r"not a complete image file"),
    ],
)
def test_other_kinds_are_named(tmp_path, head, kind):
    path = tmp_path / "photo.jpg"
    path.write_bytes(head)
    with pytest.raises(InputError, match=rf"photo\.jpg is {kind}"):
        read_image(path)


def test_raw_files_in_tiff_and_several_pages(tmp_path, rng):
    pages = [Image.fromarray(rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)) for _ in range(3)]
    pages[0].save(tmp_path / "thumbnail.tif", tiffinfo={254: 1})
    pages[0].save(tmp_path / "negative.tif", tiffinfo={50706: b"\1\4\0\0"})
    for name in ("thumbnail", "negative"):
        with pytest.raises(InputError, match=rf"{name}\.tif is a camera.s raw file"):
            read_image(tmp_path / f"{name}.tif")
    for suffix in ("tif", "gif", "webp", "png"):
        path = tmp_path / f"pages.{suffix}"
        pages[0].save(path, save_all=True, append_images=pages[1:])
        with pytest.raises(InputError, match=rf"pages\.{suffix} has several frames or pages; save the one"):
            read_image(path)
        pages[0].save(path)
        assert read_image(path).shape == (20, 30, 3)


def test_smaller_copies_in_a_tiff_are_no_pages(tmp_path, rng):
    large = Image.fromarray(rng.integers(0, 256, (20, 30, 3)).astype(np.uint8))
    small = large.resize((15, 10))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    large.save(tmp_path / "map.tif", save_all=True, append_images=[small])
    np.testing.assert_array_equal(read_image(tmp_path / "map.tif"), np.asarray(large))


def test_several_pictures_in_the_jpeg_of_a_telephone(tmp_path, rng):
    photograph = Image.fromarray(rng.integers(0, 256, (20, 30, 3)).astype(np.uint8))
    photograph.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[photograph.resize((4, 4))])
    assert read_image(tmp_path / "a.jpg").shape == (20, 30, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_upright(tmp_path, kind):
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[:, :32] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(upright)).save(tmp_path / "turned", kind, exif=exif)
    np.testing.assert_allclose(read_image(tmp_path / "turned", upright=True), upright, atol=2)
    assert image_orientation(tmp_path / "turned") == exif[0x0112]


def test_transparency_and_palettes(rng):
    grey = np.repeat(rng.integers(0, 256, (6, 8, 1)).astype(np.uint8), 3, axis=2)
    for mode in ("L", "P", "RGBA", "LA"):
        file = io.BytesIO()
        Image.fromarray(grey).convert(mode).save(file, "PNG", **({"transparency": bytes(99)} if mode == "P" else {}))
        found = read_image(file)
        assert found.dtype == np.uint8
        if mode != "P":
            np.testing.assert_array_equal(found, grey)


@pytest.mark.parametrize("channels", [1, 3])
def test_photographs_of_16_bits_are_refused(tmp_path, rng, channels):
    """Pillow would silently drop the lower 8 bits of colour images."""
    path = tmp_path / "deep.png"
    picture = rng.integers(0, 2**16, (20, 30, channels)).astype(np.uint16)
    assert cv2.imwrite(str(path), picture)
    with pytest.raises(InputError, match=r"deep\.png has more than 8 bits per channel; save it as an 8-bit image"):
        read_image(path)


def test_bitmaps_of_five_bits_are_read(tmp_path):
    header = b"BM" + struct.pack("<IHHI", 54 + 12 + 4 * 2, 0, 0, 66)
    header += struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 3, 8, 0, 0, 0, 0) + struct.pack("<3I", 0xF800, 0x7E0, 0x1F)
    (tmp_path / "a.bmp").write_bytes(header + struct.pack("<4H", 0xF800, 0x7E0, 0x1F, 0xFFFF))
    assert read_image(tmp_path / "a.bmp").tolist()[0] == [[0, 0, 255], [255, 255, 255]]


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_too_many_pixels_is_no_damage(tmp_path, read, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    Image.new("1", (14_000, 13_000)).save(tmp_path / "aerial.png")
    with pytest.raises(InputError, match=r"aerial\.png has too many pixels.*; .* allowed: cut it into tile"):
        read(tmp_path / "aerial.png")
    assert image_size_is_refused(tmp_path / "aerial.png")


def image_size_is_refused(path):
    with pytest.raises(InputError, match="too many"):
        image_size(path)
    return True


def test_size_is_compared_with_the_bytes(tmp_path):
    """Files of kilobytes that claim hundreds of millions of pixels are refused before memory is allocated."""
    (tmp_path / "claims.png").write_bytes(png(13_000, 13_000, zlib.compress(bytes(100))))
    with pytest.raises(InputError, match=r"not a complete image file \(\d+ bytes are too few for 13000x13000 pixels"):
        read_mask(tmp_path / "claims.png")
    (tmp_path / "claims.ppm").write_bytes(b"P6 13000 13000 255\n" + bytes(1000))
    with pytest.raises(InputError, match="bytes are too few"):
        read_image(tmp_path / "claims.ppm")


def test_bombs_in_texts_and_profiles(tmp_path):
    bomb = zlib.compress(bytes(100 << 20))
    pixels = zlib.compress(bytes(5 * 4))
    for name, content in ((b"zTXt", b"a\0\0" + bomb), (b"iCCP", b"a\0\0" + bomb), (b"iTXt", b"a\0\1\0\0\0" + bomb)):
        (tmp_path / "a.png").write_bytes(png(4, 5, pixels, chunk(name, content)))
        with contextlib.suppress(InputError):
            assert read_mask(tmp_path / "a.png").shape == (5, 4)


def test_every_flipped_bit_of_a_png_is_noticed_or_harmless(rng):
    """Pillow does not compare checksums of pixels; a third of such flips would give other class ids."""
    mask = rng.integers(0, 21, (20, 30)).astype(np.uint8)
    whole = encoded(mask)
    refused = 0
    for place in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        try:
            np.testing.assert_array_equal(read_mask(io.BytesIO(bytes(damaged))), mask)
        except InputError:
            refused += 1
    assert refused > 0.9 * 8 * len(whole)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM"])
def test_half_a_file_is_refused_whatever_other_code_allows(rng, monkeypatch, kind):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole = encoded(rng.integers(0, 256, (40, 50, 3)).astype(np.uint8), kind)
    with pytest.raises(InputError, match="is not a complete image file"):
        read_image(io.BytesIO(whole[: len(whole) // 2]))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "jpeg", "packbits"])
def test_damaged_tiffs_end_in_one_line(rng, compression):
    options = {"compression": compression} if compression else {}
    whole = encoded(rng.integers(0, 256, (16, 20, 3)).astype(np.uint8), "TIFF", **options)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(0, 256)
        with contextlib.suppress(InputError):
            assert read_image(io.BytesIO(bytes(damaged))).dtype == np.uint8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_masks_of_8_and_16_bits(tmp_path, rng, dtype):
    ids = rng.integers(0, 21, (20, 30)).astype(dtype)
    ids[0, 0] = 255
    assert cv2.imwrite(str(tmp_path / "mask.png"), ids)
    found = read_mask(tmp_path / "mask.png")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, ids)


def test_16_bits_with_larger_numbers(tmp_path):
    assert cv2.imwrite(str(tmp_path / "mask.png"), np.array([[0, 400]], np.uint16))
    with pytest.raises(InputError, match=r"16-bit mask with numbers up to 400; expected class ids in 8 bits"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_are_no_masks(tmp_path, mode):
    Image.new(mode, (3, 2)).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=f"is a mask in PNG, mode {mode}; expected an indexed"):
        read_mask(tmp_path / "mask.png")


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(InputError, match=r"a\.jpg cannot be read \(No such file"):
        read_image(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(InputError, match=r"a\.jpg cannot be read \(Is a directory"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("call", ["Image.open(", "builder_from_directory(", "pickle.load", "allow_pickle=True"])
def test_files_of_strangers_have_one_way_in(call):
    root = Path(__file__).parents[1]
    found = [path for part in ("deconvnet_jax", "experiments") for path in (root / part).rglob("*.py")]
    using = [path.name for path in found if call in path.read_text()]
    assert using == (["images.py"] if call == "Image.open(" else [])


def test_pictures_are_whole_or_absent(tmp_path, monkeypatch):
    picture = np.zeros((4, 4, 3), np.uint8)
    save_picture(tmp_path / "new/a.jpg", picture)
    with Image.open(tmp_path / "new/a.jpg") as image:
        assert image.size == (4, 4)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(InputError, match=r"a\.jpg could not be written \(No space left on device\); free disk space"):
        save_picture(tmp_path / "new/a.jpg", picture + 1)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.jpg"]
