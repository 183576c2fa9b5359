"""The command as people run it."""

from pathlib import Path

import mask_exports
import numpy as np
import pytest
from mask_exports import drawn, plain
from programs import run_program

from deconvnet_jax.data import class_names, split_names
from deconvnet_jax.data.mask_pairs import UNMATCHED
from deconvnet_jax.data.masks import KINDS, UNKNOWN
from experiments import import_masks
from experiments.tasks import import_masks as task

pytestmark = pytest.mark.end_to_end


def run(folder, source, *flags):
    given = [f"--{name}={path}" for name, path in source.items() if path]
    return run_program("import_masks", *given, f"--output={folder / 'voc'}", *flags)


def test_binary_masks(tmp_path):
    source = plain(tmp_path, lambda i: (drawn(i) == 1).astype(np.uint8) * 255)
    done = run(tmp_path, source)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("error: the masks hold only 0 and 255; give --binary=NAME")
    assert not (tmp_path / "voc").exists()
    done = run(tmp_path, source, "--binary=[bold]road", "--val=0.4", "--seed=3")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line == (
        f"{tmp_path / 'voc'}: train 3 images, val 2 images (val=0.4, seed 3), 2 classes from "
        "black and white, 0 pixels ignored (0.0%)"
    )
    assert "[bold]road" in done.stderr  # a name, no instruction for the table
    assert class_names(tmp_path / "voc") == ("background", "[bold]road")


def test_table_and_warnings(tmp_path):
    done = run(tmp_path, mask_exports.roboflow(tmp_path), "--ignore=cat")
    assert done.returncode == 0, done.stderr
    words = [line.replace("│", " ").split() for line in done.stderr.splitlines()]
    dogs = [[int((drawn(i) == 2).sum()) for i in part] for part in ((0, 1, 2), (3,), (4,))]
    cats = [[int((drawn(i) == 1).sum()) for i in part] for part in ((0, 1, 2), (3,), (4,))]
    assert ["1", "dog", "2", "3", str(sum(dogs[0])), "1", str(sum(dogs[1])), "0", "0"] in words
    assert ["255", "(ignored)", *(str(sum(part)) for part in cats)] in words
    assert split_names(tmp_path / "voc", "test") == ["e_jpg.rf.0123456789"]


def test_every_flag_reaches_the_import(tmp_path):
    source = plain(tmp_path, lambda i: drawn(i) * 100, suffix="_m.png")
    for name in ("a", "b", "c", "d", "e"):
        (tmp_path / f"photos/{name}.jpg").rename(tmp_path / f"photos/{name}_i.jpg")
    (tmp_path / "masks/e_m.png").unlink()
    (tmp_path / "train.txt").write_text("a\nb\nc\n")
    (tmp_path / "val.txt").write_text("d\ne\n")
    flags = ["--mask_suffix=_m", "--image_suffix=_i", "--kind=ids", "--names=0=background,200=dog"]
    flags += ["--unknown=ignore", "--unmatched=background"]
    flags += [f"--train_list={tmp_path / 'train.txt'}", f"--val_list={tmp_path / 'val.txt'}"]
    done = run(tmp_path, source, *flags)
    assert done.returncode == 0, done.stderr
    assert "train 3 images, val 2 images (by the lists), 2 classes from class ids" in done.stdout
    assert "warning: 1 of 5 images have no mask and count as background" in done.stderr


def test_noobjects_reaches_the_import(tmp_path, capsys):
    source = mask_exports.labelme(tmp_path)
    for objects in (True, False):
        output = tmp_path / f"voc{objects}"
        task.run(source["images"], None, output, objects=objects)
        assert (output / "SegmentationObject").exists() == objects
        assert ("12 objects" in capsys.readouterr().out) == objects


def test_choices_in_flags_are_those_of_the_code():
    source = Path(import_masks.__file__).read_text()
    for choices in (KINDS, UNKNOWN, UNMATCHED):
        assert str(list(choices)).replace("'", '"') in source
