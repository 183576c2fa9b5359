"""Imports a network that was trained elsewhere into a checkpoint for voc_eval, predict and voc_train.

Usage:
    python -m experiments.import_weights --caffemodel=FILE --output=DIR
    python -m experiments.import_weights --vgg16=FILE --output=DIR

--caffemodel takes the authors' DeconvNet_trainval_inference.caffemodel and stage_{1,2}_train_result.caffemodel, and
Berkeley's fcn-8s-pascal.caffemodel and fcn8s-heavy-pascal.caffemodel. The network may be fine-tuned on other classes.
Files in HDF5 (.caffemodel.h5) and files of NVCaffe can be read too. Caffe itself is not needed.

--vgg16 takes an ImageNet VGG-16 as .caffemodel, .h5 or .keras (Keras), .pth (torchvision), .safetensors or .npz. It
becomes the encoder of a DeconvNet that still has to be trained.

The program prints layer, shape, mean and standard deviation of every array.

A network from stage_{1,2}_train_result.caffemodel needs `python -m experiments.calibrate_bn` before it can predict. To
train an imported network further, use `python -m experiments.voc_train --config=NAME --config.init_from=DIR`.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_path(
        "caffemodel", None, "Caffe file of a DeconvNet or FCN-8s. Give this or --vgg16. Default: none is read."
    )
    cli.define_path(
        "vgg16", None, "File of an ImageNet VGG-16, for the encoder of a new DeconvNet. Default: none is read."
    )
    cli.define_path("output", None, "New folder for the checkpoint.", in_bucket=True)
    flags.DEFINE_enum(
        "bn",
        "auto",
        ["auto", "folded", "learned"],
        "Form of batch normalisation in a DeconvNet's file: `folded` as in ..._inference.caffemodel, `learned` as in "
        "stage_*_train_result.caffemodel. `auto` takes `learned` if the file has a loss layer.",
    )
    cli.define_path(
        "class_names",
        None,
        "File with the class names, one per line. Default: VOC's names for 21 classes, otherwise numbers.",
    )
    flags.mark_flag_as_required("output")


def main(argv: Sequence[str]) -> None:
    """Runs one import."""
    from .tasks.import_weights import run

    cli.no_arguments(argv)
    run(**cli.arguments_of(run))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
