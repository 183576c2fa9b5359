"""Evaluation from a checkpoint: the command as people run it, and its functions for what can go wrong."""

import json
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from programs import run_program

from deconvnet_jax.data import VOC_CLASSES, read_example, split_names
from deconvnet_jax.errors import InputError
from deconvnet_jax.evaluation import confusion_matrix, segmentation_scores
from deconvnet_jax.inference import InferenceSettings, Segmenter
from deconvnet_jax.weights import load_checkpoint
from experiments.common import evaluation
from experiments.common import evaluation as voc_eval
from experiments.configs import default

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).resolve().parents[2]


command = partial(run_program, "voc_eval")


@pytest.fixture(scope="module")
def evaluated(tiny_run, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluation") / "new/folder"
    done = command(
        f"--checkpoint={tiny_run.folder}", f"--output={output}", "--panels=2", "--config.inference.batch_size=2"
    )
    assert done.returncode == 0, done.stderr
    return done, output


def test_last_line_is_strict_json(evaluated, tiny_run):
    done, output = evaluated
    scores = json.loads(done.stdout.splitlines()[-1], parse_constant=pytest.fail)
    assert scores == json.loads((output / "metrics.json").read_text())
    assert set(scores["iou_per_class"]) == set(tiny_run.class_names)
    assert (scores["step"], scores["split"], scores["images"]) == (1, "val", 3)
    assert 0 < scores["seconds_per_image"] < 60
    table = "\n".join(done.stdout.splitlines()[:-1])
    assert all(name in table for name in tiny_run.class_names)
    assert "Traceback" not in done.stderr


def test_scores_are_those_of_the_written_label_maps(evaluated, tiny_run):
    done, output = evaluated
    num_classes = len(tiny_run.class_names)
    names = split_names(tiny_run.voc_root, "val")
    assert sorted(path.stem for path in (output / "labels").iterdir()) == sorted(names)
    matrix = np.zeros((num_classes, num_classes), np.int64)
    segmenter = Segmenter.from_checkpoint(tiny_run.folder)
    for name in names:
        example = read_example(tiny_run.voc_root, name, num_classes)
        labels = np.asarray(Image.open(output / f"labels/{name}.png"))
        assert (labels == segmenter(example.image).labels).mean() > 0.999  # batches of 2 round differently
        matrix += confusion_matrix(example.label, labels, num_classes)
    scores = json.loads(done.stdout.splitlines()[-1])
    expected = segmentation_scores(matrix, tiny_run.class_names)
    assert {name: scores[name] for name in expected} == expected


def test_panels_of_the_first_images(evaluated, tiny_run):
    _, output = evaluated
    panels = sorted(path.name for path in (output / "panels").iterdir())
    assert panels == sorted(f"{name}.jpg" for name in split_names(tiny_run.voc_root, "val")[:2])
    for name in panels:
        with Image.open(output / "panels" / name) as panel:
            assert panel.width > 3 * panel.height


def test_another_split_and_step(tiny_run):
    scores = voc_eval.run(tiny_run.folder, overrides={"eval_split": "train"}, step=2)
    assert (scores["split"], scores["images"], scores["step"]) == ("train", 1, 2)


def test_ways_of_segmenting(tiny_run):
    """--config.inference.* changes the training run's; a config that is named replaces it."""
    changes = {"inference.mode": "paper", "inference.num_proposals": 2, "inference.proposals": "grid"}
    segmenter = Segmenter.from_checkpoint(tiny_run.folder, mode="paper", num_proposals=2, proposals="grid")
    matrix = np.zeros((len(tiny_run.class_names),) * 2, np.int64)
    for name in split_names(tiny_run.voc_root, "val"):
        example = read_example(tiny_run.voc_root, name, len(tiny_run.class_names))
        matrix += confusion_matrix(example.label, segmenter(example.image).labels, len(tiny_run.class_names))
    expected = segmentation_scores(matrix, tiny_run.class_names)
    found = voc_eval.run(tiny_run.folder, changes=changes)
    assert {key: found[key] for key in expected} == expected
    config = default.get_config()
    config.update_from_flattened_dict(changes)
    config.data.update(voc_root=str(tiny_run.voc_root), data_dir=str(tiny_run.folder / "data/tfds"))
    found = voc_eval.run(tiny_run.folder, config=config)
    assert {key: found[key] for key in expected} == expected
    whole = voc_eval.run(tiny_run.folder)
    assert whole["iou_per_class"] != found["iou_per_class"]


def test_scores_are_those_of_the_averages_unless_another_choice_is_made(tiny_run, tmp_path):
    """At step 2 the weights themselves are those of step 1; both scores equal those by hand."""
    voc_eval.run(tiny_run.folder, step=2, output=tmp_path)
    with pytest.raises(InputError, match="another evaluation: averages is True there and False now"):
        voc_eval.run(tiny_run.folder, step=2, output=tmp_path, averages=False)
    averaged = json.loads((tmp_path / "metrics.json").read_text())
    plain = voc_eval.run(tiny_run.folder, step=2, averages=False)
    for scores, averages in ((averaged, True), (plain, False)):
        net, variables, _ = load_checkpoint(tiny_run.folder, 2, averages)
        segmenter = Segmenter(net, variables, tiny_run.class_names, settings=InferenceSettings(mode="whole_image"))
        matrix = np.zeros((len(tiny_run.class_names),) * 2, np.int64)
        for name in split_names(tiny_run.voc_root, "val"):
            example = read_example(tiny_run.voc_root, name, len(tiny_run.class_names))
            matrix += confusion_matrix(example.label, segmenter(example.image).labels, len(tiny_run.class_names))
        expected = segmentation_scores(matrix, tiny_run.class_names)
        assert {key: scores[key] for key in expected} == expected
    assert plain["iou_per_class"] == voc_eval.run(tiny_run.folder, step=1)["iou_per_class"] != averaged["iou_per_class"]


def test_results_of_another_evaluation_are_not_overwritten(tiny_run, tmp_path):
    voc_eval.run(tiny_run.folder, output=tmp_path / "out", panels=0)
    before = (tmp_path / "out/metrics.json").read_text()
    voc_eval.run(tiny_run.folder, output=tmp_path / "out", panels=0)  # the same again
    with pytest.raises(InputError, match="another evaluation: step is 1 there and 2 now; name another folder"):
        voc_eval.run(tiny_run.folder, output=tmp_path / "out", step=2)
    with pytest.raises(InputError, match=r"inference\.mode is 'whole_image' there and 'sliding_window' now"):
        voc_eval.run(tiny_run.folder, output=tmp_path / "out", changes={"inference.mode": "sliding_window"})
    assert json.loads(before)["step"] == json.loads((tmp_path / "out/metrics.json").read_text())["step"]
    (tmp_path / "out/run.json").unlink()
    with pytest.raises(InputError, match=r"holds other results already \(metrics\.json\)"):
        voc_eval.run(tiny_run.folder, output=tmp_path / "out")


@pytest.fixture
def voc_network(monkeypatch):
    """A network of VOC's classes that sees an aeroplane in what is red."""

    class Red:
        def apply(self, variables, images, train):
            scores = jnp.zeros((*images.shape[:3], 21))
            return scores.at[..., 1].set(images[..., 2] - images[..., 1])

    info = {"config": {"inference": {"mode": "whole_image"}}, "class_names": list(VOC_CLASSES), "step": 3}
    monkeypatch.setattr(evaluation, "load_checkpoint", lambda *_: (Red(), {}, info))


def test_a_split_without_masks_becomes_a_submission(voc_network, tmp_path, capsys):
    root = tmp_path / "VOC2012"
    (root / "JPEGImages").mkdir(parents=True)
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    colors = {"2008_000001": (250, 0, 0), "2008_000002": (0, 250, 0)}
    (root / "ImageSets/Segmentation/test.txt").write_text("\n".join(colors))
    for name, color in colors.items():
        Image.new("RGB", (40, 30), color).save(root / f"JPEGImages/{name}.jpg")
    overrides = {"voc_root": str(root), "eval_split": "test"}
    scores = voc_eval.run("runs/voc", overrides=overrides, output=tmp_path / "out")
    assert set(scores) == {"step", "split", "images", "seconds_per_image"}
    assert scores["images"] == 2
    folder = tmp_path / "out/results/VOC2012/Segmentation/comp6_test_cls"
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}.png" for name in colors]
    for name, expected in zip(colors, (1, 0), strict=True):
        with Image.open(folder / f"{name}.png") as labels:
            assert labels.mode == "P"
            assert labels.size == (40, 30)
            assert labels.getpalette()[3:6] == [128, 0, 0]
            assert (np.asarray(labels) == expected).all()
    assert (tmp_path / "out/panels/2008_000001.jpg").is_file()
    (root / "JPEGImages/2008_000002.jpg").unlink()
    with pytest.raises(InputError, match=r"no image .*2008_000002\.jpg, although a split names it"):
        voc_eval.run("runs/voc", overrides=overrides)


