"""Every message of docs/errors.md appears when its mistake is made: each row is reproduced here."""

import contextlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from caffe_networks import random_deconvnet
from caffemodel_writer import encode
from PIL import Image
from programs import run_program
from safetensors.numpy import save_file

from deconvnet_jax import buckets, data, files
from deconvnet_jax.errors import InputError
from deconvnet_jax.inference import Segmenter
from deconvnet_jax.labels import label_image
from deconvnet_jax.models import DeconvNet
from deconvnet_jax.ops import box_iou, max_pool_with_indices, max_unpool
from deconvnet_jax.proposals.files import Proposals, write_proposals
from deconvnet_jax.training import claim_workdir, init_variables, save_checkpoint, trackers
from deconvnet_jax.weights import (
    init_from_checkpoint,
    load_caffemodel,
    load_checkpoint,
    load_vgg16,
    network_from_caffe,
    open_checkpoints,
    save_network,
)
from deconvnet_jax.weights.vgg16_files import read_vgg16
from deconvnet_jax.weights.vgg16_layers import TORCH_NAMES
from experiments.common import checks, cli, dataset, failures, hosts, training
from experiments.common import training as voc_train
from experiments.common.checks import warn_of_common_images
from experiments.common.named_files import check_training
from experiments.compiled import topologies
from experiments.compiled.report import does_not_fit
from experiments.configs import default

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("background", "red", "green")
MISTAKES = {}


def shows(message):
    """Marks a function that makes a mistake and returns the text that its user sees."""

    def mark(function):
        MISTAKES[message] = function
        return function

    return mark


def messages():
    """What stands in backquotes in the first column of the page's tables."""
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/errors.md").read_text(), re.M)
    return [message for row in rows for message in re.findall(r"`(.*?)`", row)]


def said(function, *arguments, **settings):
    """The text of the InputError that a call raises."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **settings)
    return str(caught.value)


def printed(function, *arguments, **settings):
    """What a call prints on stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as text:
        function(*arguments, **settings)
    return text.getvalue().strip()


@pytest.fixture
def root(tmp_path):
    """Six photographs of 64x48 with masks of the classes 0 to 2, four to train on, in the VOC layout."""
    folder, names = tmp_path / "data", [f"im{i}" for i in range(6)]
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / part).mkdir(parents=True)
    for i, name in enumerate(names):
        label = np.zeros((48, 64), np.uint8)
        label[4:30, 4:30], label[20:40, 35:60] = 1, 2
        Image.fromarray(np.full((48, 64, 3), 40 * i, np.uint8)).save(folder / f"JPEGImages/{name}.jpg")
        Image.fromarray(label).save(folder / f"SegmentationClass/{name}.png")
    for split, members in (("train", names[:4]), ("val", names[4:])):
        (folder / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(members) + "\n")
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return folder


def pack(root):
    """As training and `prepare_data` read a folder for the first time."""
    data.prepare_voc_layout(root, root.parent / "tfds")


def save_mask(root, array, name="im0"):
    Image.fromarray(array).save(root / f"SegmentationClass/{name}.png")


def write_list(root, text, split="train"):
    (root / f"ImageSets/Segmentation/{split}.txt").write_text(text)


def settings(root=None, **changes):
    config = default.get_config()
    tiny = {"model.width": 1 / 32, "model.fc_features": 4, "model.fc_window": 1, "batch_size": 4, "num_steps": 1}
    tiny |= {"data.crop_size": 32, "data.resize_size": 36, "eval_every": 0, "log_every": 1}
    if root is not None:
        tiny |= {"data.voc_root": str(root), "data.data_dir": str(root.parent / "tfds")}
    config.update_from_flattened_dict({**tiny, **changes})
    return config


def warnings_of(root, class_names=CLASSES, **changes):
    """The warnings that a run begins with."""
    found = dataset.open_training_data(settings(root, **changes))
    found = checks.likely_mistakes(found.config, class_names)
    return "\n".join(f"warning: {warning}" for warning in found)


