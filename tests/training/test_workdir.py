"""Checks the folder of a run: its config is written once, and only the same config may resume it."""

import json
import re

import jax
import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.training import claim_workdir, save_checkpoint
from deconvnet_jax.weights import open_checkpoints

CONFIG = {
    "seed": 0,
    "num_steps": 10,
    "remat": False,
    "optimizer": {"drops": (3, 5), "learning_rate": 0.1},
    "data": {"cache_mb": 1},
}


def test_the_config_is_saved_and_the_same_config_may_continue(tmp_path):
    folder = claim_workdir(tmp_path / "new/run", CONFIG)
    saved = json.loads((folder / "config.json").read_text())
    assert saved == json.loads(json.dumps(CONFIG))
    assert claim_workdir(folder, CONFIG) == folder


def test_what_does_not_change_the_steps_already_done_may_change(tmp_path):
    claim_workdir(tmp_path, CONFIG)
    claim_workdir(tmp_path, {**CONFIG, "num_steps": 20, "remat": True, "data": {"cache_mb": 2}})
    assert json.loads((tmp_path / "config.json").read_text())["num_steps"] == 20


def test_a_run_from_before_a_setting_existed_may_continue_with_what_it_did(tmp_path):
    claim_workdir(tmp_path, CONFIG)
    newer = {**CONFIG, "data": {"cache_mb": 1, "zoom": (1.0, 1.0)}, "model": {"batch_norm": True}}
    claim_workdir(tmp_path, newer)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(InputError, match=r"data\.zoom was \[1\.0, 1\.0\] and is now \[1\.0, 2\.0\]"):
        claim_workdir(tmp_path, {**newer, "data": {"cache_mb": 1, "zoom": (1.0, 2.0)}})


def test_a_setting_may_change_by_its_whole_name_only(tmp_path):
    """`inference.crf` is harmless and `class_balance` acceptable; longer names with these prefixes are neither."""
    old = {**CONFIG, "class_balance": 0.5, "class_balance_rule": "share", "inference": {"crf": "none", "crf_size": 3}}
    claim_workdir(tmp_path, old)
    claim_workdir(tmp_path, {**old, "inference": {"crf": "usual", "crf_size": 3}})
    with pytest.raises(InputError, match=r"inference\.crf_size was 3 and is now 5"):
        claim_workdir(tmp_path, {**old, "inference": {"crf": "usual", "crf_size": 5}})
    claim_workdir(tmp_path, {**old, "class_balance": 1.0}, accept_changes=True)
    with pytest.raises(
        InputError, match="holds a run with another config: class_balance_rule was 'share' and is now 'own'"
    ):
        claim_workdir(tmp_path, {**old, "class_balance": 1.0, "class_balance_rule": "own"}, accept_changes=True)


def test_how_evaluations_segment_changes_on_purpose_only(tmp_path):
    """Evaluations choose the best checkpoint."""
    old = {**CONFIG, "inference": {"mode": "whole_image", "crf": "none"}}
    claim_workdir(tmp_path, old)
    claim_workdir(tmp_path, {**old, "inference": {"mode": "whole_image", "crf": "usual"}})
    changed = {**old, "inference": {"mode": "sliding_window", "crf": "usual"}}
    with pytest.raises(InputError, match=r"inference\.mode was 'whole_image' and is now .* or --accept_changes"):
        claim_workdir(tmp_path, changed)
    claim_workdir(tmp_path, changed, accept_changes=True)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"optimizer": {"drops": (3, 6), "learning_rate": 0.1}}, "optimizer.drops was [3, 5] and is now [3, 6]"),
        ({"extra": 1}, "extra was None and is now 1"),
    ],
)
def test_another_config_is_refused_and_changes_nothing(tmp_path, changed, named):
    claim_workdir(tmp_path, CONFIG)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(InputError) as error:
        claim_workdir(tmp_path, {**CONFIG, **changed})
    assert str(tmp_path) in str(error.value)
    assert named in str(error.value)
    assert (tmp_path / "config.json").read_bytes() == before


def test_changed_settings_of_learning_are_accepted_if_the_user_says_so(tmp_path, capsys):
    claim_workdir(tmp_path, CONFIG)
    slower = {**CONFIG, "optimizer": {"drops": (3, 5), "learning_rate": 0.01}}
    with pytest.raises(
        InputError, match="another --workdir to start a new run, or --accept_changes to resume with the new value"
    ):
        claim_workdir(tmp_path, slower)
    claim_workdir(tmp_path, slower, accept_changes=True)
    said = capsys.readouterr().err
    assert said == "resuming with a changed config: optimizer.learning_rate was 0.1 and is now 0.01\n"
    assert json.loads((tmp_path / "config.json").read_text())["optimizer"]["learning_rate"] == 0.01


