"""Checks that a run gets back what it saved, bit for bit, and survives damaged checkpoints and full disks."""

import asyncio
import gc
import re
import resource
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from deconvnet_jax import buckets
from deconvnet_jax.errors import InputError
from deconvnet_jax.training import add_metrics, checkpoints, restore_newest, save_checkpoint
from deconvnet_jax.training.checkpoints import DAMAGED
from deconvnet_jax.weights import finish_saving, open_checkpoints

INFO = {"config": {}, "class_names": []}


@pytest.fixture
def trees(rng):
    variables = {"params": {"conv": {"kernel": rng.standard_normal((40, 50)).astype(np.float32)}}}
    return variables, {"momentum": {"trace": rng.standard_normal(7).astype(np.float32), "count": np.int32(3)}}


def scaled(tree, factor):
    return jax.tree.map(lambda leaf: (leaf * factor).astype(leaf.dtype), tree)


def save(folder, trees, *steps):
    with open_checkpoints(folder) as manager:
        for step in steps:
            variables, optimizer = scaled(trees, step)
            save_checkpoint(manager, step, variables=variables, optimizer=optimizer, data={"position": step}, info=INFO)


def restore(folder, trees):
    with open_checkpoints(folder) as manager:
        return restore_newest(manager, *trees)


def assert_is_step(restored, trees, step):
    found, variables, optimizer, data = restored
    assert (found, data) == (step, {"position": step})
    jax.tree.map(np.testing.assert_array_equal, (variables, optimizer), scaled(trees, step))


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_training_resumes_with_exactly_what_was_saved(tmp_path, trees):
    save(tmp_path, trees, 2, 5)
    assert_is_step(restore(tmp_path, trees), trees, 5)


def test_averages_are_an_item_of_their_step(tmp_path, trees):
    """They return bit for bit, and a step whose averages are damaged is not used."""
    folder, (variables, optimizer) = tmp_path / "checkpoints", trees
    trees = variables, {**optimizer, "averages": scaled(variables, 0.5)}
    save(folder, trees, 2, 5)
    assert_is_step(restore(folder, trees), trees, 5)
    path = largest_file(folder / "5/averages")
    data = bytearray(path.read_bytes())
    flip(data)
    path.write_bytes(data)
    assert_is_step(restore(folder, trees), trees, 2)


def test_nothing_is_restored_from_an_empty_folder(tmp_path, trees):
    assert restore(tmp_path / "checkpoints", trees) is None


