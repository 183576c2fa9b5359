"""The paper's figures: the command as people run it, and what it refuses."""

from functools import partial

import numpy as np
import pytest
from PIL import Image
from programs import run_program

from deconvnet_jax.data import draw_scene
from deconvnet_jax.errors import InputError
from deconvnet_jax.inference import Segmenter
from experiments.tasks import visualize

pytestmark = pytest.mark.end_to_end

command = partial(run_program, "visualize")


def test_command(tiny_run, tmp_path):
    image, *_ = draw_scene(np.random.default_rng(3))
    Image.fromarray(image).save(tmp_path / "scene.png")
    (tmp_path / "text.jpg").write_text("no image")
    few = ["--config.inference.num_proposals=3", "--config.inference.proposals=grid"]
    few.append(f"--config.inference.ensemble_checkpoint={tiny_run.folder}")
    flags = [f"--checkpoint={tiny_run.folder}", f"--output={tmp_path / 'out'}", *few]
    done = command(*flags, tmp_path / "scene.png", tmp_path / "text.jpg")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'text.jpg'} is not a complete image")
    assert len(done.stderr.splitlines()) == 1
    assert len(done.stdout.splitlines()) == 1
    kinds = ("activations", "comparison", "proposals")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"scene_{kind}.png" for kind in kinds]
    for kind in kinds:
        with Image.open(tmp_path / f"out/scene_{kind}.png") as figure:
            assert figure.width > 2 * visualize.SIDE
            assert len(np.unique(np.asarray(figure).reshape(-1, 3), axis=0)) > 50


def test_activations_of_a_box(tiny_run):
    image, *_ = draw_scene(np.random.default_rng(3))
    segmenter = Segmenter.from_checkpoint(tiny_run.folder)
    result = segmenter(image)
    one, other = (
        visualize.activations_figure(segmenter, image, result, np.array(box, float))
        for box in ([10, 10, 60, 60], [40, 20, 120, 90])
    )
    assert one.shape == other.shape
    assert (one != other).any()
    with pytest.raises(InputError, match=r"the box \[500.0, 0.0, 520.0, 20.0\] is not on the image, which is"):
        visualize.activations_figure(segmenter, image, result, np.array([500.0, 0, 520, 20]))


def test_the_largest_object():
    labels = np.zeros((20, 30), np.uint8)
    np.testing.assert_array_equal(visualize.largest_object(labels), [0, 0, 30, 20])
    labels[2:5, 3:9], labels[10:12, 3:9], labels[15:19, 20:28] = 1, 1, 2
    np.testing.assert_array_equal(visualize.largest_object(labels), [20, 15, 28, 19])
    labels[2:12, 3:9] = 1
    np.testing.assert_array_equal(visualize.largest_object(labels), [3, 2, 9, 12])


def test_boxes_on_the_command_line():
    assert visualize.parse_box(None) is None
    np.testing.assert_array_equal(visualize.parse_box(["1", "2", "3.5", "9"]), [1, 2, 3.5, 9])
    for words in (["1", "2", "3"], ["1", "2", "1", "9"], ["a", "b", "c", "d"], ["nan", "0", "1", "1"]):
        with pytest.raises(InputError, match="expected X0,Y0,X1,Y1 in pixels"):
            visualize.parse_box(words)