def test_two_processes(tiny_run, tmp_path):
    """As they are started on two hosts: both end well, the first prints the scores of all images."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    words = [
        sys.executable,
        "-m",
        "experiments.voc_eval",
        f"--checkpoint={tiny_run.folder}",
        f"--output={tmp_path}/out",
    ]
    words += [f"--coordinator=localhost:{port}", "--num_processes=2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    processes = [subprocess.Popen([*words, f"--process_id={i}"], **pipes) for i in range(2)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    scores = json.loads(outputs[0][0].splitlines()[-1])
    assert "iou" not in outputs[1][0]
    alone = voc_eval.run(tiny_run.folder)
    assert scores["iou_per_class"] == pytest.approx(alone["iou_per_class"], abs=1e-3)  # rounding may move a pixel
    assert scores["boundary_f1"] == pytest.approx(alone["boundary_f1"], abs=0.02)
    assert scores["boundary_f1_per_class"].keys() == alone["boundary_f1_per_class"].keys()
    assert scores["object_iou"] == pytest.approx(alone["object_iou"], abs=0.02)
    assert scores["objects"] == alone["objects"]
    assert sum(scores["objects"].values()) > 3
    with Image.open(tmp_path / "out/confusion.png") as picture:
        assert picture.width > 100
    assert scores["images"] == 3
    assert len(list((tmp_path / "out/labels").iterdir())) == 3


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["background", "cat"], "has 2 classes"),
        (["background", "circle"], "class 1 = 'circle', which is"),
    ],
)
def test_other_classes(tiny_run, tmp_path, classes, message):
    shutil.copytree(tiny_run.voc_root, tmp_path / "other")
    if "circle" in classes:
        classes = [*classes, *tiny_run.class_names[2:]]
    (tmp_path / "other/classes.txt").write_text("\n".join(classes))
    with pytest.raises(InputError, match=message):
        voc_eval.run(tiny_run.folder, overrides={"voc_root": str(tmp_path / "other")})


def test_unusable_arguments(tiny_run, tmp_path):
    (tmp_path / "file").write_text("")
    for message, arguments in {
        "no checkpoint in": {"checkpoint": tmp_path},
        "no split 'test'": {"overrides": {"eval_split": "test"}},
        "not a folder in the VOC layout": {"overrides": {"voc_root": str(tmp_path)}},
        "--output=.*file cannot be a folder": {"output": tmp_path / "file"},
        "no step 7": {"step": 7},
    }.items():
        with pytest.raises(InputError, match=message):
            voc_eval.run(**({"checkpoint": tiny_run.folder} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--checkpoint"),
        (["--checkpoint={run}", "--config=experiments/configs/default.py", "--config.data.voc_rot=x"], "voc_rot"),
        (["--checkpoint={run}", "--config=experiments/configs/default.py"], "no data: give --config.data.voc_root"),
    ],
)
def test_wrong_use_is_one_line(tiny_run, arguments, message):
    done = command(*(argument.format(run=tiny_run.folder) for argument in arguments))
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
