"""Names match files that differ only in form, and lists in common forms are read or refused with one line."""

import codecs
import os
import unicodedata

import pytest

from deconvnet_jax.data.image_names import NamedFiles, read_list, read_text, walk
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
        (os.fsdecode(b"caf\xe9.jpg"), "café"),  # A disk with names in Latin-1.
    ],
)
def test_found(tmp_path, file, name):
    assert below(tmp_path, file).find(name) == file


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (("a.jpg",), "b"),
        (("a.bmp",), "a"),
        (("Ab.jpg", "aB.jpg"), "ab"),  # Either of two files could be meant.
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
        ("a.png", "a"),  # A list of the masks.
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
    with pytest.raises(InputError, match=r"names 'a\.png', but a\.jpg is read for the name 'a'"):
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


# Lists.


NAMES = ["im0", "im1", "café", "a photo"]


@pytest.fixture
def photographs(tmp_path):
    for name in (*NAMES, "cam1/b", "1 0"):
        path = tmp_path / f"JPEGImages/{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return NamedFiles.below(tmp_path / "JPEGImages", (".jpg", ".png"))


def names(tmp_path, photographs, content):
    path = tmp_path / "train.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_list(path, photographs).names


def lines(form, names=NAMES):
    return "".join(form.format(name) + "\n" for name in names)


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "{}.jpg",
        "{}.JPG",
        "  {}\t ",
        '"{}"',
        "./{}.jpg",
        "JPEGImages/{}.jpg",
        "/data/my photos/VOC2012/JPEGImages/{}.jpg",
        "D:\\VOC2012\\JPEGImages\\{}.jpg",
        "/JPEGImages/{0}.jpg /SegmentationClass/{0}.png",
        "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png",
        "JPEGImages/{0} SegmentationClass/{0}",
        "{0}.jpg,{0}.png",
        "{0}.jpg; {0}_mask.png",
        "{0}.jpg\t{0}.png",
        '"{0}.jpg","{0}.png"',
        "{}.jpg # the first\n",
        "# comment\n{}\n\n",
    ],
)
def test_one_name_of_each_line(tmp_path, photographs, form):
    assert names(tmp_path, photographs, lines(form)) == NAMES


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode(),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-16-be"),
        lambda text: text.encode("utf-32"),
        lambda text: text.encode("latin-1"),
        lambda text: unicodedata.normalize("NFD", text).encode(),
    ],
)
def test_encodings_and_ends_of_lines(tmp_path, photographs, encode, end):
    found = names(tmp_path, photographs, encode(lines("{}").replace("\n", end)))
    assert [unicodedata.normalize("NFC", name) for name in found] == NAMES


def test_names_that_look_like_something_else(tmp_path, photographs):
    assert names(tmp_path, photographs, "1 0\ncam1/b\n") == ["1 0", "cam1/b"]
    assert names(tmp_path, photographs, "nowhere\nim0\n") == ["nowhere", "im0"]  # A missing image is reported later.
    assert names(tmp_path, photographs, "/JPEGImages/a.jpg /SegmentationClass/a.png\nJPEGImages/b\n") == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("im0 -1\nim1  1\n", r"line 1: 'im0 -1' has a class flag .* after the name, .* ImageSets/Main"),
        ("im0.jpg 0\n", "has a class flag"),
        ("im0.jpg 500 375\n", "line 1: 'im0.jpg 500 375': expected one image name per line"),
        ("im0\nim1\nim0\n", "names 'im0' more than once"),
        ("im0\nIM0.jpg\n", "names 'IM0' more than once"),
        ("/JPEGImages/im0.jpg\nim0\n", "names 'im0' more than once"),
        ("im0\n/etc/passwd\n", "names '/etc/passwd', which leads out of the folder"),
        ("../../im9\n", "which leads out of the folder; write one image name per line"),
        ("\n# nothing\n", "is empty"),
        ("", "is empty"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path, photographs, text, message):
    with pytest.raises(InputError, match=message) as caught:
        names(tmp_path, photographs, text)
    assert str(tmp_path / "train.txt") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_masks_that_a_list_names(tmp_path, photographs):
    (tmp_path / "train.txt").write_text("/JPEGImages/im0.jpg /SegmentationClassAug/im0.png\nim1\n")
    assert read_list(tmp_path / "train.txt", photographs).masks == {"im0": "/SegmentationClassAug/im0.png"}


def test_files_that_cannot_be_read(tmp_path, photographs):
    (tmp_path / "train.txt").symlink_to(tmp_path / "nowhere.txt")
    with pytest.raises(InputError, match=r"train\.txt cannot be read \(No such file"):
        read_list(tmp_path / "train.txt", photographs)
    with pytest.raises(InputError, match=r"nowhere\.txt cannot be read \(No such file"):
        read_text(tmp_path / "nowhere.txt")
    (tmp_path / "bytes").write_bytes(b"a\0\0\0b\0\xd8\xd8")
    with pytest.raises(InputError, match="bytes cannot be read as UTF-8 text"):
        read_text(tmp_path / "bytes")
