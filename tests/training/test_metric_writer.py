"""Checks that what a run writes can be read back, by this package and by TensorBoard's format."""

import json
import resource
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from deconvnet_jax import buckets
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import local_copy
from deconvnet_jax.training import metric_writer
from deconvnet_jax.training.metric_writer import MetricWriter, metric_lines


def events(folder):
    """Yields all events below a folder; a record is length (8 bytes), checksum (4), data, checksum (4)."""
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
    """A killed run repeats those steps; its last line may be cut off."""
    write_lines(tmp_path, '{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n{"step": 3, "a": 3}\n{"step": 4, "a"')
    writer = MetricWriter(tmp_path, after_step=2)
    writer.write_scalars(3, {"a": 5.0})
    writer.close()
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert found == [{"step": 1, "a": 1}, {"step": 2, "a": 2}, {"step": 3, "a": 5.0}]
    assert [event.step for event in events(tmp_path / "tensorboard") if event.HasField("session_log")] == [3]


@pytest.mark.parametrize("damage", [b"\xff\xfe\n", bytes(100) + b"\n", b'{"step": 1, "a"\n', b"[[[\n"])
def test_damaged_lines_do_not_stop_a_run_from_being_resumed(tmp_path, damage, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + damage + b'{"step": 2}\n{"step": 3}\n')
    before = path.read_bytes()
    MetricWriter(tmp_path, after_step=2).close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == before
    warning = capsys.readouterr().err
    assert (
        warning
        == f"warning: {path} has damaged lines; they were removed, and the old file is kept as {path.name}.damaged\n"
    )


def test_a_folder_in_the_files_place_is_kept_beside(tmp_path):
    (tmp_path / "metrics.jsonl/x").mkdir(parents=True)
    MetricWriter(tmp_path, after_step=2).close()
    assert (tmp_path / "metrics.jsonl.damaged/x").is_dir()


def test_without_tensorboards_files_a_run_continues(tmp_path, capsys):
    (tmp_path / "tensorboard").write_text("")
    writer = MetricWriter(tmp_path, after_step=0)
    writer.write_scalars(1, {"a": 1.0})
    writer.write_scalars(2, {"a": 2.0})
    writer.close()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert (
        capsys.readouterr().err
        == "warning: TensorBoard files cannot be written (File exists); the run continues without\n"
    )


def test_a_full_disk_is_one_line(tmp_path):
    writer = MetricWriter(tmp_path, after_step=0)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        with pytest.raises(
            InputError, match=r"metrics\.jsonl could not be written \(File too large\); free disk space"
        ):
            writer.write_scalars(1, {f"name{i}": 1.0 for i in range(20)})
        writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"a": 1}', '{"step": "2"}', '{"step": 2, "a": "high"}'])
def test_a_damaged_line_is_named(tmp_path, line):
    write_lines(tmp_path, f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(InputError, match=r"metrics.jsonl, line 2: expected a JSON object with \"step\""):
        metric_lines(tmp_path / "metrics.jsonl")


def test_a_score_that_does_not_exist_is_left_out(tmp_path):
    """JSON has no NaN, and TensorBoard draws nothing for it."""
    writer = MetricWriter(tmp_path, after_step=0)
    writer.write_scalars(1, {"iou/cow": float("nan"), "iou/cat": 0.5})
    writer.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "iou/cat": 0.5}


def test_in_a_bucket(bucket, tmp_path, monkeypatch):
    """Flushed lines survive a killed run, a second writer appends, and TensorBoard files stay small."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = bucket / "metrics"
    writer = MetricWriter(folder, after_step=0)
    for step in (1, 2, 3):
        if step == 3:
            writer.flush()
        writer.write_scalars(step, {"loss": float(step)})
    assert [line["step"] for line in metric_lines(folder / "metrics.jsonl")] == [1, 2]
    monkeypatch.setattr(metric_writer, "_LARGEST_OBJECT", 100)
    writer = MetricWriter(folder, after_step=1)
    writer.write_scalars(2, {"loss": 20.0})
    writer.write_images(2, {"eval/image0": np.zeros((6, 9, 3), np.uint8)})
    writer.close()
    assert metric_lines(folder / "metrics.jsonl") == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 20.0}]
    assert [path.name for path in (folder / "pictures").iterdir()] == ["step_000002_image0.png"]
    found = list(events(local_copy(folder / "tensorboard")))
    losses = [event.summary.value[0].simple_value for event in found if event.summary.value]
    assert losses[:3] == [1.0, 2.0, 20.0]
    assert len(list((folder / "tensorboard").iterdir())) > 2


def test_a_bucket_that_refuses_the_last_lines(bucket, monkeypatch):
    writer = MetricWriter(bucket / "refused", after_step=0)
    writer.write_scalars(1, {"loss": 1.0})

    def refuse(*_, **__):
        raise OSError("Forbidden")

    monkeypatch.setattr(buckets._store(), "pipe_file", refuse)
    with pytest.raises(InputError, match=r"refused/metrics\.jsonl could not be written \(Forbidden\)"):
        writer.close()


def test_tensorboard_is_imported_without_pytorch():
    """PyTorch takes seconds to import; it can still be imported afterwards."""
    pytest.importorskip("torch")
    code = "import sys, deconvnet_jax.training.tensorboard_records; print('torch' in sys.modules); import torch"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "False\n"), found.stderr
