"""Tests files and folders in a bucket: whole objects, refused addresses, copies on the local disk."""

import os
from pathlib import Path

import pytest

from deconvnet_jax import buckets, files
from deconvnet_jax.errors import InputError


@pytest.fixture
def folder(bucket, request):
    return bucket / request.node.name.replace("[", "-").replace("]", "")


def test_an_address_is_a_path(bucket):
    path = files.user_path("gs://bucket/run/a.txt", "--workdir", in_bucket=True)
    assert (str(path), str(path.parent), path.name) == ("gs://bucket/run/a.txt", "gs://bucket/run", "a.txt")
    assert path.absolute() == path.resolve() == path
    assert isinstance(path.parent / "b", buckets.Address)
    assert files.as_path(Path(str(path))) == path  # pathlib writes gs:/ with one slash.
    assert files.user_path(path, "--workdir", in_bucket=True) == path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://bucket/a", "expected gs://BUCKET/"),
        ("gs://", "expected gs://BUCKET/"),
        ("gs://no-such/a", "there is no bucket no-such"),
        ("gs://bucket/a[1]", "must not contain"),
        ("gs://bucket/a/../b", "must not contain"),
    ],
)
def test_other_addresses_are_refused(bucket, text, said):
    with pytest.raises(InputError, match=rf"^--workdir=.*{said}"):
        files.user_path(text, "--workdir", in_bucket=True)


def test_a_package_that_is_missing(bucket, monkeypatch):
    monkeypatch.setattr(buckets, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--workdir=gs://bucket/a: gs:// needs the package .* pip install"):
        files.user_path("gs://bucket/a", "--workdir", in_bucket=True)


def test_an_object_is_whole_or_absent(folder, rng):
    path, content = folder / "a.bin", rng.bytes(100_000)
    with files.whole_file(path) as temporary:
        assert temporary.suffix == ".bin"
        temporary.write_bytes(content[:1000])
        assert not path.exists()
        temporary.write_bytes(content)
    assert path.read_bytes() == content
    with pytest.raises(ZeroDivisionError), files.whole_file(path) as temporary:
        temporary.write_text(str(1 / 0))
    assert path.read_bytes() == content
    assert [found.name for found in folder.iterdir()] == ["a.bin"]


def test_objects_and_folders_are_renamed(folder):
    for name in ("a/1", "a/b/2", "c"):
        files.write_text(folder / name, name)
    (folder / "a").rename(folder / "d/e")
    (folder / "c").rename(folder / "f")
    assert sorted(buckets._below(folder)) == ["d/e/1", "d/e/b/2", "f"]
    assert (folder / "d/e/b/2").read_text() == "a/b/2"
    assert list((folder / "a").iterdir()) == []


def test_large_objects_come_in_parts(folder, rng):
    content = rng.bytes(6 * 2**20)  # gcsfs uploads 5 MiB and more in parts.
    with files.whole_file(folder / "a.bin") as temporary:
        temporary.write_bytes(content)
    assert (folder / "a.bin").read_bytes() == content


def test_what_the_store_refuses_is_one_line(folder, monkeypatch):
    def refuse(*_, **__):
        raise OSError("Forbidden: https://storage.googleapis.com\nno permission")

    monkeypatch.setattr(buckets._store(), "put_file", refuse)
    with pytest.raises(InputError) as refused:
        files.write_text(folder / "a.txt", "all")
    assert str(refused.value) == (
        f"{folder}/a.txt could not be written (Forbidden: https://storage.googleapis.com no permission); get write "
        "access, or name another folder"
    )


def test_a_lock_is_a_warning(folder, capsys):
    with files.locked(folder, f"--workdir={folder}"):
        pass
    said = f"warning: {folder} cannot be locked (it lies in a bucket); do not start a second program that writes to it"
    assert capsys.readouterr().err.strip() == said


def test_a_growing_object(folder, monkeypatch):
    path = folder / "metrics.jsonl"
    files.write_text(path, "1\n")
    growing = files.open_growing(path)
    growing.write(b"2\n")
    assert path.read_text() == "1\n"  # Lines are not uploaded one by one.
    growing.upload()
    assert path.read_text() == "1\n2\n"
    monkeypatch.setattr(buckets, "_PERIOD", 0)
    growing.write(b"3\n")
    assert path.read_text() == "1\n2\n3\n"
    monkeypatch.undo()
    growing.write(b"4\n")
    growing.close()
    assert path.read_text() == "1\n2\n3\n4\n"


def test_copies_are_kept_until_the_objects_change(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    files.write_text(folder / "data/a.txt", "a")
    files.write_text(folder / "data/b/c.txt", "c")
    copy = files.local_copy(folder / "data")
    assert (copy.name, (copy / "a.txt").read_text(), (copy / "b/c.txt").read_text()) == ("data", "a", "c")
    assert "copying" in capsys.readouterr().err
    assert files.local_copy(folder / "data") == copy
    assert capsys.readouterr().err == ""
    files.write_text(folder / "data/a.txt", "A")
    changed = files.local_copy(folder / "data")
    assert (changed / "a.txt").read_text() == "A"
    assert sorted(found.name[:5] for found in (tmp_path / "deconvnet_jax").iterdir()) == ["data-", "data-"]
    assert files.local_copy(tmp_path) == tmp_path
    assert not [name for name in os.listdir(tmp_path / "deconvnet_jax") if name.startswith(".")]


def test_a_folder_that_libraries_write(folder, tmp_path):
    with files.written_locally(folder / "profile") as local:
        (local / "plugins").mkdir()
        (local / "plugins/trace.pb").write_bytes(b"trace")
        assert not (folder / "profile").is_dir()
    assert (folder / "profile/plugins/trace.pb").read_bytes() == b"trace"
    with files.written_locally(tmp_path / "profile") as local:
        assert local == tmp_path / "profile"
