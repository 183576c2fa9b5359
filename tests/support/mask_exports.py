"""Miniature exports of annotation tools, written as the tools write them, and the masks that they mean."""

import base64
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.data import MaskReading, class_names, import_masks, read_example
from deconvnet_jax.errors import InputError

HEIGHT, WIDTH = 24, 32
NAMES = ("a", "b", "c", "d", "e")
CLASSES = ("background", "cat", "dog")
NAMED = MaskReading(names=CLASSES)
COLORS = {"background": (0, 0, 0), "cat": (140, 120, 240), "dog": (250, 50, 83)}


def drawn(number):
    """Class ids of picture `number`: a cat, two dogs of which one touches the cat, and an empty last picture."""
    return np.array([0, 1, 2, 2], np.uint8)[objects(number)]


def objects(number):
    """Object numbers of picture `number`."""
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    if number < len(NAMES) - 1:
        found[2 : 8 + number, 3:10] = 1
        found[4:9, 10:15] = 2
        found[15:20, 20 : 24 + number] = 3
    return found


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(path, **options)
    return path


def write_photographs(folder, names=NAMES, suffix=".jpg"):
    """Writes one photograph per name; all are different."""
    for i, name in enumerate(names):
        noise = np.random.default_rng(i).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        save(folder / f"{name}{suffix}", noise)
    return folder


def colored(label, colors=COLORS):
    """A mask with one colour per class, uint8 RGB."""
    return np.array(list(colors.values()), np.uint8)[label]


def indexed(i):
    """Mask `i` as an indexed picture whose palette has the colours of the classes."""
    image = Image.fromarray(drawn(i))
    image.putpalette([channel for color in COLORS.values() for channel in color])
    return image


def plain(root, masks=drawn, folder="masks", names=NAMES, suffix=".png"):
    """Two folders: photos/NAME.jpg and FOLDER/NAME.png with the array `masks(number)`."""
    write_photographs(root / "photos", names)
    for i, name in enumerate(names):
        save(root / folder / f"{name}{suffix}", masks(i))
    return {"images": root / "photos", "masks": root / folder}


def cvat(root, background_last=True, with_images=True):
    """Segmentation mask 1.1: colours of a labelmap.txt, and SegmentationObject with one colour per object."""
    export = root / "cvat"
    write_photographs(export / "JPEGImages" if with_images else root / "photos")
    order = ("cat", "dog", "background") if background_last else ("background", "cat", "dog")
    lines = ["# label:color_rgb:parts:actions"]
    lines += [f"{name}:{','.join(map(str, COLORS[name]))}::" for name in order]
    export.mkdir(exist_ok=True)
    (export / "labelmap.txt").write_text("\n".join(lines) + "\n")
    palette = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)], np.uint8)
    for i, name in enumerate(NAMES):
        save(export / f"SegmentationClass/{name}.png", colored(drawn(i)))
        save(export / f"SegmentationObject/{name}.png", palette[objects(i)])
    lists = export / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "default.txt").write_text("\n".join(NAMES) + "\n")
    return {"images": export if with_images else root / "photos", "masks": None if with_images else export}


