"""Checks the table of modes, and the windows that a network is shown."""

from pathlib import Path

import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.inference import (
    MODES,
    corner_window,
    paper_windows,
    released_windows,
    sliding_windows,
    whole_window,
)

BOXES = np.array([[10, 20, 110, 60], [0, 0, 50, 50], [5, 5, 200, 100]], float)


def test_the_page_describes_every_mode():
    page = (Path(__file__).parents[2] / "docs/inference.md").read_text()
    for name, mode in MODES.items():
        assert f"| `{name}` | {mode.summary} |" in page


def test_papers_windows_are_enlarged_and_squared():
    windows = paper_windows(BOXES, 2)
    np.testing.assert_allclose(windows, [[0, -20, 120, 100], [-5, -5, 55, 55]])
    assert windows.dtype == np.float32
    np.testing.assert_allclose(paper_windows(BOXES, 1, factor=1.0), [[10, -10, 110, 90]])


def test_released_windows_leave_small_ones_out_without_counting_them():
    windows = released_windows(BOXES, 2)  # the sides are 120, 60 and 234
    np.testing.assert_array_equal(windows, [[0, -20, 120, 100], [-14, -64, 220, 170]])
    np.testing.assert_array_equal(released_windows(BOXES, 1), windows[:1])
    assert released_windows(BOXES[1:2], 50).shape == (0, 4)


@pytest.mark.parametrize(("side", "kept"), [(111.4, 0), (111.6, 1), (112, 1)])
def test_released_windows_have_whole_pixels(side, kept):
    windows = released_windows(np.array([[0.3, 0.3, 0.3 + side, 20.3]]), 50, factor=1.0)
    assert len(windows) == kept
    np.testing.assert_array_equal(windows, np.round(windows))


@pytest.mark.parametrize("windows", [paper_windows, released_windows])
def test_proposals_that_are_none(windows):
    with pytest.raises(InputError, match=r"box 1 is \[100.0, 80.0, 30.0, 40.0\]; expected x0 < x1"):
        windows(np.array([[0, 0, 10, 10], [100, 80, 30, 40]]), 50)
    assert windows(np.zeros((0, 4)), 50).shape == (0, 4)


def test_the_whole_image():
    np.testing.assert_array_equal(whole_window(75, 100), [[0, -12.5, 100, 87.5]])
    np.testing.assert_array_equal(corner_window(75, 100, 500), [[0, 0, 500, 500]])
    np.testing.assert_array_equal(corner_window(600, 100, 500), [[0, 0, 600, 600]])


@pytest.mark.parametrize("size", [(375, 500), (224, 225), (1024, 300), (448, 448)])
def test_sliding_windows_show_every_pixel_twice_as_often_inside(size):
    height, width = size
    windows = sliding_windows(height, width, 224)
    shown = np.zeros(size, int)
    for x0, y0, x1, y1 in windows.astype(int):
        assert (x0, y0) >= (0, 0)
        assert (x1 - x0, y1 - y0) == (224, 224)
        assert x1 <= width
        assert y1 <= height
        shown[y0:y1, x0:x1] += 1
    assert shown.min() >= 1
    rows, columns = np.unique(windows[:, 1]), np.unique(windows[:, 0])
    assert len(windows) == len(rows) * len(columns)
    assert (np.diff(rows) <= 112).all()
    assert (np.diff(columns) <= 112).all()


def test_a_small_image_is_in_the_middle_of_one_window():
    np.testing.assert_array_equal(sliding_windows(100, 224, 224), [[0, -62, 224, 162]])
