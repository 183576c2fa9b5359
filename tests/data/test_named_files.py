"""Files are found by names that differ in form only, through links, and never by chance."""

import os
import unicodedata

import pytest

from deconvnet_jax.data.image_names import NamedFiles, walk
from deconvnet_jax.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png")
COMPOSED, APART = (unicodedata.normalize(form, "Grüße Œuvre é") for form in ("NFC", "NFD"))


def below(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return NamedFiles.below(folder, SUFFIXES)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.jpg", "a"),
        ("a.JPG", "a"),
        ("A.Jpeg", "a"),
        ("cam1/a.png", "cam1/a"),
        ("Cam1/a.png", "cam1/A"),
        ("v1.2.jpg", "v1.2"),
        ("x.jpg.jpg", "x.jpg"),
        ("with blank.jpg", "with blank"),
        (" tab\tand blanks .jpg", " tab\tand blanks "),
        ("two\nlines.jpg", "two\nlines"),
        ("'quoted' \"name\".jpg", "'quoted' \"name\""),
        ("-rf.jpg", "-rf"),
        ("#1.jpg", "#1"),
        ("[ab]*?.jpg", "[ab]*?"),
        (f"{COMPOSED}.jpg", APART),
        (f"{APART}.jpg", COMPOSED),
        (f"{APART}/{APART}.JPG", f"{COMPOSED}/{COMPOSED}".upper()),
        (os.fsdecode(b"caf\xe9.jpg"), "café"),  # a disk of Latin-1
    ],
)
def test_found(tmp_path, file, name):
    assert below(tmp_path, file).find(name) == file


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (("a.jpg",), "b"),
        (("a.bmp",), "a"),
        (("Ab.jpg", "aB.jpg"), "ab"),  # which of the two?
        (("x/a.jpg",), "a"),
        (("a.jpg",), "../a"),
        (("a.jpg",), "/a"),
        (("a.jpg",), ""),
        (("a.jpg",), "a\0"),
        (("x/a.jpg",), "./x/a"),
    ],
)
def test_not_found(tmp_path, files, name):
    assert below(tmp_path / "data", *files).find(name) is None


def test_exact_names_come_first(tmp_path):
    files = below(tmp_path, "ab.png", "Ab.jpg", "aB.jpg")
    assert [files.find(name) for name in ("ab", "Ab", "aB", "AB")] == ["ab.png", "Ab.jpg", "aB.jpg", None]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a", "a"),
        ("a.jpg", "a"),
        ("a.png", "a"),  # a list made of the masks
        ("a.jpg.png", "a"),
        ("./a.jpg", "a"),
        ("/home/me/VOC2012/JPEGImages/a.jpg", "a"),
        ("../VOC2012/JPEGImages/cam1/b.jpg", "cam1/b"),
        (r"C:\data\JPEGImages\cam1\b.jpg", "cam1/b"),
        ("v1.2", "v1.2"),
        ("c.jpg", None),
        ("/etc/passwd", None),
    ],
)
def test_paths_are_shortened_to_names(tmp_path, text, name):
    assert below(tmp_path, "a.jpg", "cam1/b.jpg", "v1.2.jpg").name_of_path(text) == name


def test_a_hidden_file_is_not_replaced_by_another(tmp_path):
    with pytest.raises(InputError, match=r"'a\.png' is named, but a\.jpg is read for 'a'"):
        below(tmp_path, "a.jpg", "a.png").name_of("a.png")


@pytest.mark.parametrize(
    ("file", "name"),
    [("a_mask.png", "a"), ("gt-a.png", "a"), ("masks/a.png", "a"), ("a.bmp", "a"), ("ab.png", "a"), ("a1.png", "a")],
)
def test_similar(tmp_path, file, name):
    assert below(tmp_path, file).similar(name) == (None if file in ("ab.png", "a1.png") else file)


def test_links_are_followed_and_loops_end(tmp_path):
    (tmp_path / "disk/deep").mkdir(parents=True)
    (tmp_path / "disk/deep/a.jpg").write_text("a")
    data = tmp_path / "data"
    data.mkdir()
    for link, target in (
        ("folder", tmp_path / "disk"),
        ("file.jpg", tmp_path / "disk/deep/a.jpg"),
        ("broken.jpg", tmp_path / "nowhere"),
        ("loop", data),
        ("itself", data / "itself"),
    ):
        (data / link).symlink_to(target)
    (tmp_path / "disk/deep/back").symlink_to(tmp_path / "disk")
    assert [name for name, _ in walk(data)] == ["file.jpg", "folder/deep/a.jpg"]
    linked = tmp_path / "linked"
    linked.symlink_to(data)
    assert dict(walk(linked))["folder/deep/a.jpg"].read_text() == "a"