def tiny_network(**fields):
    net = DeconvNet(**{"num_classes": 3, "width": 1 / 32, "fc_features": 4, "fc_window": 1, **fields})
    info = {"config": {"data": {"crop_size": 32}}, "class_names": list(CLASSES)}
    return net, init_variables(net, seed=0), info


def segmenter(**settings):
    net, variables, info = tiny_network()
    return Segmenter.from_loaded(net, variables, info, mode="whole_image", **settings)


# Data


@shows("... is a mask in ..., mode ...; expected an indexed or 8-bit greyscale PNG: save class ids, not colours")
def _(root, **_):
    save_mask(root, np.zeros((48, 64, 3), np.uint8))
    return said(pack, root)


@shows("... is a 16-bit mask with numbers up to ...; expected class ids in 8 bits")
def _(root, **_):
    save_mask(root, np.full((48, 64), 1000, np.uint16))
    return said(pack, root)


@shows("the masks of the split '...' hold only 0 and 255")
def _(root, **_):
    for i in range(4):
        save_mask(root, np.where(np.arange(64) < 20, 255, 0).astype(np.uint8) * np.ones((48, 1), np.uint8), f"im{i}")
    return said(pack, root)


@shows("warning: the masks of the split '...' show only '...'; check them before training")
def _(root, **_):
    for i in (4, 5):
        save_mask(root, np.ones((48, 64), np.uint8), f"im{i}")
    return printed(pack, root)


@shows("warning: ... of ... masks of the split '...' hold only 0 and 255, among them that of '...'")
def _(root, **_):
    save_mask(root, np.tile(np.uint8([0, 255]), (48, 32)))
    return printed(pack, root)


@shows("the masks of the split '...' hold only 255, which marks ignored pixels")
def _(root, **_):
    for i in range(4):
        save_mask(root, np.full((48, 64), 255, np.uint8), f"im{i}")
    return said(pack, root)


@shows("the masks of the split '...' show only '...' (id ...), so a network would learn to predict it everywhere")
def _(root, **_):
    for i in range(4):
        save_mask(root, np.ones((48, 64), np.uint8), f"im{i}")
    return said(pack, root)


@shows("these are the greys of VOC's colours, ... of id ..., so the mask was converted to grey")
def _(root, **_):
    mask = label_image(np.tile(np.uint8([0, 1, 2, 255]), (48, 16)))
    save_mask(root, np.array(mask.convert("RGB").convert("L")))
    return said(pack, root)


@shows("that many numbers come from smoothing or JPEG")
def _(root, **_):
    save_mask(root, np.tile(np.arange(64, dtype=np.uint8), (48, 1)))
    return said(pack, root)


@shows("if ... marks the object, import the masks: ... --binary=NAME")
def _(root, **_):
    save_mask(root, np.tile(np.uint8([0, 128]), (48, 32)))
    return said(pack, root)


@shows("warning: ... has no classes.txt, so its 21 classes have VOC's names (...)")
def _(root, **_):
    (root / "classes.txt").unlink()
    return printed(pack, root)


@shows("without classes.txt the classes are VOC's; name yours there")
def _(root, **_):
    (root / "classes.txt").unlink()
    save_mask(root, np.tile(np.uint8([0, 30]), (48, 32)))
    return said(pack, root)


@shows("warning: class id ... has the colour ... in the palette of ..., but ... in ...")
def _(root, **_):
    for i, palette in enumerate(([0, 0, 0, 128, 0, 0, 0, 128, 0], [0, 0, 0, 0, 128, 0, 128, 0, 0])):
        path = root / f"SegmentationClass/im{i}.png"
        with Image.open(path) as mask:
            picture = Image.fromarray(np.array(mask))
        picture.putpalette(palette)
        picture.save(path)
    return printed(pack, root)


@shows("... has unknown class ids ...; expected 0 to ...")
def _(root, **_):
    save_mask(root, np.full((48, 64), 7, np.uint8))
    return said(pack, root)


@shows("warning: '...' has the id 0, which counts as background")
def _(root, **_):
    return warnings_of(root, ("sky", *CLASSES[1:]))


