"""Tests that photographs of every kind become the same uint8 RGB array, and that nothing is guessed."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.errors import InputError
from deconvnet_jax.photographs import as_photograph, is_image_like, reduced_to

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (6, 9, 3)).astype(np.uint8)


def test_rgb_arrays_stay_themselves(image):
    assert as_photograph(image) is image


def test_grey_arrays_get_three_equal_channels(image):
    grey = image[..., 0]
    for array in (grey, grey[..., None]):
        np.testing.assert_array_equal(as_photograph(array), np.dstack([grey] * 3))


def test_transparency_is_shown_on_white():
    image = np.array([[(*RED, 255), (*RED, 0), (*BLUE, 51)]], np.uint8)
    expected = [[RED, (255, 255, 255), (204, 204, 255)]]  # 51 of 255 is a fifth.
    assert as_photograph(image).tolist() == np.array(expected).tolist()
    assert as_photograph(Image.fromarray(image)).tolist() == np.array(expected).tolist()
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    assert as_photograph(file).tolist() == np.array(expected).tolist()


def test_opaque_pixels_are_exact(image):
    opaque = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(as_photograph(opaque), image)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "La", "CMYK", "YCbCr", "HSV"]
)
def test_pillow_images_of_any_mode(mode):
    premultiplied = {"RGBa": "RGBA", "La": "LA"}
    picture = Image.new("RGB", (9, 6), "white").convert(premultiplied.get(mode, mode)).convert(mode)
    assert (as_photograph(picture) == 255).all()
    assert as_photograph(picture).shape == (6, 9, 3)


def test_a_transparent_colour_of_a_palette():
    picture = Image.new("P", (2, 1))
    picture.putpalette([*RED, *GREEN])
    picture.putpixel((1, 0), 1)
    picture.info["transparency"] = 1
    assert as_photograph(picture).tolist() == [[list(RED), [255, 255, 255]]]


def test_pillow_images_are_turned_upright():
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[:, :3] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(np.rot90(upright)).save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(as_photograph(Image.open(file)), upright)
    np.testing.assert_array_equal(as_photograph(file), upright)


def test_files(image, tmp_path):
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(as_photograph(tmp_path / "a.png"), image)
    np.testing.assert_array_equal(as_photograph(str(tmp_path / "a.png")), image)
    with (tmp_path / "a.png").open("rb") as file:
        np.testing.assert_array_equal(as_photograph(file), image)


def test_arrays_of_other_libraries(image):
    np.testing.assert_array_equal(as_photograph(jnp.asarray(image)), image)
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(as_photograph(torch.from_numpy(image)), image)
    with pytest.raises(InputError, match=r"channels first; .* np\.moveaxis\(np\.asarray\(image\), 0, -1\)"):
        as_photograph(torch.from_numpy(image).permute(2, 0, 1))
    with pytest.raises(InputError, match="NumPy cannot read the Tensor"):
        as_photograph(torch.zeros((6, 9, 3), requires_grad=True))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.full((4, 5, 3), 0.5), r"got float64; convert values from 0 to 1 with \(image \* 255\)\.round\(\)\.astype"),
        (np.full((4, 5, 3), 200.0), r"got float64; convert values from 0 to 255 with image\.round\(\)\.astype"),
        (np.full((4, 5, 3), -1.0), "negative values: give the photograph as it was before normalisation"),
        (np.full((4, 5, 3), np.nan), "got float64; it has values that are infinite or NaN: give"),
        (np.full((4, 5, 3), np.inf), "got float64; it has values that are infinite or NaN: give"),
        (jnp.full((4, 5, 3), 0.5), r"with \(np\.asarray\(image\) \* 255\)\.round\(\)\.astype\(np\.uint8\)"),
        (np.arange(20).reshape(4, 5) % 2, "got int64; it has the values 0 and 1 only, like a mask: give the pixels"),
        (io.StringIO("text"), r'the file is open in text mode; open it in binary mode: open\(path, "rb"\)'),
        (np.full((4, 5), 40_000, np.uint16), "its largest value is 40000: scale it"),
        (np.full((4, 5), 255, np.int64), "got int64; convert values from 0 to 255"),
        (np.zeros((4, 5), bool), "got bool; give the pixels of a photograph"),
        (np.zeros((4, 5), object), "got object; give the pixels of a photograph"),
        (
            np.zeros((3, 40, 50), np.uint8),
            r"\[3, 40, 50\] has its channels first; expected \[height",
        ),
        (np.zeros((2, 40, 50, 3), np.uint8), r"\[2, 40, 50, 3\] holds several images; give them as a list"),
        (np.zeros((4, 5, 2), np.uint8), r"\[4, 5, 2\] is no image"),
        (np.zeros(5, np.uint8), r"\[5\] is no image"),
        (np.zeros((0, 5, 3), np.uint8), "at least one pixel"),
        (Image.new("I;16", (5, 4)), "the Pillow image has more than 8 bits per channel"),
        (Image.new("F", (5, 4)), "the Pillow image has more than 8 bits per channel"),
        (Image.new("LAB", (5, 4)), "the Pillow image has the colour mode LAB"),
        (b"\x89PNG", r"bytes is no photograph; .* give io\.BytesIO"),
        (7, "int is no photograph; expected a path, a Pillow image or an array"),
        (None, "NoneType is no photograph"),
        ("gs://bucket/a.jpg", "is an address; expected a path"),
        ("missing.jpg", r"no image missing\.jpg in .*; correct the name"),
        ("", "image is empty"),
    ],
)
def test_nothing_is_guessed(given, message):
    with pytest.raises(InputError, match=message) as caught:
        as_photograph(given)
    assert "\n" not in str(caught.value)


def test_folders_and_damaged_files(tmp_path, image):
    with pytest.raises(InputError, match=r"is a folder; give its files, such as sorted\(Path"):
        as_photograph(tmp_path)
    Image.fromarray(image.repeat(50, 0)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-200])
    with pytest.raises(InputError, match=r"a\.jpg is not a complete image file"):
        as_photograph(tmp_path / "a.jpg")
    with (
        Image.open(tmp_path / "a.jpg") as picture,
        pytest.raises(InputError, match=r"the Pillow image cannot be read \(.*truncated"),
    ):
        as_photograph(picture)
    with pytest.raises(InputError, match=r"the Pillow image cannot be read \(.*\); open or make it again"):
        as_photograph(picture)


def test_one_photograph_or_several(image, tmp_path):
    single = ["a.jpg", tmp_path, image, jnp.asarray(image), Image.fromarray(image), io.BytesIO(), b"\x89PNG"]
    assert all(map(is_image_like, single))
    several = [[image], (image,), iter([image]), {"a": image}, map(str, [])]
    assert not any(map(is_image_like, several))


def test_large_photographs_are_reduced(image):
    assert reduced_to(image, 9) is image
    assert reduced_to(image.repeat(100, 0).repeat(100, 1), 90).shape == (60, 90, 3)
    assert reduced_to(np.zeros((1, 500, 3), np.uint8), 100).shape == (1, 100, 3)
