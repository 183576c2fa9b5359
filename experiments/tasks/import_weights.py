"""Imports a Caffe network or an ImageNet VGG-16 into a checkpoint, and prints its arrays."""

from collections.abc import Mapping
from pathlib import Path

import chex
import numpy as np
from rich.table import Table

from deconvnet_jax.data import read_class_names
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import locked
from deconvnet_jax.inference import default_class_names, default_input_size
from deconvnet_jax.models import DeconvNet, Network, Variables, count_parameters, layer_names
from deconvnet_jax.terminal import console
from deconvnet_jax.training import init_variables
from deconvnet_jax.weights import check_vacant, load_vgg16, network_from_caffe, save_network

from ..common.output import output_folder
from ..common.scripts import command

BN_FORMS = {"auto": None, "folded": True, "learned": False}
CHUNK = 2**20  # values that are converted to float64 at a time; fc6 has 103 million


def run(
    output: str | Path,
    *,
    caffemodel: str | Path | None = None,
    vgg16: str | Path | None = None,
    bn: str = "auto",
    class_names: str | Path | None = None,
) -> None:
    """Imports one file of weights into a new checkpoint, and prints its arrays and what to do next.

    Args:
      output: New folder for the checkpoint; it may be in a bucket.
      caffemodel: Caffe file of a DeconvNet or FCN-8s. Give this or `vgg16`.
      vgg16: File of an ImageNet VGG-16, for the encoder of a new DeconvNet.
      bn: Form of batch normalisation in `caffemodel`, one of `BN_FORMS`.
      class_names: File with one class name per line; None: VOC's names for 21 classes, otherwise numbers.

    Raises:
      InputError: for a file that cannot be used, or a folder that holds a checkpoint.
    """
    file = caffemodel or vgg16
    if file is None or (caffemodel and vgg16):
        raise InputError("give one of --caffemodel=FILE and --vgg16=FILE")
    folder = output_folder(output)
    with locked(folder, f"--output={folder}"):
        check_vacant(folder)
        names = read_class_names(class_names) if class_names else None
        if caffemodel:
            net, variables, known = network_from_caffe(file, BN_FORMS[bn])
        else:
            net = DeconvNet(num_classes=len(names or default_class_names(21)))
            variables, known = load_vgg16(file, init_variables(net, seed=0)), {"batch_statistics": "unknown"}
        names = names or default_class_names(net.num_classes)
        if len(names) != net.num_classes:
            raise InputError(
                f"{class_names} has {len(names)} names, but the network has {net.num_classes} classes; correct the file"
            )
        data = {"crop_size": default_input_size(net)}
        info = {"config": {"data": data}, "class_names": list(names), "imported_from": Path(file).name, **known}
        save_network(folder, net, variables, info)
        print_arrays({name: variables["params"][name] for name in layer_names(net)})
        print(describe(net, variables, known, folder))


def print_arrays(params: Mapping[str, Mapping[str, chex.Array]]) -> None:
    """Prints a table with the shape, mean and standard deviation of every array.

    Args:
      params: Arrays by layer and by name within the layer.
    """
    table = Table("layer", "array", "shape", "mean", "std")
    for layer, parts in params.items():
        for part, values in parts.items():
            mean, std = mean_and_std(np.asarray(values))
            table.add_row(layer, part, "x".join(map(str, values.shape)), f"{mean:.4g}", f"{std:.4g}")
    console(width=120).print(table)


def mean_and_std(values: np.ndarray) -> tuple[float, float]:
    """Returns mean and standard deviation of an array, computed in float64 without a copy of the array.

    Args:
      values: Array of any shape and float type.
    """
    flat = values.reshape(-1)
    chunks = [slice(start, start + CHUNK) for start in range(0, flat.size, CHUNK)]
    mean = sum(flat[chunk].sum(dtype=np.float64) for chunk in chunks) / flat.size
    variance = sum(np.square(flat[chunk] - mean).sum(dtype=np.float64) for chunk in chunks) / flat.size
    return float(mean), float(np.sqrt(variance))


def describe(net: Network, variables: Variables, known: dict[str, str], folder: Path) -> str:
    """Returns what was imported, and the command that uses it.

    Args:
      net: The network.
      variables: Its variables.
      known: What is known about it; "batch_statistics" is "unknown" if they must be re-estimated.
      folder: Folder of the checkpoint.
    """
    what = f"{type(net).__name__}, {count_parameters(variables):,} parameters, {net.num_classes} classes -> {folder}"
    if known.get("batch_statistics") == "unknown":
        return (
            f"{what}\nIts batch statistics are unknown. To predict with it, re-estimate them first: "
            f"{command('calibrate_bn')} --checkpoint={folder} --output=DIR\n"
            f"To train it: {command('voc_train')} --config=NAME --config.init_from={folder} --workdir=DIR"
        )
    return f"{what}\nTo predict with it: {command('predict')} --checkpoint={folder} --output=DIR IMAGE..."
