"""Reads the same files from archives and folders, and refuses everything from damaged or hostile archives."""

import gzip
import hashlib
import io
import tarfile

import pytest
from voc_archives import write_folder, write_tar

from deconvnet_jax.data.archives import (
    Archive,
    Members,
    find_archive,
    find_near,
    find_renamed,
    stream_members,
    verify_archive,
)
from deconvnet_jax.errors import InputError

ROOT = "kit/data"


@pytest.fixture
def files(rng):
    """Two files of the data and one file outside its root."""
    names = (f"{ROOT}/a.txt", f"{ROOT}/deep/b.bin", "kit/readme")
    return {name: rng.bytes(int(rng.integers(100, 20_000))) for name in names}


def streamed(path, wanted=lambda name: True):
    return {name: member.getvalue() for name, member in stream_members(path, ROOT, wanted)}


def test_the_same_members_of_archive_and_folder(files, tmp_path):
    inside = {name.removeprefix(f"{ROOT}/"): content for name, content in files.items() if name.startswith(ROOT)}
    plain, packed = write_tar(tmp_path / "a.tar", files), write_tar(tmp_path / "a.tgz", files, compress=True)
    write_folder(tmp_path, files)
    for path in (plain, packed, tmp_path / ROOT):
        assert streamed(path) == inside
        assert list(streamed(path, lambda name: name.startswith("deep/"))) == ["deep/b.bin"]
    for path in (plain, tmp_path / ROOT):
        with Members(path, ROOT) as members:
            assert {name: members.read(name).getvalue() for name in ("deep/b.bin", "a.txt")} == inside
            assert "a.txt" in members
            assert "readme" not in members
            with pytest.raises(InputError, match=r"has no b\.txt, expected the whole data set; get the data again"):
                members.read("b.txt")
            assert str(path) in str(members.read("a.txt"))


def test_archives_and_extracted_folders_are_found(files, tmp_path):
    archive = Archive("a.tar", 0, "", ROOT, "http://example.org/a.tar")
    assert find_archive(tmp_path, archive) is None
    write_folder(tmp_path, files)
    for folder in ("", "kit", ROOT):
        assert find_archive(tmp_path / folder, archive) == tmp_path / ROOT
    assert find_archive(tmp_path / ROOT / "deep", archive) is None
    write_tar(tmp_path / "a.tar", files)
    assert find_archive(tmp_path, archive) == tmp_path / "a.tar"


def test_folders_that_were_moved_or_lie_near(files, tmp_path):
    archive = Archive("a.tar", 0, "", ROOT, "http://example.org/a.tar", ("deep",))
    write_folder(tmp_path / "top", files)
    assert find_near(tmp_path, archive) == tmp_path / "top"
    assert find_near(tmp_path / ROOT / "x", archive) is None
    assert find_near(tmp_path / "top" / ROOT / "deep", archive) == tmp_path / "top" / ROOT
    (tmp_path / "top" / ROOT).rename(tmp_path / "data")
    assert find_archive(tmp_path, archive) == find_archive(tmp_path / "data", archive) == tmp_path / "data"
    (tmp_path / "data").rename(tmp_path / "other")
    assert find_archive(tmp_path, archive) is None
    assert find_renamed(tmp_path, archive) == find_renamed(tmp_path / "other", archive) == tmp_path / "other"


def test_links_in_folders_are_followed(files, tmp_path):
    write_folder(tmp_path, files)
    (tmp_path / ROOT / "deep").rename(tmp_path / "disk")
    (tmp_path / ROOT / "deep").symlink_to(tmp_path / "disk")
    (tmp_path / ROOT / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / ROOT / "loop").symlink_to(tmp_path / ROOT)
    assert sorted(streamed(tmp_path / ROOT)) == ["a.txt", "deep/b.bin"]
    with Members(tmp_path / ROOT, ROOT) as members:
        assert members.read("deep/b.bin").getvalue() == files[f"{ROOT}/deep/b.bin"]
        assert members.below("deep") == ["b.bin"]


