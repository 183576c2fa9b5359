r"""Scores a trained network on a split, at the resolution of the images.

Usage:
    python -m experiments.voc_eval --checkpoint=DIR [--output=DIR] [--split=NAME] [--voc_root=FOLDER] \
        [--config.KEY=VALUE ...]

Example:
    python -m experiments.voc_eval --checkpoint=runs/demo --output=runs/demo/scores

Data and settings are those of the training run, unless --config, --split, --voc_root, --data_dir or --config.KEY=VALUE
change them: for example --config.inference.mode=paper or --config.inference.crf=released. The network is always that of
the checkpoint.

The program prints a table of scores. The last line of stdout is one JSON object with the same scores. Started as
several processes, each segments its share of the images and the first one prints.

With --output the program also writes:
    metrics.json   the scores
    confusion.png  which class was taken for which
    label maps     for VOC's classes results/VOC2012/Segmentation/comp6_SPLIT_cls/NAME.png, as the challenge's server
                   expects; otherwise labels/NAME.png
    panels/        NAME.jpg with image, ground truth, prediction and overlay, for the first --panels images

A split without masks, such as VOC's test, is segmented and not scored. A folder with results of another evaluation is
refused.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli, hosts, named_files


def define_flags() -> None:
    """Defines the command line."""
    cli.define_config(
        "Config that names the data and says how to segment. Default: the config of the training run.",
        cli.EVERY_SETTING,
    )
    cli.define_checkpoint()
    cli.define_path(
        "output", None, "Folder for metrics.json, label maps and panels. Default: nothing is written.", in_bucket=True
    )
    cli.define_data("eval_split", "score")
    flags.DEFINE_integer("panels", 100, "Number of images that get a panel; -1: all.", lower_bound=-1)
    cli.define_palette()
    cli.define_names()
    hosts.define_flags()


def main(argv: Sequence[str]) -> None:
    """Runs one evaluation."""
    cli.no_arguments(argv)
    named_files.check_prediction(flags.FLAGS.checkpoint, *cli.given_config(flags.FLAGS))

    from .common.evaluation import run, show

    hosts.initialize(flags.FLAGS)
    show(run(**cli.arguments_of(run), overrides=cli.data_flags("eval_split")))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
