"""Curves of runs are read, drawn and summed up in a line."""

import json

import matplotlib.colors
import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.errors import InputError
from experiments.tasks import plot_metrics
from experiments.tasks.plot_metrics import Curve, read_metrics, running_mean, short_names


def write_run(folder, steps=50, evaluations=True, loss=2.0):
    folder.mkdir(parents=True)
    lines = []
    for step in range(1, steps + 1):
        scalars = {"loss": loss * 0.97**step, "pixel_accuracy": 1 - 0.6 * 0.97**step}
        scalars |= {"learning_rate": 0.01 if step < 30 else 0.001, "images_per_second": 20 + step % 3}
        lines.append({"step": step} | {f"train/{name}": value for name, value in scalars.items()})
        if evaluations and step % 10 == 0:
            lines.append({"step": step, "eval/mean_iou": 0.4 - abs(step - 30) / 100, "eval/pixel_accuracy": 0.8})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def count_pixels(path, colour):
    with Image.open(path) as picture:
        assert picture.size == (1400, 900)
        pixels = np.asarray(picture.convert("RGB"), np.int32)
    wanted = np.round(255 * np.array(matplotlib.colors.to_rgb(colour)))
    return int((np.abs(pixels - wanted).max(axis=-1) < 12).sum())


def test_two_runs_in_one_picture(tmp_path, capsys):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", evaluations=False)]
    plot_metrics.run([str(run) for run in runs], tmp_path / "both.png")
    first, second, third = plot_metrics.COLOURS[:3]
    assert count_pixels(tmp_path / "both.png", first) > 1000
    assert count_pixels(tmp_path / "both.png", second) > 500
    assert count_pixels(tmp_path / "both.png", third) == 0
    path, a, b = capsys.readouterr().out.splitlines()
    assert path == str(tmp_path / "both.png")
    assert a == f"a: step 50, loss {2 * 0.97**50:.3f}, best mean IoU 40.0 % at step 30"
    assert b == f"b: step 50, loss {2 * 0.97**50:.3f}"


def test_drops_of_the_learning_rate_and_empty_panels(tmp_path):
    curves = read_metrics(write_run(tmp_path / "a", evaluations=False) / "metrics.jsonl")
    loss, accuracy, iou, speed = plot_metrics.draw({"a": curves}).axes
    drops = [line for line in loss.get_lines() if len(set(line.get_xdata())) == 1]
    assert [line.get_xdata()[0] for line in drops] == [30]
    assert [text.get_text() for text in iou.texts] == ["nothing yet"]
    assert not accuracy.texts
    assert not speed.texts
    np.testing.assert_allclose(accuracy.get_lines()[0].get_ydata()[0], 100 * (1 - 0.6 * 0.97))


def test_steps_that_come_again_and_what_is_no_number(tmp_path):
    """A run that resumed wrote some steps twice; its last line may be incomplete."""
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 2, "a": 1.0}\n{"step": 1, "a": 5}\n{"step": 2, "a": 3.0, "b": null}\n{"step": 3, "b": NaN}\n{"st'
    )
    curves = read_metrics(tmp_path / "metrics.jsonl")
    assert set(curves) == {"a"}
    np.testing.assert_array_equal(curves["a"].steps, [1, 2])
    np.testing.assert_array_equal(curves["a"].values, [5, 3])


def test_running_means():
    curve = Curve(np.array([1, 2, 3, 4]), np.array([1.0, 3.0, 5.0, 9.0]))
    np.testing.assert_allclose(running_mean(curve, 1).values, curve.values)
    np.testing.assert_allclose(running_mean(curve, 2).values, [1, 2, 4, 7])
    np.testing.assert_allclose(running_mean(curve, 9).values, [1, 2, 3, 4.5])


def test_names_as_short_as_they_can_be(tmp_path):
    assert short_names([tmp_path / "x/one", tmp_path / "x/two"]) == ["one", "two"]
    assert short_names([tmp_path / "x/run", tmp_path / "y/run"]) == ["x/run", "y/run"]
    assert short_names([tmp_path / "x", tmp_path / "x"]) == ["x", "x"]


def refused(runs, **options):
    with pytest.raises(InputError) as error:
        plot_metrics.run([str(run) for run in runs], **options)
    return str(error.value)


def test_what_cannot_be_drawn(tmp_path):
    run = write_run(tmp_path / "a")
    write_run(tmp_path / "two/stage1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/metrics.jsonl").write_text("")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/metrics.jsonl").write_text('{"step": 1, "a": 1}\n[1]\n{"step": 3, "a": 1}\n')
    assert "no run given" in refused([])
    assert f"no metrics.jsonl in {tmp_path / 'none'}" in refused([tmp_path / "none"])
    assert f"name {tmp_path / 'two/stage1'}" in refused([tmp_path / "two"])
    assert "has no values yet" in refused([tmp_path / "empty"])
    assert "bad/metrics.jsonl, line 2: expected a JSON object" in refused([tmp_path / "bad"])
    assert "expected the name of a file that ends in .png" in refused([run], output=tmp_path / "a.pdf")
    assert "there is no folder" in refused([run], output=tmp_path / "no/a.png")
