"""Tests that panels show every picture and colour, and that text lies on paper only and is never cut off."""

import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.visualization import legend, overlay, result_panel, side_by_side, voc_palette

NAMES = ["background", "aeroplane", "bicycle", "bird", "a class with an unusually long name, jpqy"]


def places(panel, picture):
    """Returns the upper left corners at which the panel shows exactly this picture."""
    windows = np.lib.stride_tricks.sliding_window_view(panel, picture.shape)[:, :, 0]
    candidates = np.argwhere((windows[:, :, 0, 0] == picture[0, 0]).all(-1))
    return [(y, x) for y, x in candidates if np.array_equal(windows[y, x], picture)]


def is_paper(edge):
    return (edge == 255).all()


def assert_nothing_touches_the_edge(panel):
    assert is_paper(panel[-4:])
    assert is_paper(panel[:, :4])
    assert is_paper(panel[:, -4:])
    assert is_paper(panel[0])


def scene(rng, height, width, count):
    """Returns an image, and labels with the ids 0..count-1 in horizontal stripes."""
    image = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
    return image, np.repeat(np.arange(count), -(-height // count))[:height, None].repeat(width, 1).astype(np.uint8)


def test_panel_holds_image_truth_prediction_and_its_overlay(rng):
    image, labels = scene(rng, 250, 300, 4)
    truth = np.where(labels == 3, 255, labels).astype(np.uint8)
    panel = result_panel(image, labels, NAMES, truth=truth)
    assert panel.dtype == np.uint8
    pictures = (image, voc_palette()[truth], voc_palette()[labels], overlay(image, labels))
    found = [places(panel, picture) for picture in pictures]
    assert [len(at) for at in found] == [1, 1, 1, 1]
    rows, columns = zip(*(at[0] for at in found), strict=True)
    assert len(set(rows)) == 1
    assert rows[0] >= 15  # Titles are above.
    assert (np.diff(columns) >= 300).all()


@pytest.mark.parametrize("size", [(80, 100), (100, 80), (8, 8), (375, 500), (20, 900), (900, 20), (1500, 2000)])
@pytest.mark.parametrize("with_truth", [True, False])
def test_any_size(rng, size, with_truth):
    image, labels = scene(rng, *size, count=5)
    panel = result_panel(image, labels, NAMES, truth=labels if with_truth else None)
    assert_nothing_touches_the_edge(panel)
    assert panel.shape[0] < 720
    for class_id in np.unique(labels):  # In the maps, and in the legend at their right.
        colored = (panel == voc_palette()[class_id]).all(-1)
        assert colored.any()
        assert colored[:, -800:].any()


def test_only_classes_that_occur_are_named(rng):
    image, labels = scene(rng, 240, 240, 2)
    short = result_panel(image, labels, NAMES)
    long = result_panel(image, np.where(labels == 1, 4, labels).astype(np.uint8), NAMES)
    assert long.shape[1] > short.shape[1] + 100
    both = result_panel(image, labels, NAMES, truth=np.where(labels == 1, 4, labels).astype(np.uint8))
    assert both.shape[1] == long.shape[1] + 240 + 8  # One more picture, and the same legend.


def test_side_by_side_resizes_nothing(rng):
    images = [rng.integers(0, 255, (h, w, 3)).astype(np.uint8) for h, w in ((80, 100), (50, 20), (90, 33))]
    row = side_by_side(images, ["a title wider than its picture", "", "gjpqy"])
    for image in images:
        assert len(places(row, image)) == 1
    assert_nothing_touches_the_edge(row)


def test_titles_are_drawn_above(rng):
    image = rng.integers(0, 255, (60, 200, 3)).astype(np.uint8)
    with_title, without = side_by_side([image], ["image"]), side_by_side([image], [""])
    assert with_title.shape == without.shape
    (y, _), *_ = places(with_title, image)
    assert is_paper(without[:y])
    assert (with_title[:y] < 100).any()
    np.testing.assert_array_equal(with_title[y:], without[y:])


def test_legend_takes_more_columns_where_it_is_low():
    names, colors = [f"class {i}" for i in range(21)], [tuple(c) for c in voc_palette(21).tolist()]
    high, low, lowest = (legend(names, colors, height) for height in (800, 150, 3))
    assert high.shape[1] < low.shape[1] < lowest.shape[1]
    assert high.shape[0] <= 800
    assert low.shape[0] <= 150
    for picture in (high, low, lowest):
        assert set(colors) <= set(map(tuple, picture.reshape(-1, 3).tolist()))


def test_a_name_like_no_other_is_not_cut():
    def inked(name):
        picture = legend([name], [(255, 255, 255)], 40)
        return picture.shape[1], (picture[:, -2:] < 250).any()

    (short, _), (long, clipped) = inked("cat"), inked("W" * 60)
    assert long > short + 400
    assert not clipped


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: side_by_side([], []), "0 pictures and 0 titles; expected at least one"),
        (lambda: side_by_side([np.zeros((4, 4, 3), np.uint8)], []), "1 pictures and 0 titles"),
        (lambda: side_by_side([np.zeros((4, 4), np.uint8)], ["grey"]), "picture 'grey' is uint8"),
        (lambda: legend([], [], 100), "0 names and 0 colours; expected at least one"),
        (lambda: result_panel(np.zeros((9, 9, 3), np.uint8), np.full((9, 9), 7, np.uint8), NAMES), "7 has no name"),
        (lambda: result_panel(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 8), np.uint8), NAMES), "9x8"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_labels_of_many_classes(rng):
    """255 is an ordinary class here; pixels that the ground truth ignores stay ignored, in uint8 and uint16."""
    image = rng.integers(0, 255, (250, 300, 3)).astype(np.uint8)
    labels = np.repeat([[0], [255], [300], [458]], [60, 60, 60, 70], axis=0).repeat(300, 1).astype(np.uint16)
    names = [f"class {i}" for i in range(459)]
    truth = np.where(labels == 458, 255, 7).astype(np.uint8)
    wide = np.where(truth == 255, 65535, truth.astype(int)).astype(np.uint16)
    panel = result_panel(image, labels, names, truth=truth)
    np.testing.assert_array_equal(panel, result_panel(image, labels, names, truth=wide))
    palette = voc_palette(65536)
    for picture in (image, palette[wide], palette[labels], overlay(image, labels)):
        assert len(places(panel, picture)) == 1
    assert (overlay(image, labels, alpha=1.0)[labels == 255] == palette[255]).all(-1).mean() > 0.9
    assert (overlay(image, wide)[wide == 65535] == image[wide == 65535]).all(-1).mean() > 0.9
