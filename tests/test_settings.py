"""Tests the types and ranges of settings."""

from pathlib import Path

import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.settings import (
    Choice,
    LocalPath,
    Number,
    OrNone,
    Pair,
    Several,
    Switch,
    Text,
    check_values,
    chosen_path,
    similar_settings,
)

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("kind", "accepted", "refused"),
    [
        (Number(0, 2), (0, 2, 1.5), (-0.1, 2.1, NAN, INF, True, "1", None, (1,), 1j)),
        (Number(0, 2, above=True, below=True), (1e-9, 1), (0, 2)),
        (Number(0, 2, whole=True), (0, 2), (1.0, 3, "1", False)),
        (Choice(("a", "b")), ("a",), ("c", "", None, ("a",), ["a"], 1)),
        (Switch(), (True, False), (0, 1, "True", None)),
        (Text(), ("a b",), ("", "  ", "a\0", None, 3)),
        (LocalPath(), ("a", Path("a")), (None, 3, ("a",), b"a")),
        (OrNone(Switch()), (None, True), (0,)),
        (Several(Text(), least=1, distinct=True), (("a",), ["b", "a"]), ((), ("a", "a"), "ab", ("a", 1), None)),
        (Several(Number(0, 9, whole=True), ascending=True), ((), (1, 5, 5)), ((5, 1), ("abc",), (1, NAN), 3)),
        (Pair((Text(), Number(0, 1))), (("a", 0.5), ["a", 1]), (("a",), ("a", 1, 2), ("a", "b"), "ab", None)),
        (Pair((Number(0, 9), Number(0, 9)), ascending=True), ((1, 1), (1, 2)), ((2, 1), (NAN, 1))),
    ],
)
def test_what_is_accepted(kind, accepted, refused):
    assert [value for value in accepted if value not in kind] == []
    assert [value for value in refused if value in kind] == []
    with pytest.raises(InputError) as caught:
        check_values({"size": refused[0]}, {"size": kind}, "config.")
    assert str(caught.value).startswith("config.size=")
    assert str(caught.value).endswith(f"expected {kind}")


def test_what_does_not_exist_is_named_with_what_is_like_it():
    with pytest.raises(InputError, match=r"config\.crop_size: no such setting; did you mean config\.data\.crop_size\?"):
        check_values({"crop_size": 3}, {"data.crop_size": Number(0, 9)}, "config.")
    with pytest.raises(InputError, match=r"^mode='papr': expected one of paper, grid; did you mean paper\?$"):
        check_values({"mode": "papr"}, {"mode": Choice(("paper", "grid"))})


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("crop_size", ["data.crop_size"]),  # the section is missing
        ("dta.crop_size", ["data.crop_size"]),  # the section is misspelt
        ("batch_size", ["inference.batch_size", "calibrate.batch_size"]),
        ("data.crop_sise", ["data.crop_size"]),
        ("model.crop_sise", ["data.crop_size"]),
        ("data.mode", ["inference.mode"]),
        ("inference.mod", ["inference.mode"]),  # preferably of the same section
        ("data.qqqq", []),
    ],
)
def test_settings_that_a_misspelt_key_may_mean(key, expected):
    known = ["data.mod_", "data.crop_size", "inference.mode", "inference.batch_size", "calibrate.batch_size"]
    assert similar_settings(key, known) == expected


def test_long_values_are_cut():
    with pytest.raises(InputError) as caught:
        check_values({"name": "x" * 10_000}, {"name": Choice(("a",))})
    assert len(str(caught.value)) < 200


def test_paths(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    method_or_file = LocalPath(("grid", ""))
    assert chosen_path("~/a [1]", OrNone(LocalPath()), "x") == tmp_path / "a [1]"
    assert chosen_path("grid", method_or_file, "x") is chosen_path("", method_or_file, "x") is None
    assert chosen_path(None, OrNone(LocalPath()), "x") is chosen_path(3, Number(0, 9), "x") is None
    for value in ("", " ", "gs://bucket/a", "s3:/bucket"):
        with pytest.raises(InputError, match=r"^config\.file"):
            check_values({"file": value}, {"file": OrNone(LocalPath())}, "config.")
