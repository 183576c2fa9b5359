"""Brings networks trained elsewhere into a checkpoint that voc_eval, predict and voc_train take.

    python -m experiments.import_weights --caffemodel=FILE --output=DIR
    python -m experiments.import_weights --vgg16=FILE --output=DIR

--caffemodel takes the authors' DeconvNet_trainval_inference.caffemodel and stage_{1,2}_train_result.caffemodel, and
Berkeley's fcn-8s-pascal.caffemodel and fcn8s-heavy-pascal.caffemodel, also fine-tuned on other classes, as
.caffemodel.h5, or written by NVCaffe; --vgg16 an ImageNet VGG-16 (.caffemodel, Keras's .h5 or .keras, torchvision's
.pth, .safetensors, .npz), which becomes the encoder of a DeconvNet that is to be trained. Caffe is not needed.
Prints every array's layer, shape, mean and standard deviation.

A network of stage_{1,2}_train_result predicts after `python -m experiments.calibrate_bn`; training goes on from it with
`python -m experiments.voc_train --config.init_from=DIR`.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_path("caffemodel", None, "a DeconvNet or FCN-8s of Caffe's")
    cli.define_path("vgg16", None, "instead: an ImageNet VGG-16, for the encoder of a DeconvNet")
    cli.define_path("output", None, "folder for the checkpoint", in_bucket=True)
    flags.DEFINE_enum(
        "bn",
        "auto",
        ["auto", "folded", "learned"],
        "a DeconvNet's batch normalisation: 'folded' as in ..._inference, 'learned' as in stage_*_train_result; by "
        "default learned if the file has a loss layer",
    )
    cli.define_path("class_names", None, "file with one name a line; default: VOC's for 21 classes, else numbers")
    flags.mark_flag_as_required("output")


def main(argv: Sequence[str]) -> None:
    """Runs one import."""
    from .tasks.import_weights import run

    cli.no_arguments(argv)
    run(**cli.arguments_of(run))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
