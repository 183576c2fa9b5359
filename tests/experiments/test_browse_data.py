"""The contact sheet and its numbers agree with a count by hand; unusable data is refused."""

import json
import re
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from programs import run_program

from deconvnet_jax.data import instance_boxes, open_split, prepare_voc_layout, write_scenes
from deconvnet_jax.errors import InputError
from experiments.common import dataset, training
from experiments.configs import default, settings
from experiments.tasks import browse_data

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six scenes with the proposals of their training split."""
    folder = tmp_path_factory.mktemp("browse")
    write_scenes(folder / "scenes", train=6, val=1, seed=2)
    builder = prepare_voc_layout(folder / "scenes", folder / "tfds")
    dataset.compute_packed_proposals(builder, "train", "gradient", processes=1)
    return folder


def config_of(folder, **data):
    config = default.get_config()
    config.data.voc_root, config.data.data_dir = str(folder / "scenes"), str(folder / "tfds")
    config.data.update(data)
    return config


def test_the_sheet_shows_crops_turned_and_coloured_as_in_training(folder):
    augmented = {"rotation": 30.0, "brightness": 0.4, "hue": 0.1}
    found, plain = (
        dataset.open_training_data(settings.checked(config_of(folder, label_mode="all", **more)))
        for more in (augmented, {})
    )
    shown = browse_data.first_crops(found, 4)
    with closing(found.batches(2)) as batches:
        trained = [next(batches) for _ in range(2)]
    for key in ("image", "label"):
        np.testing.assert_array_equal(shown[key], np.concatenate([batch[key] for batch in trained]))
        assert (shown[key] != browse_data.first_crops(plain, 4)[key]).any()


def test_statistics_and_sheet(folder, tmp_path, capsys):
    found = browse_data.run(config_of(folder, balance=1.0), str(tmp_path / "out"), count=10, sample=60)
    split = open_split(prepare_voc_layout(folder / "scenes", folder / "tfds"), "train")
    objects = [instance_boxes(example.label, example.instances) for example in split]
    counts = np.bincount(np.concatenate([one.class_ids for one in objects]), minlength=6)
    assert [row["windows"] for row in found["classes"].values()] == counts.tolist()
    assert {row["windows_with_repetitions"] for row in found["classes"].values() if row["windows"]} == {counts.max()}
    assert found["windows"] == counts.sum()
    assert found["images"] == 6
    assert found["images_without_windows"] == 0
    assert sum(row["pixels"] for row in found["classes"].values()) == pytest.approx(1, abs=1e-4)
    assert 0 <= found["ignored_pixels"] < 0.5
    sides = [1.2 * max(box[2:] - box[:2]) for one in objects for box in one.boxes]
    assert found["boxes"]["side_pixels"][2] == pytest.approx(np.median(sides), abs=0.1)
    assert min(found["boxes"]["share_outside"]) >= 0
    with Image.open(found["picture"]) as picture:
        assert picture.width > 224 * 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{counts.sum()} windows in 6 images" in captured.err


def test_whole_images_have_no_counts_of_windows(folder, tmp_path, capsys):
    config = config_of(folder, windows=("image",), label_mode="all")
    browse_data.run(config, str(tmp_path / "out"), count=2, sample=6)
    table = capsys.readouterr().err
    assert "pixels of crops" in table
    assert "with repetitions" not in table
    assert "percentile" not in table


def test_many_tiny_objects_are_a_warning(folder, tmp_path, capsys):
    """They would be blown up to flat crops; a few of them are common."""
    scenes = tmp_path / "scenes"
    shutil.copytree(folder / "scenes", scenes)
    for path in (scenes / "SegmentationObject").glob("*.png"):
        objects = np.array(Image.open(path))
        kept = np.zeros_like(objects)
        for number in np.setdiff1d(objects, (0, 255)):
            y, x = np.argwhere(objects == number)[0]
            kept[y, x] = number
        Image.fromarray(kept).save(path)
    config = config_of(folder, voc_root=str(scenes))
    found = browse_data.run(config, str(tmp_path / "out"), count=2, sample=2)
    count = f"{found['windows']:,}"
    assert f"warning: {count} of {count} windows are smaller than 16 pixels" in capsys.readouterr().err


def test_the_sheet_shows_the_first_crops_of_the_training(folder, tmp_path):
    """Crop for crop, although the training's batches have another size."""
    found = dataset.open_training_data(config_of(folder))
    shown = browse_data.first_crops(found, 10)
    with closing(found.batches(5)) as batches:
        trained = [next(batches) for _ in range(2)]
    for key in ("image", "label"):
        np.testing.assert_array_equal(shown[key], np.concatenate([batch[key] for batch in trained]))
    pages = []
    for name in ("a", "b"):
        browse_data.run(
            config_of(folder, read_threads=1 if name == "a" else 3), str(tmp_path / name), count=4, sample=4
        )
        pages.append(np.asarray(Image.open(tmp_path / name / "examples.png")))
    np.testing.assert_array_equal(*pages)
    browse_data.run(config_of(folder).copy_and_resolve_references(), str(tmp_path / "c"), count=5, sample=4)
    assert np.asarray(Image.open(tmp_path / "c/examples.png")).shape != pages[0].shape


