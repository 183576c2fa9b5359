"""Tests the picture of a confusion matrix."""

import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.visualization import confusion_picture


def test_shares_are_of_the_true_class():
    figure = confusion_picture(np.array([[75, 25, 0], [1, 999, 0], [0, 0, 0]]), ["a", "b", "$c$"])
    axes = figure.axes[0]
    written = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "75", (0, 1): "25", (1, 1): "100"}  # Values below 0.5 % are not written.
    shown = axes.images[0].get_array()
    assert shown[0].tolist() == [75, 25, 0]
    assert np.ma.getmaskarray(shown)[2].all()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", r"\$c\$"]
    figure.canvas.draw()


def test_names_must_fit():
    with pytest.raises(InputError, match=r"shape \(2, 2\), but there are 3 class names; expected one per row"):
        confusion_picture(np.eye(2), ["a", "b", "c"])
