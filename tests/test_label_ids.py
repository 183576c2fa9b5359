"""Label maps of few and of many classes."""

import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.label_ids import check_ignore_label, ignored_id, label_type


@pytest.mark.parametrize(
    ("classes", "dtype"),
    [(1, np.uint8), (21, np.uint8), (255, np.uint8), (256, np.uint16), (459, np.uint16), (65_535, np.uint16)],
)
def test_every_class_and_the_ignored_id_fit(classes, dtype):
    assert label_type(classes) is dtype
    ids = np.arange(classes)
    np.testing.assert_array_equal(ids.astype(label_type(classes)), ids)
    assert ignored_id(classes) >= classes
    check_ignore_label(classes, ignored_id(classes))


def test_too_many_classes():
    with pytest.raises(InputError, match="65536 classes: label maps hold at most 65,535"):
        label_type(65_536)


def test_255_is_a_class_of_many():
    check_ignore_label(255, 255)
    check_ignore_label(459, 0)
    with pytest.raises(InputError, match=r"id of a class when there are 256; .* give ignore_label=65535"):
        check_ignore_label(256, 255)