def test_size_and_checksum(files, tmp_path):
    path = write_tar(tmp_path / "a.tar", files)
    content = path.read_bytes()
    right = Archive("a.tar", len(content), hashlib.sha256(content).hexdigest(), ROOT, "http://example.org/a.tar")
    verify_archive(path, right)
    with pytest.raises(InputError, match=r"the download is incomplete; download it again from http://example\.org"):
        verify_archive(path, right._replace(size=len(content) + 1))
    with pytest.raises(InputError, match="the download is another file"):
        verify_archive(path, right._replace(size=len(content) - 1))
    path.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    with pytest.raises(InputError, match=f"expected {right.sha256}: it is damaged or another file"):
        verify_archive(path, right)


def hostile(path, member):
    with tarfile.open(path, "w") as tar:
        tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def entry(name, kind=tarfile.REGTYPE, **fields):
    member = tarfile.TarInfo(name)
    member.type = kind
    for key, value in fields.items():
        setattr(member, key, value)
    return member


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (entry("../evil", size=4), "'../evil', which leads out of the archive's folder; do not trust this file"),
        (entry(f"{ROOT}/../../../evil", size=4), "which leads out of the archive's folder"),
        (entry("../two\nlines", size=4), "'../two\\nlines', which leads out of the archive's folder"),
        (entry("/etc/evil", size=4), "'/etc/evil', which leads out of the archive's folder"),
        (
            entry(f"{ROOT}/link", tarfile.SYMTYPE, linkname="/etc/passwd"),
            "link', which is neither a file nor a folder;",
        ),
        (entry(f"{ROOT}/link", tarfile.LNKTYPE, linkname="../secret"), "link', which is neither a file nor a folder;"),
        (entry(f"{ROOT}/pipe", tarfile.FIFOTYPE), "pipe', which is neither a file nor a folder"),
    ],
)
def test_hostile_members_are_refused(member, message, tmp_path):
    path = hostile(tmp_path / "evil.tar", member)
    for read in (streamed, lambda path: Members(path, ROOT)):
        with pytest.raises(InputError) as caught:
            read(path)
        assert message in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_damaged_archives(files, tmp_path):
    plain, packed = write_tar(tmp_path / "a.tar", files), write_tar(tmp_path / "a.tgz", files, compress=True)
    (tmp_path / "cut.tar").write_bytes(plain.read_bytes()[: len(files[f"{ROOT}/a.txt"]) // 2 + 2048])
    (tmp_path / "cut.tgz").write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
    (tmp_path / "header.tgz").write_bytes(packed.read_bytes()[:5])
    with tarfile.open(plain) as tar:
        second = tar.getmembers()[1].offset
    (tmp_path / "second.tar").write_bytes(plain.read_bytes()[: second + 100])
    (tmp_path / "second.tgz").write_bytes(gzip.compress(plain.read_bytes()[: second + 100]))
    (tmp_path / "noise.tar").write_bytes(files[f"{ROOT}/a.txt"])
    (tmp_path / "empty.tar").write_bytes(b"")
    for name in ("cut.tar", "cut.tgz", "header.tgz", "second.tar", "second.tgz", "noise.tar", "empty.tar"):
        with pytest.raises(InputError, match=rf"{name} is damaged or is not a tar archive .*; download it again"):
            streamed(tmp_path / name)
    for name in ("cut.tar", "second.tar", "noise.tar", "a.tgz", "empty.tar"):
        with (
            pytest.raises(InputError, match=rf"{name} is damaged or is not a tar arch"),
            Members(tmp_path / name, ROOT),
        ):
            pass
    # The archive is cut within a member, so its index is complete but the member's content is not.
    content = plain.read_bytes()
    with Members(plain, ROOT) as members:
        plain.write_bytes(content[: content.index(files[f"{ROOT}/deep/b.bin"][:64]) + 10])
        with pytest.raises(InputError, match="is damaged"):
            members.read("deep/b.bin")


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a")
    with Members(tmp_path, ROOT) as members:
        (tmp_path / "a.txt").unlink()
        with pytest.raises(InputError, match=r"a\.txt cannot be read \(No such file or directory\)"):
            members.read("a.txt")