def flip(data):
    data[len(data) // 2] ^= 0x10


def truncate(data):
    del data[len(data) // 2 :]


def zero(data):
    data[:] = bytes(len(data))


@pytest.mark.parametrize("damage", [flip, truncate, zero])
def test_a_damaged_newest_step_is_set_aside_and_the_one_before_is_used(tmp_path, trees, capsys, damage):
    """Holds wherever the damage is; a flipped bit decompresses to other values without an error."""
    folder = tmp_path / "checkpoints"
    save(folder, trees, 2, 5)
    path = largest_file(folder / "5/variables")
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    assert_is_step(restore(folder, trees), trees, 2)
    warning = capsys.readouterr().err
    assert re.match(
        r"warning: the checkpoint of step 5 cannot be read \(.+\); it was moved to .*checkpoints_damaged/5\n", warning
    )
    assert warning.count("\n") == 1
    assert not (folder / "5").exists()
    assert (tmp_path / DAMAGED / "5").is_dir()
    save(folder, trees, 5)  # the resumed run reaches this step again
    assert_is_step(restore(folder, trees), trees, 5)


@pytest.mark.parametrize("part", ["optimizer", "data/metadata", "info"])
def test_a_step_without_one_of_its_parts(tmp_path, trees, part):
    folder = tmp_path / "checkpoints"
    save(folder, trees, 2, 5)
    (folder / "5" / part).rename(tmp_path / "taken")
    assert_is_step(restore(folder, trees), trees, 2)


def test_a_second_damaged_step_of_the_same_number_is_kept_too(tmp_path, trees):
    folder = tmp_path / "checkpoints"
    for _ in range(2):
        save(folder, trees, 5) if (folder / "2").exists() else save(folder, trees, 2, 5)
        zero_file = largest_file(folder / "5/variables")
        zero_file.write_bytes(bytes(10))
        assert_is_step(restore(folder, trees), trees, 2)
    assert {path.name for path in (tmp_path / DAMAGED).iterdir()} == {"5", "5_1"}


def test_no_step_that_can_be_read_is_an_error_and_nothing_is_moved(tmp_path, trees):
    folder = tmp_path / "checkpoints"
    save(folder, trees, 2, 5)
    for step in (2, 5):
        largest_file(folder / f"{step}/variables").write_bytes(b"")
    with pytest.raises(InputError, match=r"no checkpoint in .* can be read \(step 5: .*; step 2: .*--workdir") as error:
        restore(folder, trees)
    assert "\n" not in str(error.value)
    assert (folder / "5").exists()


def test_what_a_killed_run_was_writing_is_removed(tmp_path, trees):
    save(tmp_path, trees, 2)
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "3.orbax-checkpoint-tmp/large").write_bytes(bytes(1000))
    assert_is_step(restore(tmp_path, trees), trees, 2)
    assert not (tmp_path / "3.orbax-checkpoint-tmp").exists()


def test_scores_are_added_to_a_saved_step_and_decide_which_one_is_kept(tmp_path, trees):
    with open_checkpoints(tmp_path) as manager:
        for step, mean_iou in ((1, 0.3), (2, 0.7), (3, 0.1), (4, 0.2), (5, 0.3)):
            save_checkpoint(manager, step, variables=trees[0], optimizer=trees[1], data={}, info=INFO)
            add_metrics(manager, step, {"mean_iou": mean_iou})
    with open_checkpoints(tmp_path) as manager:
        assert sorted(manager.all_steps()) == [2, 4, 5]
        assert manager.best_step() == 2
        assert manager.metrics(4) == {"mean_iou": 0.2}


def test_a_full_disk_is_one_line_and_the_last_checkpoint_is_intact(tmp_path, trees):
    """A limit on the size of files stands in for a full disk."""
    large = {"params": {"conv": {"kernel": np.random.default_rng(0).standard_normal((600, 500)).astype(np.float32)}}}
    save(tmp_path, (large, trees[1]), 2)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_checkpoints(tmp_path) as manager:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
        try:
            save_checkpoint(manager, 3, variables=large, optimizer=trees[1], data={}, info=INFO)
            with pytest.raises(InputError) as error:
                finish_saving(manager)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    message = str(error.value)
    assert "\n" not in message
    reason = "the disk is full, or a limit on file sizes is reached"
    assert (
        f"could not be written to {tmp_path} ({reason}); the checkpoint of step 2 is intact: free disk space" in message
    )
    assert_is_step(restore(tmp_path, (large, trees[1])), (large, trees[1]), 2)


FULL_DISK = """
import resource, sys
import numpy as np
from deconvnet_jax.training import save_checkpoint
from deconvnet_jax.weights import finish_saving, open_checkpoints

rng = np.random.default_rng(0)
arrays = {f"layer{i}": {"kernel": rng.standard_normal((300, 300)).astype(np.float32)} for i in range(8)}
try:
    with open_checkpoints(sys.argv[1]) as manager:
        save_checkpoint(manager, 1, variables=arrays, optimizer=arrays, data={}, info={})
        finish_saving(manager)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        save_checkpoint(manager, 2, variables=arrays, optimizer=arrays, data={}, info={})
        save_checkpoint(manager, 3, variables=arrays, optimizer=arrays, data={}, info={})
except ValueError as error:
    sys.exit(f"error: {error}")
"""


def test_background_threads_print_nothing_on_a_full_disk(tmp_path):
    """Without filters, Orbax logs every failure several times, and TensorStore's threads print stack traces."""
    done = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path / "c"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "the checkpoint of step 1 is intact: free disk space and repeat the command" in done.stderr


FULL = "RESOURCE_EXHAUSTED: Failed to write 175819 bytes to file 10: No space left on device [os_error_code='28']"


@pytest.mark.parametrize(
    ("module", "said", "logged"),
    [("/orbax/serialization.py", "it failed", 0), ("/other.py", FULL, 0), ("/other.py", "No space left", 2)],
)
def test_failures_that_orbax_and_tensorstore_leave_behind_are_not_logged(tmp_path, caplog, module, said, logged):
    """When tasks and futures are garbage-collected, asyncio logs their exceptions if nobody retrieved them."""
    with open_checkpoints(tmp_path):
        pass
    names = {"error": ValueError(said)}
    exec(compile("async def write():\n    raise error", f"/site-packages{module}", "exec"), names)

    async def leave_behind():
        loop = asyncio.get_running_loop()
        task = loop.create_task(names["write"]())
        await asyncio.wait([task])
        loop.create_future().set_exception(names["error"])

    asyncio.run(leave_behind())
    names.clear()
    gc.collect()
    assert [record.name for record in caplog.records] == logged * ["asyncio"]


def test_a_folder_that_is_removed_is_said(tmp_path, trees):
    with open_checkpoints(tmp_path / "run/checkpoints") as manager:
        save_checkpoint(manager, 2, variables=trees[0], optimizer=trees[1], data={}, info=INFO)
        finish_saving(manager)
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(InputError, match=r"checkpoints was removed or renamed while the run wrote to it"):
            save_checkpoint(manager, 3, variables=trees[0], optimizer=trees[1], data={}, info=INFO)


def test_a_changed_position_in_the_data_is_noticed(tmp_path, trees):
    save(tmp_path / "c", trees, 2, 110)
    path = tmp_path / "c/110/data/metadata"
    path.write_text(path.read_text().replace("110", "111"))
    assert_is_step(restore(tmp_path / "c", trees), trees, 2)


@pytest.mark.parametrize("damage", ["", '{"mean', None])
def test_damaged_scores_do_not_stop_a_run_from_being_resumed(tmp_path, trees, capsys, damage):
    save(tmp_path, trees, 1, 2)
    (tmp_path / "1/metrics/metrics").mkdir(parents=True) if damage is None else (tmp_path / "1/metrics").mkdir()
    if damage is not None:
        (tmp_path / "1/metrics/metrics").write_text(damage)
    with open_checkpoints(tmp_path) as manager:
        assert_is_step(restore_newest(manager, *trees), trees, 2)
        add_metrics(manager, 1, {"mean_iou": 0.5})
        assert manager.metrics(1) == {"mean_iou": 0.5}
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "1/metrics/metrics cannot be read" in warning


def test_a_flipped_bit_in_any_file_of_a_step_is_noticed_or_harmless(tmp_path, trees, rng, monkeypatch):
    """Falling back to the step before counts as noticed; whatever is restored equals what was written."""
    save(tmp_path / "c", trees, 2, 5)
    monkeypatch.setattr(checkpoints, "_set_aside", lambda manager, damaged: None)
    fallen_back = 0
    for path in sorted(path for path in (tmp_path / "c/5").rglob("*") if path.is_file()):
        good = path.read_bytes()
        for position in rng.integers(0, len(good), 3):
            bad = bytearray(good)
            bad[position] ^= 1 << rng.integers(0, 8)
            path.write_bytes(bad)
            restored = restore(tmp_path / "c", trees)
            assert_is_step(restored, trees, restored[0])
            fallen_back += restored[0] == 2
        path.write_bytes(good)
    assert fallen_back >= 10


def test_a_damaged_step_in_a_bucket(bucket, trees, capsys):
    """The step is set aside by copying; later steps can take its place, and a half-written one is removed."""
    folder = bucket / "damaged/checkpoints"
    save(folder, trees, 2, 5)
    found = buckets._below(folder / "5/variables")
    largest = max(found, key=lambda name: found[name]["size"])
    content = bytearray((folder / "5/variables" / largest).read_bytes())
    flip(content)
    (folder / "5/variables" / largest).write_bytes(bytes(content))
    assert_is_step(restore(folder, trees), trees, 2)
    assert "warning: the checkpoint of step 5 cannot be read" in capsys.readouterr().err
    assert set(buckets._below(bucket / "damaged" / DAMAGED / "5/variables")) == set(found)
    save(folder, trees, 5, 6)
    assert_is_step(restore(folder, trees), trees, 6)
    (folder / "6/commit_success.txt").unlink()
    assert_is_step(restore(folder, trees), trees, 5)
    assert not (folder / "6").is_dir()