def test_other_changes_are_not_accepted_in_any_case(tmp_path):
    claim_workdir(tmp_path, CONFIG)
    changed = {**CONFIG, "seed": 1, "optimizer": {"drops": (3, 5), "learning_rate": 0.01}}
    with pytest.raises(
        InputError, match="holds a run with another config: seed was 0 and is now 1; use another --workdir"
    ):
        claim_workdir(tmp_path, changed, accept_changes=True)


def test_a_file_as_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        claim_workdir(tmp_path / "file", CONFIG)


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"\xff\xfe{}", b"[" * 100_000])
def test_a_damaged_config_without_a_checkpoint_is_written_again(tmp_path, damage, capsys):
    (tmp_path / "config.json").write_bytes(damage)
    claim_workdir(tmp_path, CONFIG)
    assert re.fullmatch(r"warning: .*config\.json cannot be read .*; .* it is replaced.*\n", capsys.readouterr().err)
    assert json.loads((tmp_path / "config.json").read_text())["num_steps"] == 10


def save_step(workdir, config, **info):
    with open_checkpoints(workdir / "checkpoints") as manager:
        variables, info = {"a": np.ones(3, np.float32)}, {"config": config, "class_names": [], **info}
        save_checkpoint(manager, 2, variables=variables, optimizer=variables, data={}, info=info)


@pytest.mark.parametrize("damage", [None, b"", b'{"seed": 1', b"\xff\xfe", b"[]"])
def test_a_lost_or_damaged_config_is_that_of_the_newest_checkpoint(tmp_path, damage, capsys):
    save_step(tmp_path, CONFIG)
    path = tmp_path / "config.json"
    for config, refused in (({**CONFIG, "seed": 1}, True), (CONFIG, False)):
        path.unlink(missing_ok=True) if damage is None else path.write_bytes(damage)
        if refused:
            with pytest.raises(
                InputError, match=r"holds a run with another config: seed was 0 and is now 1; use another"
            ):
                claim_workdir(tmp_path, config)
        else:
            claim_workdir(tmp_path, config)
        assert capsys.readouterr().err.count("\n") == 1
    assert json.loads(path.read_text()) == json.loads(json.dumps(CONFIG))


def test_a_config_that_differs_from_the_checkpoint_lets_no_other_one_in(tmp_path):
    save_step(tmp_path, CONFIG)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**CONFIG, "seed": 1}))
    with pytest.raises(InputError, match="seed was 0 and is now 1"):
        claim_workdir(tmp_path, {**CONFIG, "seed": 1})
    claim_workdir(tmp_path, CONFIG)
    assert json.loads(path.read_text())["seed"] == 0


def test_changes_accepted_after_the_newest_checkpoint_stay_accepted(tmp_path):
    save_step(tmp_path, CONFIG)
    slower = {**CONFIG, "optimizer": {"drops": (3, 5), "learning_rate": 0.01}}
    claim_workdir(tmp_path, slower, accept_changes=True)
    claim_workdir(tmp_path, slower)
    claim_workdir(tmp_path, CONFIG)


def test_other_groups_for_batch_statistics_are_refused(tmp_path, monkeypatch, capsys):
    """Without `bn_group` the groups depend on the number of devices."""
    config = {**CONFIG, "batch_size": 8, "micro_batch": 0, "bn_group": 0}
    save_step(tmp_path, config, bn_group=8)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    claim_workdir(tmp_path, config)
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    message = r"bn_group was 8 and is now 4; use --config\.bn_group=8 to keep the groups .*, or --accept_changes"
    with pytest.raises(InputError, match=message):
        claim_workdir(tmp_path, config)
    claim_workdir(tmp_path, {**config, "bn_group": 8})
    capsys.readouterr()
    claim_workdir(tmp_path, config, accept_changes=True)
    assert capsys.readouterr().err == "resuming with a changed config: bn_group was 8 and is now 4\n"
    with pytest.raises(InputError, match=r"bn_group was 8 and is now 2; .*; use --config\.bn_group=8"):
        claim_workdir(tmp_path, {**config, "micro_batch": 2})
