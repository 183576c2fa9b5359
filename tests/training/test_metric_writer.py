"""What a run writes can be read back, by us and by TensorBoard's own reader."""

import json

import numpy as np
from tensorboardX.proto.event_pb2 import Event

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
    writer = MetricWriter(tmp_path)
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


def test_a_second_writer_appends(tmp_path):
    for step in (1, 2):
        writer = MetricWriter(tmp_path)
        writer.write_scalars(step, {"loss": float(step)})
        writer.close()
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2]
