"""Every message of docs/errors.md appears when its mistake is made: each row is reproduced here."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from deconvnet_jax import data
from deconvnet_jax.data.proposal_files import Proposals, write_proposals
from deconvnet_jax.errors import InputError
from deconvnet_jax.inference import Segmenter
from deconvnet_jax.models import DeconvNet
from deconvnet_jax.ops import max_unpool
from deconvnet_jax.training import claim_workdir, init_variables, save_checkpoint
from deconvnet_jax.weights import init_from_checkpoint, load_checkpoint, load_vgg16, open_checkpoints, save_network
from experiments import cli, dataset, hosts, voc_train
from experiments.configs import default

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


def warnings_of(root, **changes):
    """The warnings that a run begins with."""
    config = dataset.resolve_data(settings(root, **changes))
    train_source, *_ = voc_train.open_data(config)
    found = voc_train.likely_mistakes(config, train_source, CLASSES)
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


@shows("... has unknown class ids ...; expected 0 to ...")
def _(root, **_):
    save_mask(root, np.full((48, 64), 7, np.uint8))
    return said(pack, root)


@shows("... pixels, but its image is ...; a mask needs the size of its image")
def _(root, **_):
    save_mask(root, np.ones((64, 48), np.uint8))
    return said(pack, root)


@shows("... has more than 8 bits a channel; save it as an 8-bit image")
def _(root, **_):
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(root / "JPEGImages/im0.png")
    (root / "JPEGImages/im0.jpg").unlink()
    return said(pack, root)


@shows("... is not a complete image file (...); replace it or take it out")
def _(root, **_):
    path = root / "JPEGImages/im0.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    return said(pack, root)


@shows("no split file ...: ...; write one image name a line, without the suffix")
def _(root, **_):
    (root / "ImageSets/Segmentation/train.txt").unlink()
    return said(data.split_names, root, "train")


@shows("no image ..., although a split names it")
def _(root, **_):
    (root / "JPEGImages/im0.jpg").unlink()
    return said(pack, root)


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


@shows("expected 2 to ... different class names, one a line, background first")
def _(root, **_):
    (root / "classes.txt").write_text("background\nred\nred\n")
    return said(pack, root)


@shows("... bytes, expected ...: the download is ...")
def _(tmp_path, **_):
    (tmp_path / "VOCtrainval_11-May-2012.tar").write_bytes(bytes(1000))
    return said(data.prepare_voc2012, tmp_path, tmp_path / "tfds")


@shows("no proposals of the split '...' yet; compute them: ...")
def _(root, **_):
    config = dataset.resolve_data(settings(root, **{"data.windows": ("proposal",)}))
    return said(voc_train.open_data, config)


@shows("... has no proposals for ... of ... images, among them '...'; was it made for another split?")
def _(tmp_path, **_):
    boxes = [np.array([[0, 0, 9, 9]], np.float32)]
    write_proposals(tmp_path / "p.npz", Proposals(["a"], boxes, [np.ones(1, np.float32)], {}))
    return said(data.read_proposals, tmp_path / "p.npz", ["a", "b"], [(20, 20)] * 2)


# Training


@shows("no such setting: ...")
def _(**_):
    config = default.get_config()
    with pytest.raises(AttributeError) as caught:
        config.optimizer.learnin_rate = 1
    return cli._one_line(caught.value)


@shows("batch_size=... does not divide over ... devices")
def _(**_):
    return said(voc_train.check_settings, settings(batch_size=6))


@shows("config.bn_group=...: a device computes ... crops at once")
def _(**_):
    return said(voc_train.check_settings, settings(batch_size=32, bn_group=3))


@shows("DeconvNet takes inputs whose height and width are multiples of ...")
def _(**_):
    return said(voc_train.check_settings, settings(**{"data.crop_size": 50, "data.resize_size": 60}))


@shows("--workdir=... belongs to another config: ...")
def _(tmp_path, **_):
    claim_workdir(tmp_path, {"seed": 0})
    return said(claim_workdir, tmp_path, {"seed": 1})


@shows("training diverged at step ...: ...; its batch is saved in ...")
def _(root, **_):
    grows = {"learning_rate": 1000.0, "weight_decay": 1.0, "rates": (("seg-score", 1000.0),)}  # -1e6 times per step
    config = settings(root, num_steps=9, **{f"optimizer.{key}": value for key, value in grows.items()})
    return said(voc_train.run, config, str(root.parent / "r"))


@shows("warning: the encoder starts from random weights")
def _(root, **_):
    return warnings_of(root, **{"model.width": 1.0})


@shows("warning: config.optimizer.learning_rate=... is unusual: the loss here is a mean over pixels, not a sum")
def _(root, **_):
    return warnings_of(root, **{"optimizer.learning_rate": 1e-10})


@shows("warning: ... masks of the split ... were looked at and show ..., which a network learns to say everywhere")
def _(root, **_):
    for i in range(4):
        save_mask(root, np.zeros((48, 64), np.uint8), f"im{i}")
    return warnings_of(root, **{"data.windows": ("image",)})


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
    monkeypatch.setattr(cli.failures, "report_in_one_line", lambda: None)  # pytest has hooks of its own
    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    assert caught.value.code == 1
    return capsys.readouterr().err.strip()


# Weights and checkpoints


@shows("... is for inference only: its batch normalisation is folded")
def _(tmp_path, **_):
    net, variables, info = tiny_network()
    save_network(tmp_path / "net", net, variables, {**info, "batch_statistics": "folded"})
    return said(init_from_checkpoint, tmp_path / "net", net, variables, CLASSES)


@shows("the statistics of this network's batch normalisation are not known: it was trained in Caffe")
def _(**_):
    net, variables, info = tiny_network()
    return said(Segmenter.from_loaded, net, variables, {**info, "batch_statistics": "unknown"})


@shows("VGG-16 weights: ... has a layer '...'")
def _(tmp_path, **_):
    np.savez(tmp_path / "vgg19.npz", **{"block3_conv4/kernel": np.zeros((3, 3, 4, 4), np.float32)})
    return said(load_vgg16, tmp_path / "vgg19.npz", tiny_network()[1])


@shows("VGG-16 weights: the ... of ... in ... has shape ..., the network needs ...")
def _(tmp_path, **_):
    widths, layers, before = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512), {}, 3
    names = [f"block{b}_conv{c}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)]
    for name, width in zip(names, widths, strict=True):
        layers[f"{name}/kernel"] = np.full((3, 3, before, width), 0.01, np.float16)
        layers[f"{name}/bias"] = np.zeros(width, np.float16)
        before = width
    np.savez_compressed(tmp_path / "vgg16.npz", **layers)
    return said(load_vgg16, tmp_path / "vgg16.npz", tiny_network()[1])


@shows("inference.ensemble_checkpoint=... has other classes")
def _(tmp_path, **_):
    net, variables, info = tiny_network()
    save_network(tmp_path / "net", net, variables, {**info, "class_names": ["sky", "sea", "land"]})
    return said(segmenter, ensemble_checkpoint=str(tmp_path / "net"))


@shows("no checkpoint in ...; expected the 'checkpoints' folder of a training run")
def _(tmp_path, **_):
    return said(load_checkpoint, tmp_path)


# In Python


@shows("expected uint8 values 0 to 255, got ...")
def _(**_):
    return said(segmenter(), np.zeros((40, 40, 3), np.float32))


@shows("expected a colour image [height, width, 3], got ...")
def _(**_):
    return said(segmenter(), np.zeros((40, 40), np.uint8))


@shows("max_unpool: a window of ... pools ... to ..., but the values are ...")
def _(**_):
    values = jnp.zeros((1, 2, 2, 1))
    return said(max_unpool, values, values.astype(int), (8, 8), window=2)


@pytest.mark.parametrize("message", messages())
def test_a_row_of_the_page_is_what_its_user_sees(message, request):
    assert message in MISTAKES, "write the mistake that shows it"
    names = ("root", "tmp_path", "monkeypatch", "capsys")
    used = set(MISTAKES[message].__code__.co_varnames) & set(names)
    shown = MISTAKES[message](**{name: request.getfixturevalue(name) for name in used})
    pattern = ".*".join(re.escape(part) for part in message.split("..."))
    assert re.search(pattern, shown, re.S), shown
    assert "\n" not in shown or shown.startswith("warning"), "one line"


def test_every_mistake_has_its_row():
    assert set(MISTAKES) == set(messages())
