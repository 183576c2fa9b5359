"""The folder of a run: written once, continued with the same config only."""

import json

import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.training import claim_workdir

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
    with pytest.raises(InputError, match=r"data\.zoom is \[1\.0, 1\.0\] there and \[1\.0, 2\.0\] now"):
        claim_workdir(tmp_path, {**newer, "data": {"cache_mb": 1, "zoom": (1.0, 2.0)}})


def test_how_evaluations_segment_changes_on_purpose_only(tmp_path):
    """The best checkpoint is chosen by them."""
    old = {**CONFIG, "inference": {"mode": "whole_image", "crf": "none"}}
    claim_workdir(tmp_path, old)
    claim_workdir(tmp_path, {**old, "inference": {"mode": "whole_image", "crf": "usual"}})
    changed = {**old, "inference": {"mode": "sliding_window", "crf": "usual"}}
    with pytest.raises(InputError, match=r"inference\.mode is 'whole_image' there .* or --accept_changes"):
        claim_workdir(tmp_path, changed)
    claim_workdir(tmp_path, changed, accept_changes=True)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "seed is 0 there and 1 now"),
        ({"optimizer": {"drops": (3, 6), "learning_rate": 0.1}}, "optimizer.drops is [3, 5] there and [3, 6] now"),
        ({"extra": 1}, "extra is None there and 1 now"),
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
    with pytest.raises(InputError, match="another --workdir to start anew, or --accept_changes to go on with it"):
        claim_workdir(tmp_path, slower)
    claim_workdir(tmp_path, slower, accept_changes=True)
    said = capsys.readouterr().err
    assert said == "going on with another config: optimizer.learning_rate is 0.1 there and 0.01 now\n"
    assert json.loads((tmp_path / "config.json").read_text())["optimizer"]["learning_rate"] == 0.01


def test_other_changes_are_not_accepted_in_any_case(tmp_path):
    claim_workdir(tmp_path, CONFIG)
    changed = {**CONFIG, "seed": 1, "optimizer": {"drops": (3, 5), "learning_rate": 0.01}}
    with pytest.raises(
        InputError, match="belongs to another config: seed is 0 there and 1 now; give another --workdir"
    ):
        claim_workdir(tmp_path, changed, accept_changes=True)


def test_a_damaged_config_and_a_file_as_folder_are_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json is not valid JSON"):
        claim_workdir(tmp_path, CONFIG)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        claim_workdir(tmp_path / "file", CONFIG)
