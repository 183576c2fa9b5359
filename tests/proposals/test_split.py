"""Tests proposals of a split: equal for any number of processes, and after a kill no image is computed twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from deconvnet_jax.data import (
    DatasetSplit,
    EdgeBoxes,
    compute_proposals,
    load_proposals,
    propose_boxes,
    read_proposals,
    write_proposals,
)
from deconvnet_jax.errors import InputError
from deconvnet_jax.proposals.split import claim_partial, weights_digest

ROOT = Path(__file__).resolve().parents[2]


def same(one, other):
    assert one.names == other.names
    assert one.description == other.description
    for a, b in zip(one.boxes + one.scores, other.boxes + other.scores, strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_image_at_a_time_or_many_processes(train_split, tmp_path):
    seen = []
    for processes in (1, 2):
        path = tmp_path / f"{processes}.npz"
        compute_proposals(
            train_split, path, count=300, processes=processes, progress=lambda done, total: seen.append((done, total))
        )
    same(load_proposals(tmp_path / "1.npz"), load_proposals(tmp_path / "2.npz"))
    assert seen == [(i, 10) for i in range(11)] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.npz", "2.npz"]
    found = load_proposals(tmp_path / "1.npz")
    assert found.names == [train_split.name(i) for i in range(10)]
    assert found.description["weights"] == weights_digest("network", None)
    for i in (0, 9):  # Edge maps of batches differ in the last bits from those of single images.
        boxes, scores = propose_boxes(train_split[i].image, 300)
        assert np.mean((boxes[:50] == found.boxes[i][:50]).all(axis=1)) > 0.8
        np.testing.assert_allclose(scores[:20], found.scores[i][:20], rtol=1e-2)


def test_methods_without_a_network(train_split, tmp_path):
    compute_proposals(train_split, tmp_path / "grid.npz", method="grid", count=40, processes=2)
    found = load_proposals(tmp_path / "grid.npz")
    for i in range(10):
        np.testing.assert_array_equal(found.boxes[i], propose_boxes(train_split[i].image, 40, method="grid")[0])


def test_finished_files_are_kept_and_other_settings_refused(train_split, tmp_path):
    path = tmp_path / "grid.npz"
    compute_proposals(train_split, path, method="grid", count=40, processes=1)
    before = path.stat().st_mtime_ns
    compute_proposals(train_split, path, method="grid", count=40, processes=1)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"grid\.npz was made with other settings, .*; delete it to compute it again"):
        compute_proposals(train_split, path, method="grid", count=41)
    with pytest.raises(InputError, match="was made with other settings"):
        compute_proposals(train_split, path, method="grid", count=40, settings=EdgeBoxes(beta=0.5))
    with pytest.raises(InputError, match="method='grit': expected one of network"):
        compute_proposals(train_split, path, method="grit")


SLOW = """
import sys, time
from deconvnet_jax import data
split = data.open_split(data.prepare_voc_layout(*sys.argv[1:3]), "train")
data.compute_proposals(split, sys.argv[3], count=200, method="gradient", processes=2,
                       progress=lambda done, total: print(done, flush=True))
"""


def test_killed_and_run_again(scenes, train_split, tmp_path):
    """After SIGKILL, finished images are not computed again, and the file equals that of an uninterrupted run."""
    path, partial = tmp_path / "train.npz", tmp_path / "train.npz.partial"
    command = [sys.executable, "-c", SLOW, str(scenes), str(scenes.parent / "tfds"), str(path)]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    for line in running.stdout:
        if int(line) >= 3:
            break
    os.killpg(running.pid, signal.SIGKILL)
    running.stdout.close()
    running.wait()
    assert not path.exists()
    finished = {part.name: part.stat().st_mtime_ns for part in partial.glob("*.npz") if part.name[0] != "."}
    assert 3 <= len(finished) < 10
    time.sleep(0.02)
    options = {"count": 200, "method": "gradient", "processes": 2}
    with pytest.raises(InputError, match=r"partial was started with other settings or images; delete it"):
        compute_proposals(train_split, path, **options | {"count": 100})
    seen, stamps = [], {}

    def progress(done, total):
        seen.append(done)
        stamps.update({name: (partial / name).stat().st_mtime_ns for name in finished})

    compute_proposals(train_split, path, progress=progress, **options)
    assert seen == list(range(len(finished), 11))
    assert stamps == finished
    compute_proposals(train_split, tmp_path / "whole.npz", **options)
    same(load_proposals(path), load_proposals(tmp_path / "whole.npz"))
    assert not partial.exists()


def test_a_damaged_part_is_named(train_split, tmp_path):
    path, partial = tmp_path / "grid.npz", tmp_path / "grid.npz.partial"

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute_proposals(train_split, path, method="grid", processes=1, progress=stop)
    part = sorted(partial.glob("0*.npz"))[0]
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=rf"{part.name} is damaged; delete it and run again"):
        compute_proposals(train_split, path, method="grid", processes=1)
    part.unlink()
    compute_proposals(train_split, path, method="grid", processes=1)
    assert len(load_proposals(path).names) == 10


def test_images_that_were_changed_since(train_split, tmp_path):
    path = tmp_path / "grid.npz"
    compute_proposals(train_split, path, method="grid", count=5, processes=1)
    names, images = ([find(i) for i in range(10)] for find in (train_split.name, train_split.digest))
    assert len(read_proposals(path, names[3:], images=images[3:])) == 7
    with pytest.raises(InputError, match=rf"computed before 1 of 10 images were changed, among them '{names[4]}'"):
        read_proposals(path, names, images=[*images[:4], "other", *images[5:]])

    class Changed(DatasetSplit):
        def digest(self, index, masks=False):
            return "other"

    changed = Changed(train_split._parts)
    with pytest.raises(InputError, match=r"grid\.npz was computed before 10 of 10 images were changed"):
        compute_proposals(changed, path, method="grid", count=5)
    partial = tmp_path / "other.npz.partial"
    claim_partial(partial, {}, [*names, *images])
    with pytest.raises(InputError, match="was started with other settings or images"):
        claim_partial(partial, {}, [*names, *["other"] * 10])
    found = load_proposals(path)
    found.description.pop("images")  # Older versions wrote no digests.
    write_proposals(path, found)
    assert len(read_proposals(path, names, images=["other"] * 10)) == 10


class OneBadImage:
    """A split whose second image is invalid."""

    def __init__(self, split):
        self._split = split

    def __len__(self):
        return 3

    def name(self, index):
        return f"image {index}"

    def __getitem__(self, index):
        example = self._split[index]
        return example._replace(image=example.image[..., :2]) if index == 1 else example


def test_an_image_that_cannot_be_used_is_named(train_split, tmp_path):
    with pytest.raises(InputError, match=r"image 'image 1': expected a colour image") as caught:
        compute_proposals(OneBadImage(train_split), tmp_path / "a.npz", method="grid", processes=2)
    assert "\n" not in str(caught.value)