@shows("... pixels, but its image is ...; a mask needs the size of its image")
def _(root, **_):
    save_mask(root, np.ones((64, 48), np.uint8))
    return said(pack, root)


@shows("... has more than 8 bits per channel; save it as an 8-bit image")
def _(root, **_):
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(root / "JPEGImages/im0.png")
    (root / "JPEGImages/im0.jpg").unlink()
    return said(pack, root)


@shows("... has too many pixels...; ... are allowed: cut it into tiles")
def _(root, **_):
    Image.new("1", (14000, 13000)).save(root / "JPEGImages/im0.png")
    (root / "JPEGImages/im0.jpg").unlink()
    return said(pack, root)


@shows("... is a PostScript file; expected an image in JPEG, PNG, BMP, GIF, WebP, TIFF and PPM: export it as one")
def _(root, **_):
    (root / "JPEGImages/im0.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    return said(pack, root)


@shows("... is not a complete image file (...); replace or remove it")
def _(root, **_):
    path = root / "JPEGImages/im0.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    return said(pack, root)


@shows("no split file ...: ...; write it with one image name per line, without the suffix")
def _(root, **_):
    (root / "ImageSets/Segmentation/train.txt").unlink()
    return said(data.split_names, root, "train")


@shows("no image ..., although a split names it")
def _(root, **_):
    (root / "JPEGImages/im0.jpg").unlink()
    return said(pack, root)


@shows("none of its ... images has a photograph, for example no file ...")
def _(root, **_):
    write_list(root, "a\nb\n")
    return said(pack, root)


@shows("split file ... is no text, its line ... has control characters")
def _(root, **_):
    write_list(root, "\1\2\n")
    return said(pack, root)


@shows("none of its ... images has a mask, for example no file ...")
def _(root, **_):
    for path in list((root / "SegmentationClass").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    return said(pack, root)


@shows("warning: split '...' is left out: none of its ... images has a ...")
def _(root, **_):
    for name in ("im4", "im5"):
        (root / f"SegmentationClass/{name}.png").unlink()
    return printed(pack, root)


@shows("has a class flag (-1, 0 or 1) after the name")
def _(root, **_):
    write_list(root, "im0 -1\nim1  1\n")
    return said(pack, root)


@shows("warning: ... of ... images have no mask in .../SegmentationObject, among them '...'")
def _(root, **_):
    (root / "SegmentationObject").mkdir()
    shutil.copy(root / "SegmentationClass/im0.png", root / "SegmentationObject/im0.png")
    return printed(pack, root)


@shows("... is not a folder in the VOC layout: it has no ...")
def _(root, **_):
    return said(pack, root.parent)


@shows("split file ... names '...' more than once")
def _(root, **_):
    write_list(root, "im0\nim1\nim0\n")
    return said(pack, root)


@shows("is empty")
def _(root, **_):
    write_list(root, "\n")
    return said(pack, root)


@shows("expected 2 to ... different class names, one per line, background first")
def _(root, **_):
    (root / "classes.txt").write_text("background\nred\nred\n")
    return said(pack, root)


@shows("... bytes, expected ...: the download is ...")
def _(tmp_path, **_):
    (tmp_path / "VOCtrainval_11-May-2012.tar").write_bytes(bytes(1000))
    return said(data.prepare_voc2012, tmp_path, tmp_path / "tfds")


@shows("'train_aug' is left out: it needs SBD; put benchmark.tgz")
def _(root, **_):
    downloads = root.parent / "downloads"
    (downloads / "VOCdevkit").mkdir(parents=True)
    (root / "classes.txt").unlink()
    shutil.copytree(root / "SegmentationClass", root / "SegmentationObject")
    root.rename(downloads / "VOCdevkit/VOC2012")
    builder = data.prepare_voc2012(downloads, root.parent / "tfds")
    return said(data.open_split, builder, "train_aug")


@shows("the packed data in ... is damaged (...); delete that folder to pack the data again")
def _(root, **_):
    builder = data.prepare_voc_layout(root, root.parent / "tfds")
    next(Path(builder.data_path).glob("*train.array_record*")).write_bytes(b"")
    return said(lambda: data.open_split(data.prepare_voc_layout(root, root.parent / "tfds"), "train")[0])


@shows("warning: ... of the ... images of the split '...' are training images, too")
def _(root, **_):
    write_list(root, "im3\nim4\n", "val")
    builder = data.prepare_voc_layout(root, root.parent / "tfds")
    trained, scored = (data.open_split(builder, split) for split in ("train", "val"))
    return printed(warn_of_common_images, trained, range(4), scored, "train", "val")


@shows("the coordinates of all ... annotations lie between 0 and 1; expected pixels")
def _(tmp_path, **_):
    return said(import_coco, tmp_path, [0.1, 0.1, 0.5, 0.1, 0.5, 0.5])


@shows("warning: ... of ... images have an EXIF orientation")
def _(tmp_path, **_):
    return import_coco(tmp_path, [5, 5, 30, 5, 30, 30], orientation=3)


@shows("is the supercategory of all others and annotates nothing; it is left out")
def _(tmp_path, **_):
    return import_coco(tmp_path, [5, 5, 30, 5, 30, 30])


def import_coco(folder, polygon, orientation=1):
    """Imports one photograph with a cat, in the categories of a Roboflow export; returns the warnings."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (80, 60)).save(folder / "a.jpg", exif=exif)
    content = {
        "images": [{"id": 0, "file_name": "a.jpg", "width": 80, "height": 60}],
        "categories": [{"id": 0, "name": "pets", "supercategory": "none"}],
        "annotations": [{"image_id": 0, "category_id": 1, "segmentation": [polygon]}],
    }
    content["categories"] += [{"id": i, "name": name, "supercategory": "pets"} for i, name in ((1, "cat"), (2, "dog"))]
    (folder / "a.json").write_text(json.dumps(content))
    summary = data.import_coco(folder / "a.json", folder, folder / "out", "train")
    return "\n".join(f"warning: {warning}" for warning in summary.warnings)


def masks_refused(root, values=(0, 1), suffix="png", **options):
    """The message about an import of six masks that hold 0 and, in a rectangle, the value of `values`."""
    folder = root.parent / "masks"
    folder.mkdir()
    for i in range(6):
        mask = np.full((48, 64, *np.shape(values[0])), values[0], np.uint8)
        mask[4:30, 4:30] = values[1]
        Image.fromarray(mask).save(folder / f"im{i}.{suffix}")
    reading = data.MaskReading(**options)
    return said(data.import_masks, root / "JPEGImages", folder, root.parent / "out", reading)


@shows("the masks hold only ...; give --binary=NAME")
def _(root, **_):
    return masks_refused(root, (0, 255))


@shows("the masks hold the colours ...; give --classes=FILE")
def _(root, **_):
    return masks_refused(root, ((0, 0, 0), (128, 64, 128)))


@shows("... has the colour ... at ...")
def _(root, tmp_path, **_):
    (tmp_path / "colours.csv").write_text("background,0,0,0\nroad,128,64,128\n")
    return masks_refused(root, ((0, 0, 0), (128, 64, 129)), classes=tmp_path / "colours.csv")


@shows("... is a mask in JPEG, which is lossy")
def _(root, **_):
    return masks_refused(root, suffix="jpg", names=["background", "road"])


@shows("... of ... images have no mask, for example ...")
def _(root, **_):
    (root / "SegmentationClass/im3.png").unlink()
    folders = root / "JPEGImages", root / "SegmentationClass", root.parent / "out"
    return said(data.import_masks, *folders, data.MaskReading(names=CLASSES))


@shows("data.windows: no object in any of the ... training images")
def _(root, **_):
    for i in range(4):
        save_mask(root, np.eye(48, 64, dtype=np.uint8), f"im{i}")
    return said(dataset.open_training_data, settings(root))


@shows("the windows around all ... connected parts of the class masks are smaller than ... pixels")
def _(root, **_):
    Image.new("RGB", (480, 360)).save(root / "JPEGImages/im0.jpg")
    save_mask(root, np.pad(np.ones((8, 8), np.uint8), ((0, 352), (0, 472))))
    write_list(root, "im0\n")
    return said(dataset.open_training_data, settings(root))


@shows("no proposals of the split '...' yet; compute them: ...")
def _(root, **_):
    return said(dataset.open_training_data, settings(root, **{"data.windows": ("proposal",)}))


@shows("... has no proposals for ... of ... images, among them '...'; was it made for another split?")
def _(tmp_path, **_):
    boxes = [np.array([[0, 0, 9, 9]], np.float32)]
    write_proposals(tmp_path / "p.npz", Proposals(["a"], boxes, [np.ones(1, np.float32)], {}))
    return said(data.read_proposals, tmp_path / "p.npz", ["a", "b"], [(20, 20)] * 2)


# Training


@shows("no such setting: ...")
def _(**_):
    done = run_program("voc_train", "--config=demo", "--workdir=never/made", "--config.optimizer.learnin_rate=1")
    return done.stderr.strip()


@shows("unknown flag --...; did you mean --...?")
def _(**_):
    return run_program("predict", "--crf=released").stderr.strip()


@shows("batch_size=... cannot be split evenly over ... devices")
def _(**_):
    return said(checks.check_settings, settings(batch_size=6))


@shows("config.bn_group=...: a device computes ... crops at once")
def _(**_):
    return said(checks.check_settings, settings(batch_size=32, bn_group=3))


@shows("DeconvNet takes inputs whose height and width are multiples of ...")
def _(**_):
    return said(checks.check_settings, settings(**{"data.crop_size": 50, "data.resize_size": 60}))


@shows("config.data.crop_size=...: expected ...")
def _(**_):
    return said(training.run, settings(**{"data.crop_size": 320_000}), "never/made")


@shows("... is an address of an unsupported kind; expected gs://BUCKET/NAME")
def _(**_):
    return said(claim_workdir, "s3://bucket/run", {})


@shows("... is an address; expected a path on a local or mounted disk")
def _(**_):
    return said(data.prepare_voc_layout, "gs://bucket/VOC2012", "tfds")


@shows("...: gs:// needs the package ...")
def _(monkeypatch, **_):
    monkeypatch.setattr(buckets, "find_spec", lambda name: None)
    return said(claim_workdir, "gs://bucket/run", {})


@shows("warning: ... cannot be locked (it lies in a bucket); do not start a second program that writes to it")
def _(capsys, **_):
    with files.locked(buckets.Address("gs://bucket/run"), ""):
        return capsys.readouterr().err.strip()


@shows("--workdir is empty; name a file or folder")
def _(**_):
    return said(claim_workdir, "", {})


@shows("JAX_PLATFORMS=...: JAX cannot compute there (...)")
def _(monkeypatch, **_):
    def none():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr(jax, "devices", none)
    monkeypatch.setattr(type(jax.config), "jax_platforms", "cuda", raising=False)
    return failures.machine_failure(RuntimeError("Unable to initialize backend 'cuda'"))


@shows("--workdir=... holds a run with another config: ...")
def _(tmp_path, **_):
    claim_workdir(tmp_path, {"seed": 0})
    return said(claim_workdir, tmp_path, {"seed": 1})


@shows("training diverged at step ...: ...; its batch is saved in ...")
def _(root, shallow_here, **_):
    grows = {"learning_rate": 1000.0, "weight_decay": 1.0, "rates": (("seg-score", 1000.0),)}  # -1e6 times per step
    config = settings(root, num_steps=9, **{f"optimizer.{key}": value for key, value in grows.items()})
    return said(voc_train.run, config, str(root.parent / "r"))


@shows("config.tracker=...: the package ... is not installed; pip install ...")
def _(monkeypatch, **_):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    return said(trackers.check_tracker, "wandb")


@shows("warning: ... failed (...); the run continues without it")
def _(monkeypatch, tmp_path, capsys, **_):
    def connect(_):
        raise OSError("no route to host")

    monkeypatch.setitem(trackers.TRACKERS, "mlflow", trackers.TRACKERS["mlflow"]._replace(connect=connect))
    trackers.Tracker("mlflow", "birds", tmp_path, {}, {})
    return capsys.readouterr().err.strip()


@shows("ImportError: cannot import name ... from 'deconvnet_jax' (unknown location)")
def _(tmp_path, **_):
    (tmp_path / "deconvnet_jax").mkdir()  # where a clone would be
    command = [sys.executable, "-S", "-c", "from deconvnet_jax import Segmenter"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    return done.stderr.splitlines()[-1]


@shows("config.optimizer.freeze would keep the layers ... at random weights")
def _(root, **_):
    return said(check_training, settings(root, **{"optimizer.freeze": ("conv1_",)}), root.parent / "r")


@shows("warning: the encoder starts from random weights")
def _(root, **_):
    return warnings_of(root, **{"model.width": 1.0})


@shows("warning: config.optimizer.learning_rate=... is unusual: the loss here is a mean over pixels, not a sum")
def _(root, **_):
    return warnings_of(root, **{"optimizer.learning_rate": 1e-10})


@shows("warning: config.optimizer.learning_rate=... is for SGD, AdamW usually diverges with it")
def _(root, **_):
    return warnings_of(root, **{"optimizer.name": "adamw", "optimizer.learning_rate": 0.01})


@shows("warning: config.optimizer.decay_steps=...: the learning rate is 0 from there to the last step ...")
def _(root, **_):
    return warnings_of(root, **{"optimizer.schedule": "poly", "optimizer.decay_steps": 2, "num_steps": 9})


@shows(
    "config.num_steps=..., the end of the learning rate's schedule too, must be above config.optimizer.warmup_steps=..."
)
def _(root, **_):
    changes = {"optimizer.schedule": "poly", "optimizer.decay_steps": 9, "num_steps": 9, "optimizer.warmup_steps": 20}
    return said(checks.check_combinations, settings(root, **changes))


@shows("config.optimizer.schedule=... needs the step at which the learning rate reaches its end")
def _(root, **_):
    return said(checks.check_combinations, settings(root, **{"optimizer.schedule": "cosine"}))


@shows("the device's memory does not suffice (...)")
def _(capsys, monkeypatch, **_):
    return program_ends(capsys, monkeypatch, jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"))


@shows("a checkpoint could not be written to ... (the disk is full)")
def _(tmp_path, monkeypatch, **_):
    def full(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

    _, variables, info = tiny_network()
    with open_checkpoints(tmp_path / "checkpoints") as manager:
        monkeypatch.setattr(manager, "save", full)
        values = {"variables": variables, "optimizer": {"m": np.zeros(1, np.float32)}, "data": {}, "info": info}
        return said(save_checkpoint, manager, 1, **values)


@shows("--topology=...: unknown accelerator '...'; expected for example ...")
def _(**_):
    return said(topologies.describe, "h300:8")


@shows("--topology=... needs XLA's compiler for ...: pip install ...")
def _(monkeypatch, **_):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    return said(topologies.describe, "v5e:4x4")


@shows("config.batch_size=... needs ... on each device of ..., which has ... for a program; ...")
def _(**_):
    needed = {"total_bytes": 80e9, "usable_bytes": 63.7e9}
    return does_not_fit({"topology": "h100:8", "config": {"batch_size": 4096}, "step": {"memory": needed}})


@shows("the processes did not find each other")
def _(monkeypatch, **_):
    def alone(*_, **__):
        raise RuntimeError("DEADLINE_EXCEEDED: barrier timed out")

    class Values:
        coordinator, num_processes, process_id, distributed = "localhost:1", 2, 1, "auto"

    monkeypatch.setattr(jax.distributed, "initialize", alone)
    return said(hosts.initialize, Values, {})


def program_ends(capsys, monkeypatch, error):
    """What a program prints that an exception ends."""

    def main(_):
        raise error

    monkeypatch.setattr(cli.app, "run", lambda guarded, flags_parser: guarded([]))
    monkeypatch.setattr(cli.failures, "report_in_one_line", lambda: None)  # pytest has its own hooks
    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    assert caught.value.code == 1
    return capsys.readouterr().err.strip()


# Weights and checkpoints


@shows("... is in use by another process; wait until it has ended, or name another folder")
def _(tmp_path, monkeypatch, **_):
    monkeypatch.setattr(files, "_PATIENCE", 0)
    with files.locked(tmp_path, "--workdir"):
        return said(files.locked(tmp_path, "--workdir").__enter__)


@shows("the variables in ... cannot be read (...)")
def _(tmp_path, **_):
    net, variables, info = tiny_network()
    save_network(tmp_path / "net", net, variables, info)
    stored = max((path for path in (tmp_path / "net").rglob("d/*")), key=lambda path: path.stat().st_size)
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.write_bytes(content)
    return said(load_checkpoint, tmp_path / "net")


@shows("... bn_group was ... and is now ...; use --config.bn_group=... to keep the groups for batch statistics")
def _(tmp_path, **_):
    net, variables, info = tiny_network()
    info["config"] |= {"batch_size": 16, "micro_batch": 0, "bn_group": 0}
    save_network(tmp_path / "checkpoints", net, variables, {**info, "bn_group": 8})  # there are four devices now
    return said(claim_workdir, tmp_path, load_checkpoint(tmp_path)[2]["config"])


@shows("... is for inference only: its batch normalisation is folded")
def _(tmp_path, **_):
    net, variables, info = tiny_network()
    save_network(tmp_path / "net", net, variables, {**info, "batch_statistics": "folded"})
    return said(init_from_checkpoint, tmp_path / "net", net, variables, CLASSES)


@shows("this network has no running statistics for batch normalisation: it was trained in Caffe")
def _(**_):
    net, variables, info = tiny_network()
    return said(Segmenter.from_loaded, net, variables, {**info, "batch_statistics": "unknown"})


@shows("...=...: no such file or folder ...; ...")
def _(**_):
    return run_program("voc_train", "--config=demo", "--workdir=a", "--config.init.vgg16=none.pth").stderr.strip()


@shows("VGG-16 weights: ... has a layer '...'")
def _(tmp_path, **_):
    np.savez(tmp_path / "vgg19.npz", **{"block3_conv4/kernel": np.zeros((3, 3, 4, 4), np.float32)})
    return said(load_vgg16, tmp_path / "vgg19.npz", tiny_network()[1])


@shows("VGG-16 weights: the ... of ... in ... has shape ..., but the network needs ...")
def _(tmp_path, **_):
    widths, layers, before = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512), {}, 3
    names = [f"block{b}_conv{c}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)]
    for name, width in zip(names, widths, strict=True):
        layers[f"{name}/kernel"] = np.full((3, 3, before, width), 0.01, np.float16)
        layers[f"{name}/bias"] = np.zeros(width, np.float16)
        before = width
    np.savez_compressed(tmp_path / "vgg16.npz", **layers)
    return said(load_vgg16, tmp_path / "vgg16.npz", tiny_network()[1])


@shows("... is a Caffe solver state; expected a .caffemodel")
def _(tmp_path, **_):
    blob = b"\x3a\x04\x0a\x02\x02\x03\x2a\x18" + bytes(24)  # 2x3 zeros
    learned = b"snapshots/stage_2_iter_20000.caffemodel"
    content = b"\x08\xa0\x9c\x01\x12" + bytes([len(learned)]) + learned + b"\x1a" + bytes([len(blob)]) + blob
    (tmp_path / "stage_2_iter_20000.solverstate").write_bytes(content)
    return said(load_caffemodel, tmp_path / "stage_2_iter_20000.solverstate")


@shows("warning: VGG-16 weights: the first layer in ... is of no published network and is assumed to expect ...")
def _(tmp_path, rng, **_):
    layers, before = {}, 3
    for i, name in enumerate(TORCH_NAMES.values()):
        layers[f"{name}.weight"] = rng.normal(size=(4 + i, before, 3, 3)).astype(np.float32)
        layers[f"{name}.bias"] = rng.normal(size=4 + i).astype(np.float32)
        before = 4 + i
    save_file(layers, tmp_path / "vgg16.safetensors")
    with pytest.warns(UserWarning, match="VGG-16") as caught:
        read_vgg16(tmp_path / "vgg16.safetensors")
    return f"warning: {caught[0].message}"


@shows("... has no layer '...', but ... that may be it under another name")
def _(tmp_path, **_):
    *layers, (_, kind, blobs) = random_deconvnet(np.random.default_rng(0), width=1 / 64, fc=8, fc_window=1)
    (tmp_path / "a.caffemodel").write_bytes(encode([*layers, ("mine", kind, blobs), ("yours", kind, blobs)]))
    return said(network_from_caffe, tmp_path / "a.caffemodel")


@shows("inference.ensemble_checkpoint=... has other classes")
def _(tmp_path, **_):
    net, variables, info = tiny_network()
    save_network(tmp_path / "net", net, variables, {**info, "class_names": ["sky", "sea", "land"]})
    return said(segmenter, ensemble_checkpoint=str(tmp_path / "net"))


@shows("no checkpoint in ...; expected the 'checkpoints' folder of a training run")
def _(tmp_path, **_):
    return said(load_checkpoint, tmp_path)


@shows("no checkpoint in ...; did you mean ...?")
def _(tmp_path, **_):
    (tmp_path / "runs/mine/checkpoints/7").mkdir(parents=True)
    return said(load_checkpoint, tmp_path / "runs/mine/calibrated")


# In Python


@shows("expected uint8 values 0 to 255, got ...")
def _(**_):
    return said(segmenter(), np.zeros((40, 40, 3), np.float32))


@shows("... expected x0 < x1 and y0 < y1 in pixels. Convert x, y, width, height to ...")
def _(**_):
    return said(segmenter(), np.zeros((120, 160, 3), np.uint8), np.array([[100.0, 80, 30, 30]]))


@shows("expected a colour image [height, width, 3], got ...")
def _(**_):
    return said(data.propose_boxes, np.zeros((40, 40), np.uint8))


@shows("... has its channels first; expected [height, width, channels]: give ...")
def _(**_):
    return said(segmenter(), np.zeros((3, 40, 40), np.uint8))


@shows("... has shape ...; expected [N, H, W, C]. Add a batch dimension: x[None]")
def _(**_):
    return said(max_pool_with_indices, jnp.zeros((8, 8, 3)))


@shows("... It looks like NCHW: images.transpose(0, 2, 3, 1)")
def _(**_):
    net, variables, _ = tiny_network()
    return said(net.apply, variables, jnp.zeros((1, 3, 32, 32)))


@shows("DeconvNet: images has dtype uint8; ... normalize_images(images)")
def _(**_):
    net, variables, _ = tiny_network()
    return said(net.apply, variables, jnp.zeros((1, 32, 32, 3), jnp.uint8))


@shows("... NumPy computes this, so it works neither in jit nor under vmap and grad...")
def _(**_):
    return said(jax.vmap(lambda boxes: box_iou(boxes, boxes)), jnp.ones((2, 3, 4)))


@shows("max_unpool: a window of ... pools ... to ..., but the values are ...")
def _(**_):
    values = jnp.zeros((1, 2, 2, 1))
    return said(max_unpool, values, values.astype(int), (8, 8), window=2)


@pytest.mark.parametrize("message", messages())
def test_a_row_of_the_page_is_what_its_user_sees(message, request):
    assert message in MISTAKES, "write the mistake that shows it"
    names = ("root", "tmp_path", "monkeypatch", "capsys", "rng", "shallow_here")
    used = set(MISTAKES[message].__code__.co_varnames) & set(names)
    shown = MISTAKES[message](**{name: request.getfixturevalue(name) for name in used})
    pattern = ".*".join(re.escape(part) for part in message.split("..."))
    assert re.search(pattern, shown, re.S), shown
    assert "\n" not in shown or shown.startswith("warning"), "one line"


def test_every_mistake_has_its_row():
    assert set(MISTAKES) == set(messages())
