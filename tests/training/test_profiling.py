"""Which steps are recorded."""

import pytest

from deconvnet_jax.training import profiling
from deconvnet_jax.training.profiling import ProfilerWindow


@pytest.fixture
def recorded(monkeypatch):
    """Steps between start and stop of the recording; `window(first, last, ...)` runs them."""
    steps, recording = [], []
    monkeypatch.setattr(profiling.jax.profiler, "start_trace", lambda folder: recording.append(folder))
    monkeypatch.setattr(profiling.jax.profiler, "stop_trace", lambda: recording.pop())

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
