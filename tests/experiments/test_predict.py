"""Prediction: the command as people run it, and its functions for what can go wrong."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from programs import run_program

from deconvnet_jax.data import write_proposals
from deconvnet_jax.errors import InputError
from deconvnet_jax.images import read_photograph
from deconvnet_jax.inference import Result, Segmenter
from deconvnet_jax.proposals.files import Proposals
from deconvnet_jax.visualization import result_panel
from experiments.common import photographs
from experiments.configs import default
from experiments.tasks import predict

pytestmark = pytest.mark.end_to_end

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
    words = [single, tmp_path / "photos", f"--checkpoint={tiny_run.folder}", f"--output={output}"]
    done = run_program("predict", *words)

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {broken} is not a complete image")
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
    np.testing.assert_array_equal(read_photograph(tmp_path / "turned.png"), upright)


def test_any_color_mode(tmp_path):
    for mode in ("L", "P", "RGBA", "CMYK", "1", "LA"):
        path = tmp_path / f"{mode}.tif"
        Image.new("RGB", (20, 10), (255, 255, 255)).convert(mode).save(path)
        image = read_photograph(path)
        assert image.shape == (10, 20, 3)
        assert image.dtype == np.uint8
        assert (image > 250).all()


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("deep.png", np.full((10, 10), 40_000, np.uint16), "more than 8 bits per channel"),
        ("float.tif", np.zeros((10, 10), np.float32), "more than 8 bits per channel"),
    ],
)
def test_deep_images_are_refused(tmp_path, name, array, message):
    Image.fromarray(array).save(tmp_path / name)
    with pytest.raises(InputError, match=message):
        read_photograph(tmp_path / name)


def test_gigantic_image_is_refused(tmp_path, monkeypatch):
    path = write_image(tmp_path / "large.png", (300, 200))
    with pytest.raises(
        InputError,
        match=r"has too many pixels \(300x200\); 50,000 are allowed: reduce it, or raise --max_pixels",
    ):
        read_photograph(path, 50_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)  # Pillow's own limit: half of what it refuses
    with pytest.raises(InputError, match="has too many pixels"):
        read_photograph(path, 20_000)
    assert read_photograph(path, 60_000).shape == (200, 300, 3)


def test_text_is_no_image(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(InputError, match="not a complete image"):
        read_photograph(tmp_path / "text.jpg")


def test_garbage_in_a_folder(tiny_run, tmp_path, capsys, rng):
    """What is an image is segmented, what is not gets one line, and all failures are listed at the end."""
    folder = tmp_path / "photos"
    pixel = write_image(folder / "a_pixel.png", (1, 1))
    wide = write_image(folder / "b_wide.png", (20_000, 3))
    Image.fromarray(rng.integers(0, 256, (30, 40)).astype(np.uint8)).save(folder / "c_grey.png")
    Image.fromarray(rng.integers(0, 256, (30, 40, 4)).astype(np.uint8)).save(folder / "d_rgba.png")
    Image.fromarray(rng.integers(0, 256, (30, 40, 4)).astype(np.uint8), mode="CMYK").save(folder / "e_cmyk.jpg")
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(folder / "f_deep.png")
    truncated = write_image(folder / "g_truncated.jpg", (300, 200))
    truncated.write_bytes(truncated.read_bytes()[:800])
    (folder / "h_text.jpg").write_text("no image")
    (folder / "i_empty.png").write_bytes(b"")
    good = write_image(folder / "j_good.jpg")
    assert predict.run(tiny_run.folder, tmp_path / "out", [str(folder)]) == 4
    out, err = capsys.readouterr()
    done = [Path(line.split(": ")[0]).name for line in out.splitlines() if "%" in line]
    assert done == [pixel.name, wide.name, "c_grey.png", "d_rgba.png", "e_cmyk.jpg", good.name]
    *lines, last = (line for line in err.splitlines() if line.startswith("error: "))
    assert [line.split()[1] for line in lines] == [str(folder / name) for name in FAILED]
    assert last.startswith("error: 4 of 10 images failed: ")
    assert all(name in last for name in FAILED)
    with Image.open(tmp_path / "out/b_wide.png") as labels:
        assert labels.size == (20_000, 3)


def test_one_bad_item_never_ends_the_rest(tiny_run, tmp_path, capsys, monkeypatch):
    """Names, links, folders, images that the network cannot take, results that cannot be written."""
    folder, output = tmp_path / "photos", tmp_path / "out"
    for name in ("a.jpg", "b_odd.jpg", "d.jpg", "e_taken.jpg", f"{'f' * 245}.jpg", "z.jpg"):
        write_image(folder / name)
    write_image(folder / "b_odd.jpg", (33, 44))
    (folder / "._a.jpg").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    (folder / "c_nowhere.jpg").symlink_to(tmp_path / "nothing")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "g.jpg").mkdir()
    (output / "e_taken.png/x").mkdir(parents=True)
    prepare = Segmenter._prepare

    def fails_for_one(segmenter, image, proposals):
        if image.shape == (44, 33, 3):
            raise InputError("no proposal was found")
        return prepare(segmenter, image, proposals)

    monkeypatch.setattr(Segmenter, "_prepare", fails_for_one)
    assert predict.run(tiny_run.folder, output, [str(folder)]) == 5
    out, err = capsys.readouterr()
    done = [line.split(": ")[0] for line in out.splitlines() if "%" in line]
    assert done == [str(folder / name) for name in ("a.jpg", "d.jpg", "z.jpg")]
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert f"error: {folder / 'b_odd.jpg'}: no proposal was found" in lines
    assert any("c_nowhere.jpg cannot be read (No such file or directory)" in line for line in lines)
    assert any("loop.jpg cannot be read (" in line for line in lines)
    assert any("e_taken.png could not be written" in line for line in lines)
    assert any("f_overlay.jpg would be longer than the 255 bytes of a file name; rename" in line for line in lines)
    assert lines[-1].startswith("error: 5 of 8 images failed: ")
    assert [path.name for path in output.iterdir() if path.name.startswith(".")] == []


def test_names_that_are_no_text_are_printed(tiny_run, tmp_path):
    folder = tmp_path / "photos"
    write_image(folder / os.fsdecode(b"M\xfcnchen.jpg"))
    words = [sys.executable, "-m", "experiments.predict", f"--checkpoint={tiny_run.folder}", str(folder)]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([*words, f"--output={tmp_path}/out"], cwd=ROOT, capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"M\\udcfcnchen.jpg: " in done.stdout
    assert (tmp_path / "out" / os.fsdecode(b"M\xfcnchen_overlay.jpg")).exists()


FAILED = ("f_deep.png", "g_truncated.jpg", "h_text.jpg", "i_empty.png")


def test_ways_of_segmenting(tiny_run, tmp_path, rng, capsys):
    """The checkpoint's own, a config's, and what the command line changes; proposals from a file, too."""
    image = rng.integers(0, 256, (60, 80, 3)).astype(np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path)
    few = {"inference.mode": "paper", "inference.num_proposals": 2, "inference.proposals": "grid"}
    predict.run(tiny_run.folder, tmp_path / "few", [str(path)], changes=few)
    expected = Segmenter.from_checkpoint(tiny_run.folder, mode="paper", num_proposals=2, proposals="grid")(image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "few/a.png")), expected.labels)

    file = tmp_path / "proposals.npz"
    boxes = np.array([[5, 5, 50, 50]], np.float32)
    write_proposals(file, Proposals(["a"], [boxes], [np.ones(1, np.float32)], {}))
    config = default.get_config()
    config.inference.proposals = str(file)
    predict.run(tiny_run.folder, tmp_path / "file", [str(path)], config=config)
    expected = Segmenter.from_checkpoint(tiny_run.folder, mode="paper")(image, boxes)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "file/a.png")), expected.labels)
    other = write_image(tmp_path / "other.png")
    assert predict.run(tiny_run.folder, tmp_path / "file", [str(other)], config=config) == 1
    assert "has no proposals for 1 of 1 images, among them 'other'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--config.inference.mod=paper", "no such setting: inference.mod; did you mean inference.mode?"),
        ("--config.inference.mode=papers", "inference.mode='papers': expected one of paper, released"),
        ("--config.inference.ensemble_checkpoint=/nowhere", "no checkpoint in /nowhere"),
    ],
)
def test_wrong_settings_are_one_line(tiny_run, tmp_path, word, message):
    image = write_image(tmp_path / "a.png")
    words = [f"--checkpoint={tiny_run.folder}", word, f"--output={tmp_path}/out", image]
    done = run_program("predict", *words)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


def test_files_and_folders(tmp_path):
    inside = [write_image(tmp_path / "folder" / name) for name in ("a.JPG", "b.png", "c.webp")]
    (tmp_path / "folder/notes.txt").write_text("")
    single = write_image(tmp_path / "z.jpg")
    assert photographs.find_images([str(single), str(tmp_path / "folder"), str(inside[0])]) == [single, *inside]


def test_equal_names_get_numbers(tmp_path):
    images = [tmp_path / name for name in ("a/x.jpg", "b/x.png", "c/X.jpg", "x_2.jpg")]
    names = photographs.result_names(images, tmp_path / "out")
    assert names == ["x", "x_2", "X_3", "x_2_2"]


def test_inputs_are_not_overwritten(tmp_path):
    image = write_image(tmp_path / "cat.png")
    with pytest.raises(InputError, match=r"overwrite the image .*cat\.png; choose another --output"):
        photographs.result_names([image], tmp_path)
    assert photographs.result_names([tmp_path / "cat.jpg"], tmp_path) == ["cat"]


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


def test_results_of_many_classes(tmp_path):
    """Ids above 255 reach the file, the overlay and the description."""
    image, labels = np.zeros((30, 40, 3), np.uint8), np.full((30, 40), 400, np.uint16)
    labels[:, :10] = 255
    job = predict._Job(tmp_path / "a.jpg", "a", image, None)
    names = [f"class {i}" for i in range(459)]
    result = Result(labels, np.zeros((30, 40, 459), np.float32), np.zeros((0, 4), np.float32), image, names)
    line = predict.write_results(job, result, tmp_path)
    assert "class 400 75.0 %, class 255 25.0 %" in line
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), labels)


@pytest.mark.parametrize("drawing", [{}, {"palette": "colour_blind", "names": True}])
def test_palette_and_names_reach_the_overlay(tmp_path, drawing):
    """The label map keeps VOC's palette, because other programs read it."""
    image, labels = np.full((240, 320, 3), 128, np.uint8), np.full((240, 320), 1, np.uint8)
    names = ("background", "cat")
    job = predict._Job(tmp_path / "a.jpg", "a", image, None)
    result = Result(labels, np.zeros((240, 320, 2), np.float32), np.zeros((0, 4), np.float32), image, names)
    predict.write_results(job, result, tmp_path, **drawing)
    expected = result_panel(image, labels, names, **drawing).astype(int)
    with Image.open(tmp_path / "a_overlay.jpg") as panel:
        assert np.abs(np.asarray(panel) - expected).mean() < 2
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.getpalette()[3:6] == [128, 0, 0]


