"""Checks the metrics of steps: means, throughput without pauses, and the first value that is not finite."""

import jax.numpy as jnp
import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.training import step_monitor
from deconvnet_jax.training.step_monitor import LATE, ProfilerWindow, StepMonitor


def metrics(loss, finite=1.0):
    values = {"loss": loss, "gradient_norm": 1.0, "parameter_norm": 2.0, "finite": finite}
    return {name: jnp.float32(value) for name, value in values.items()}


def batch(value=0):
    return {"image": jnp.full((2, 3, 4, 4, 3), value, jnp.uint8), "label": jnp.full((2, 3, 4, 4), value, jnp.uint8)}


@pytest.fixture
def clock(monkeypatch):
    """A clock whose seconds a test sets."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(step_monitor.time, "perf_counter", lambda: Clock.now)
    return Clock


def test_means_and_rates(tmp_path, clock):
    """The first step, which compiles, and pauses are not timed."""
    monitor = StepMonitor(tmp_path, batch_size=6)
    monitor.add(1, metrics(5.0), batch())
    assert monitor.take() == {"loss": 5.0, "gradient_norm": 1.0, "parameter_norm": 2.0}
    for step, loss in ((2, 4.0), (3, 2.0)):
        clock.now += 2.0
        monitor.add(step, metrics(loss), batch())
        monitor.settle()
        with monitor.paused():
            clock.now += 50.0
    found = monitor.take()
    assert found["loss"] == 3.0
    assert found["images_per_second"] == pytest.approx(2 * 6 / 4.0)


def test_steps_are_read_late_but_every_one(tmp_path):
    """The host stays some steps ahead; the saved batch is that of the step that diverged, not the newest."""
    monitor = StepMonitor(tmp_path, batch_size=6)
    monitor.add(1, metrics(np.nan, finite=0.0), batch(7))
    for step in range(2, 2 + LATE - 1):
        monitor.add(step, metrics(1.0), batch())
    with pytest.raises(
        InputError, match=r"diverged at step 1: loss nan, gradient_norm 1, .*\. There is no checkpoint yet"
    ):
        monitor.add(LATE + 1, metrics(1.0), batch())
    saved = np.load(tmp_path / "diverged/step_000001_process_0.npz")
    np.testing.assert_array_equal(saved["image"], np.full((6, 4, 4, 3), 7, np.uint8))
    np.testing.assert_array_equal(saved["label"], np.full((6, 4, 4), 7, np.uint8))


def test_settling_reads_what_is_under_way(tmp_path):
    monitor = StepMonitor(tmp_path, batch_size=6, saved_step=3)
    monitor.add(4, metrics(1.0, finite=0.0), batch())
    with pytest.raises(InputError, match=r"diverged at step 4.*the good checkpoint of step 3"):
        monitor.settle()


@pytest.fixture
def recorded(monkeypatch):
    """Returns a function that runs the steps of a window and returns those that were recorded."""
    steps, recording = [], []
    monkeypatch.setattr(step_monitor.jax.profiler, "start_trace", lambda folder: recording.append(folder))
    monkeypatch.setattr(step_monitor.jax.profiler, "stop_trace", lambda: recording.pop())

    def run(window, first, last):
        for step in range(first, last + 1):
            window.before(step)
            steps.extend([step] * len(recording))
            window.after(step, None)
        window.close()
        assert not recording
        return steps

    return run


@pytest.mark.parametrize(
    ("start", "steps", "last", "expected"),
    [(0, 2, 20, [6, 7]), (10, 3, 30, [16, 17, 18]), (0, 5, 7, [6, 7]), (0, 2, 4, []), (0, 0, 20, [])],
)
def test_steps_after_the_first_ones_as_far_as_the_run_goes(tmp_path, recorded, start, steps, last, expected):
    assert recorded(ProfilerWindow(tmp_path, start, steps), start + 1, last) == expected