def roboflow(root):
    """Semantic segmentation masks: NAME.jpg, NAME_mask.png and _classes.csv in train, valid and test."""
    export = root / "roboflow"
    for i, (split, name) in enumerate(zip(("train", "train", "train", "valid", "test"), NAMES, strict=True)):
        write_photographs(export / split, [f"{name}_jpg.rf.0123456789"])
        save(export / split / f"{name}_jpg.rf.0123456789_mask.png", drawn(i))
        (export / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    return {"images": export, "masks": None}


def rectangle(x0, y0, x1, y1):
    """The corners of a rectangle whose last pixels are (x1 - 1, y1 - 1), for tools that draw the outline too."""
    return [[x0, y0], [x1 - 1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]]


def labelme_shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def labelme_file(shapes, name, **more):
    data = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{name}.jpg", "imageData": None}
    return json.dumps({**data, "imageHeight": HEIGHT, "imageWidth": WIDTH, **more})


def labelme(root):
    """NAME.json beside NAME.jpg. The dogs of each picture are drawn as three shapes, two of them in one group."""
    folder = write_photographs(root / "labelme")
    for i, name in enumerate(NAMES[:-1]):
        shapes = [
            labelme_shape("cat", rectangle(3, 2, 10, 8 + i)),
            labelme_shape("dog", [[10, 4], [14, 8]], "rectangle"),
            labelme_shape("dog", rectangle(20, 15, 24 + i, 17), group_id=7),
            labelme_shape("dog", rectangle(20, 17, 24 + i, 20), group_id=7),
            labelme_shape("cat", [[0, 0], [5, 5]], "linestrip"),
        ]
        (folder / f"{name}.json").write_text(labelme_file(shapes, name))
    (folder / f"{NAMES[-1]}.json").write_text(labelme_file([], NAMES[-1]))
    return {"images": folder, "masks": None}


def png_text(mask, compress=True):
    """A mask as Supervisely stores bitmaps: an indexed PNG whose black is transparent, packed and as base64."""
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette([0, 0, 0, 255, 255, 255])
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=0, optimize=0)
    return base64.b64encode(zlib.compress(stream.getvalue()) if compress else stream.getvalue()).decode()


def supervisely(root):
    """A project: meta.json, DATASET/img/NAME.jpg and DATASET/ann/NAME.jpg.json, with bitmaps and polygons."""
    project = root / "project"
    titles = [{"title": title, "shape": "any", "color": "#ff0000", "id": i} for i, title in enumerate(("dog", "cat"))]
    for i, (dataset, name) in enumerate(zip(("ds0", "ds0", "ds1", "ds1", "ds1"), NAMES, strict=True)):
        write_photographs(project / dataset / "img", [name])
        corner = [[3, 2], [9, 2], [9, 7 + i], [3, 7 + i]]
        found = [
            {"classTitle": "cat", "geometryType": "polygon", "points": {"exterior": corner, "interior": []}},
            {
                "classTitle": "dog",
                "geometryType": "bitmap",
                "bitmap": {"data": png_text(np.ones((5, 5), bool)), "origin": [10, 4]},
            },
            {
                "classTitle": "dog",
                "geometryType": "rectangle",
                "points": {"exterior": [[20, 15], [23 + i, 19]], "interior": []},
            },
        ]
        data = {"description": "", "tags": [], "size": {"height": HEIGHT, "width": WIDTH}, "objects": found}
        if name == NAMES[-1]:
            data["objects"] = []
        (project / dataset / "ann").mkdir(exist_ok=True)
        (project / dataset / f"ann/{name}.jpg.json").write_text(json.dumps(data))
    (project / "meta.json").write_text(json.dumps({"classes": titles, "tags": []}))
    return {"images": project, "masks": None}


def load(root, source, reading=None, pairing=None, division=None, **more):
    """Imports into ROOT/out, without a warning about rare classes."""
    return import_masks(source["images"], source["masks"], root / "out", reading, pairing, division, **more)


def refused(root, source, *parts, output="out", **options):
    """Asserts that an import fails with one line that has these parts, and writes nothing."""
    before = set(root.rglob("*"))
    with pytest.raises(InputError) as caught:
        import_masks(source["images"], source["masks"], root / output, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for part in parts:
        assert part in message, message
    assert set(root.rglob("*")) == before
    return message


def check(root, renamed=str, labels=drawn, with_objects=False):
    """Asserts that ROOT/out holds the masks of all pictures."""
    for i, name in enumerate(NAMES):
        example = read_example(root / "out", renamed(name), len(class_names(root / "out")))
        np.testing.assert_array_equal(example.label, labels(i))
        if with_objects:
            np.testing.assert_array_equal(example.instances, objects(i))
        else:
            assert example.instances is None