def test_a_fresh_python_prints_nothing(tiny_run, tmp_path):
    """Neither absl, Orbax nor JAX print messages when a network is loaded, used and saved; logging stays as it was."""
    Image.new("RGB", (30, 40)).save(tmp_path / "a.png")
    script = f"""
import logging
from deconvnet_jax import Segmenter
from deconvnet_jax.weights import save_network
segmenter = Segmenter.from_checkpoint({str(tiny_run.folder)!r})
segmenter({str(tmp_path / "a.png")!r})
save_network({str(tmp_path / "saved")!r}, segmenter.net, segmenter.variables, {{"class_names": segmenter.class_names}})
Segmenter.from_checkpoint({str(tmp_path / "saved")!r})
print(logging.getLogger().level, logging.getLogger().handlers)
logging.warning("mine")
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stderr == "WARNING:root:mine\n"
    assert done.stdout.startswith("30 [")


def test_classes_of_less_than_half_a_thousandth_are_not_named(tmp_path):
    labels = np.zeros((100, 100), np.uint8)
    labels[0, 0], labels[1, :10] = 1, 2
    image = np.zeros((100, 100, 3), np.uint8)
    scores, boxes = np.zeros((100, 100, 3), np.float32), np.zeros((0, 4), np.float32)
    result = Result(labels, scores, boxes, image, ("background", "boat", "cat"))
    job = predict._Job(tmp_path / "a.jpg", "a", image, None)
    line = predict.write_results(job, result, tmp_path)
    assert line.startswith(f"{tmp_path / 'a.jpg'}: background 99.9 %, cat 0.1 % -> ")
