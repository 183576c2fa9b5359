"""Prediction: the command as people run it, and its functions for what can go wrong."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.errors import InputError
from deconvnet_jax.inference import Segmenter
from experiments import predict

ROOT = Path(__file__).resolve().parents[2]


def write_image(path, size=(60, 40), color=(200, 120, 40), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)
    return path


def test_command(tiny_run, tmp_path, rng):
    noise = rng.integers(0, 256, (90, 120, 3)).astype(np.uint8)
    good = tmp_path / "photos/noise.png"
    good.parent.mkdir()
    Image.fromarray(noise).save(good)
    broken = write_image(tmp_path / "photos/broken.jpg", (300, 200))
    broken.write_bytes(broken.read_bytes()[:800])
    single = write_image(tmp_path / "one.jpg")
    output = tmp_path / "out"
    words = [sys.executable, "-m", "experiments.predict", str(single), str(tmp_path / "photos")]
    words += [f"--checkpoint={tiny_run.folder}", f"--output={output}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {broken}: not a complete image")
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [str(single), str(good)]
    assert all("%" in line for line in lines)
    assert str(output / "noise.png") in lines[1]
    assert sorted(path.name for path in output.iterdir()) == [
        "noise.png",
        "noise_overlay.jpg",
        "one.png",
        "one_overlay.jpg",
    ]
    with Image.open(output / "noise.png") as labels:
        assert labels.mode == "P"
        np.testing.assert_array_equal(np.asarray(labels), Segmenter.from_checkpoint(tiny_run.folder)(noise).labels)
    with Image.open(output / "noise_overlay.jpg") as panel:
        assert panel.width > 3 * panel.height


def test_exif_orientation(tmp_path):
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:, :30] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned to the left, to be turned to the right
    Image.fromarray(np.rot90(upright)).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(predict.read_photograph(tmp_path / "turned.png"), upright)


def test_any_color_mode(tmp_path):
    for mode in ("L", "P", "RGBA", "CMYK", "1", "LA"):
        path = tmp_path / f"{mode}.tif"
        Image.new("RGB", (20, 10), (255, 255, 255)).convert(mode).save(path)
        image = predict.read_photograph(path)
        assert image.shape == (10, 20, 3)
        assert image.dtype == np.uint8
        assert (image > 250).all()


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("deep.png", np.full((10, 10), 40_000, np.uint16), "mode I;16; convert it to 8 bits"),
        ("float.tif", np.zeros((10, 10), np.float32), "mode F; convert"),
    ],
)
def test_deep_images_are_refused(tmp_path, name, array, message):
    Image.fromarray(array).save(tmp_path / name)
    with pytest.raises(InputError, match=message):
        predict.read_photograph(tmp_path / name)


def test_gigantic_image_is_refused(tmp_path, monkeypatch):
    path = write_image(tmp_path / "large.png", (300, 200))
    monkeypatch.setattr(predict, "MAX_PIXELS", 50_000)
    with pytest.raises(InputError, match="has 300x200 pixels; reduce it to 50,000"):
        predict.read_photograph(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    with pytest.raises(InputError, match="has too many pixels"):
        predict.read_photograph(path)


def test_text_is_no_image(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(InputError, match="not a complete image"):
        predict.read_photograph(tmp_path / "text.jpg")


def test_a_tiny_image_stops_nothing(tiny_run, tmp_path, capsys):
    images = [write_image(tmp_path / "a.png", (4, 4)), write_image(tmp_path / "b.png")]
    assert predict.run(tiny_run.folder, tmp_path / "out", [str(path) for path in images]) == 1
    out, err = capsys.readouterr()
    assert f"error: {images[0]}: the image is 4x4 pixels" in err
    assert out.startswith(f"{images[1]}: ")


def test_files_and_folders(tmp_path):
    inside = [write_image(tmp_path / "folder" / name) for name in ("a.JPG", "b.png", "c.webp")]
    (tmp_path / "folder/notes.txt").write_text("")
    single = write_image(tmp_path / "z.jpg")
    assert predict.find_images([str(single), str(tmp_path / "folder"), str(inside[0])]) == [single, *inside]


def test_equal_names_get_numbers(tmp_path):
    images = [tmp_path / name for name in ("a/x.jpg", "b/x.png", "c/X.jpg", "x_2.jpg")]
    names = predict.result_names(images, tmp_path / "out")
    assert names == ["x", "x_2", "X_3", "x_2_2"]


def test_inputs_are_not_overwritten(tmp_path):
    image = write_image(tmp_path / "cat.png")
    with pytest.raises(InputError, match=r"overwrite the image .*cat\.png; choose another --output"):
        predict.result_names([image], tmp_path)
    assert predict.result_names([tmp_path / "cat.jpg"], tmp_path) == ["cat"]


def test_describe():
    labels = np.array([[0, 0, 0, 2]], np.uint8)
    assert predict.describe(labels, ["background", "cat", "dog"]) == "background 75.0 %, dog 25.0 %"


def test_unusable_arguments(tiny_run, tmp_path):
    image = str(write_image(tmp_path / "a.jpg"))
    (tmp_path / "empty").mkdir()
    for message, arguments in {
        "no image given": (tiny_run.folder, tmp_path / "out", []),
        "no file or folder .*missing.jpg": (tiny_run.folder, tmp_path / "out", [str(tmp_path / "missing.jpg")]),
        "no image in the folder .*empty": (tiny_run.folder, tmp_path / "out", [str(tmp_path / "empty")]),
        "--output=.*a.jpg cannot be a folder": (tiny_run.folder, image, [image]),
        "no checkpoint in": (tmp_path, tmp_path / "out", [image]),
    }.items():
        with pytest.raises(InputError, match=message):
            predict.run(*arguments)
