"""What a run writes can be read back, by us and by TensorBoard's own reader."""

import json

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from deconvnet_jax.errors import InputError
from deconvnet_jax.training.metric_writer import MetricWriter


def events(folder):
    """All events of the record files below a folder: records are length (8), checksum (4), data, checksum (4)."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def test_scalars_and_images(tmp_path, rng):
    writer = MetricWriter(tmp_path, after_step=0)
    writer.write_scalars(10, {"train/loss": 1.5, "train/learning_rate": 0.01})
    writer.write_images(10, {"eval/image0": rng.integers(0, 256, (6, 9, 3)).astype(np.uint8)})
    writer.close()
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 10, "train/loss": 1.5, "train/learning_rate": 0.01}
    ]
    values = {
        value.tag: (event.step, value) for event in events(tmp_path / "tensorboard") for value in event.summary.value
    }
    assert values["train/loss"][0] == 10
    assert values["train/loss"][1].simple_value == 1.5
    image = values["eval/image0"][1].image
    assert (image.height, image.width) == (6, 9)
    with Image.open(tmp_path / "pictures/step_000010_image0.png") as picture:
        assert picture.size == (9, 6)


def test_a_second_writer_appends(tmp_path):
    for step in (1, 2):
        writer = MetricWriter(tmp_path, after_step=step - 1)
        writer.write_scalars(step, {"loss": float(step)})
        writer.close()
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2]


def write_lines(folder, text):
    (folder / "metrics.jsonl").write_text(text)


def test_what_was_written_after_the_checkpoint_is_dropped(tmp_path):
    """A killed run does those steps again; its last line may be half of one."""
    write_lines(tmp_path, '{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n{"step": 3, "a": 3}\n{"step": 4, "a"')
    writer = MetricWriter(tmp_path, after_step=2)
    writer.write_scalars(3, {"a": 5.0})
    writer.close()
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert found == [{"step": 1, "a": 1}, {"step": 2, "a": 2}, {"step": 3, "a": 5.0}]
    assert [event.step for event in events(tmp_path / "tensorboard") if event.HasField("session_log")] == [3]


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"a": 1}', '{"step": "2"}', '{"step": 2, "a": "high"}'])
def test_a_damaged_line_is_named(tmp_path, line):
    write_lines(tmp_path, f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(InputError, match=r"metrics.jsonl, line 2: no JSON object with a step and numbers"):
        MetricWriter(tmp_path, after_step=3)


def test_a_score_that_does_not_exist_is_left_out(tmp_path):
    """NaN is no JSON, and TensorBoard draws nothing for it."""
    writer = MetricWriter(tmp_path, after_step=0)
    writer.write_scalars(1, {"iou/cow": float("nan"), "iou/cat": 0.5})
    writer.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "iou/cat": 0.5}
