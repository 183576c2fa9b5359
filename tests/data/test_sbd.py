"""SBD's MATLAB files: what is in them, and what is said of those that hold something else."""

import io

import numpy as np
import pytest
import scipy.io
from voc_archives import class_mat, instance_mat, random_example, sbd_mat

from deconvnet_jax.data.sbd import read_class_mat, read_instance_mat, read_sbd
from deconvnet_jax.errors import InputError


@pytest.mark.parametrize("compressed", [True, False])
def test_masks_and_classes(rng, tmp_path, compressed):
    _, _, label, instances = random_example("a", rng, border=False)
    categories = [label[instances == i][0] if (instances == i).any() else 1 for i in range(1, instances.max() + 1)]
    for file, name, fields in (
        ("cls.mat", "GTcls", {"Segmentation": label}),
        ("inst.mat", "GTinst", {"Segmentation": instances, "Categories": np.array(categories, np.uint8)[:, None]}),
    ):
        scipy.io.savemat(tmp_path / file, {name: fields}, do_compression=compressed)
    found = read_sbd(tmp_path / "cls.mat", tmp_path / "inst.mat")
    for mask, wanted in zip(found, (label, instances), strict=True):
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, wanted)
    assert read_instance_mat(tmp_path / "inst.mat")[1].tolist() == categories


def test_an_image_with_one_object_and_one_with_none():
    label = np.zeros((5, 7), np.uint8)
    instances = label.copy()
    assert not read_instance_mat(io.BytesIO(instance_mat(label, instances)))[0].any()
    label[1:3, 2:4], instances[1:3, 2:4] = 9, 1
    numbers, categories = read_instance_mat(io.BytesIO(instance_mat(label, instances)))
    np.testing.assert_array_equal(numbers, instances)
    assert categories.tolist() == [9]


GOOD = np.zeros((6, 8), np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no MATLAB file at all", "is no MATLAB file with GTcls"),
        (b"", "is no MATLAB file with GTcls"),
        (class_mat(GOOD)[:150], "is no MATLAB file with GTcls"),
        (sbd_mat("GTinst", Segmentation=GOOD), r"is no MATLAB file with GTcls \(it has GTinst\)"),
        (sbd_mat("GTcls", Boundaries=GOOD), "GTcls has no Segmentation; get SBD again"),
        (class_mat(np.zeros((6, 8, 3), np.uint8)), r"GTcls.Segmentation is uint8 \[6, 8, 3\]; expected uint8 \[H, W\]"),
        (class_mat(np.zeros((6, 8))), r"GTcls.Segmentation is float64 \[6, 8\]; expected"),
        (class_mat(np.zeros((0, 0), np.uint8)), r"is uint8 \[0, 0\]; expected"),
    ],
)
def test_unusable_class_masks(content, message, tmp_path):
    path = tmp_path / "2008_000002.mat"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_class_mat(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("label", "instance", "message"),
    [
        (GOOD, instance_mat(GOOD.T, GOOD.T.copy()), "is 6x8 pixels, but .* is 8x6; get SBD again"),
        (GOOD, sbd_mat("GTinst", Segmentation=GOOD), "GTinst has no Categories"),
        (GOOD, sbd_mat("GTinst", Segmentation=GOOD + 2, Categories=np.array([[3]])), "has an object 2, but 1 Categ"),
        (GOOD + 30, instance_mat(GOOD, GOOD), "has class 30; expected 0 to 20"),
        (GOOD, instance_mat(GOOD + 21, GOOD + 1), "has class 21; expected 0 to 20"),
    ],
)
def test_files_that_contradict_each_other(label, instance, message, tmp_path):
    (tmp_path / "cls.mat").write_bytes(class_mat(label))
    (tmp_path / "inst.mat").write_bytes(instance)
    with pytest.raises(InputError, match=message) as caught:
        read_sbd(tmp_path / "cls.mat", tmp_path / "inst.mat")
    assert "\n" not in str(caught.value)