def test_proposals(folder, tmp_path):
    found = browse_data.run(
        config_of(folder, windows=("proposal",), label_mode="all"), str(tmp_path), count=4, sample=16
    )
    assert found["windows"] > 6
    with pytest.raises(InputError, match="no proposals of the split 'val' yet; compute them: python -m experiments"):
        browse_data.run(config_of(folder, windows=("proposal",), train_split="val"), str(tmp_path))


def test_the_command(folder, tmp_path):
    command = ["browse_data", f"--config={ROOT / 'experiments/configs/demo.py'}", f"--output={tmp_path}"]
    data = [f"--config.data.voc_root={folder / 'scenes'}", f"--config.data.data_dir={folder / 'tfds'}"]
    done = run_program(*command, *data, "--sample=32")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"^\d+ windows in \d+ images; images without a window: 0; connected parts too small for one: 0; ignored",
        done.stderr,
        re.M,
    )
    assert json.loads(done.stdout.splitlines()[-1])["picture"] == str(tmp_path / "examples.png")
    wrong = run_program(*command, *data[1:])
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: no data: give --config.data.voc_root=FOLDER")
    assert len(wrong.stderr.splitlines()) == 1


def road_masks(root, of_255=False):
    """Makes the masks of the scenes class masks of one class: the objects, and a speck of 9x9 pixels in each."""
    shutil.rmtree(root / "SegmentationObject", ignore_errors=True)
    for path in (root / "SegmentationClass").iterdir():
        mask = (np.array(Image.open(path)) > 0).astype(np.uint8)
        mask[:12, :12] = 0
        mask[1:10, 1:10] = 1
        Image.fromarray(mask * (255 if of_255 else 1)).save(path)
    (root / "classes.txt").write_text("background\nroad\n")


def test_specks_get_no_window_and_are_counted(folder, tmp_path, capsys):
    shutil.copytree(folder / "scenes", tmp_path / "scenes")
    road_masks(tmp_path / "scenes")
    every = browse_data.run(config_of(tmp_path, min_window=0), str(tmp_path / "all"), count=4, sample=8)
    assert every["small_parts"] == 0
    found = browse_data.run(config_of(tmp_path), str(tmp_path / "out"), count=4, sample=8)
    assert found["small_parts"] >= 6
    assert found["windows"] + found["small_parts"] == every["windows"]
    assert f"connected parts too small for one: {found['small_parts']};" in capsys.readouterr().err
    size = 1.2 * 9
    assert every["boxes"]["side_pixels"][0] == pytest.approx(size, abs=0.1)
    assert found["boxes"]["side_pixels"][0] > size


def test_masks_of_0_and_255_stop_all_programs_alike(folder, tmp_path):
    """No program suggests a setting with which such masks can be trained on."""
    shutil.copytree(folder / "scenes", tmp_path / "scenes")
    road_masks(tmp_path / "scenes", of_255=True)
    config = config_of(tmp_path)
    said = set()
    for program in (
        lambda: browse_data.run(config, str(tmp_path / "out")),
        lambda: training.run(config, str(tmp_path / "run")),
        lambda: dataset.packed_folder(config.data.voc_root, config.data.data_dir),
    ):
        with pytest.raises(InputError) as caught:
            program()
        said.add(str(caught.value))
    (message,) = said
    assert "hold only 0 and 255" in message
    assert "experiments.import_masks --binary=road" in message
    assert "data.windows" not in message


def test_a_split_of_one_class_cannot_be_trained_on(folder, tmp_path):
    """Packing allows it in a split whose name does not say that it is trained on."""
    shutil.copytree(folder / "scenes", tmp_path / "scenes")
    for path in (tmp_path / "scenes/SegmentationClass").glob("val_*.png"):
        Image.fromarray(np.zeros_like(np.array(Image.open(path)))).save(path)
    assert dataset.open_training_data(config_of(tmp_path)).trained
    for windows in (("instance",), ("image",)):
        with pytest.raises(InputError, match=r"'val' show only 'background' \(id 0\), so a network would learn"):
            browse_data.run(config_of(tmp_path, train_split="val", windows=windows), str(tmp_path / "out"))


def test_what_a_training_would_warn_of(folder, tmp_path, capsys):
    shutil.copytree(folder / "scenes", tmp_path / "scenes")
    names = (tmp_path / "scenes/classes.txt").read_text().splitlines()
    (tmp_path / "scenes/classes.txt").write_text("\n".join(["sky", *names[1:]]) + "\n")
    (tmp_path / "scenes/ImageSets/Segmentation/val.txt").write_text("train_0001\nval_0000\n")
    browse_data.run(config_of(tmp_path), str(tmp_path / "out"), count=4, sample=4)
    said = capsys.readouterr().err
    assert "warning: 'sky' has the id 0, which counts as background" in said
    assert "warning: 1 of the 2 images of the split 'val' are training images, too" in said
