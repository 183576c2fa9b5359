"""Scores a trained network on a split at the images' own resolution.

    python -m experiments.voc_eval --checkpoint=DIR [--config=FILE] [--config.KEY=VALUE ...] [--output=DIR]
        [--split=val] [--voc_root=DIR]

The data and the way of segmenting (--config.inference.mode, .num_proposals, .crf, .ensemble_checkpoint, ...) are those
of the training run, unless flags say otherwise; the network is the checkpoint's in any case. Prints a table and, as the
last line of stdout, one JSON object. Started in several processes (common/hosts.py), each segments its share of
the images, and the first one prints the scores of all.

With --output also metrics.json, confusion.png (which class was taken for which), label maps with VOC's palette, one an
image (of VOC's classes in the folders that the challenge's server expects,
results/VOC2012/Segmentation/comp6_SPLIT_cls/NAME.png, of others in labels/NAME.png), and panels/NAME.jpg (image, truth,
prediction and overlay; of the first --panels images). A split without masks, like VOC's test, is segmented but not
scored. A folder with the results of another evaluation is refused.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli, hosts


def define_flags() -> None:
    """Defines the command line."""
    cli.define_config("a file in experiments/configs; default: the training run's", cli.EVERY_SETTING)
    cli.define_checkpoint()
    cli.define_path("output", None, "folder for metrics.json, label maps and panels", in_bucket=True)
    cli.define_data("eval_split", "score")
    flags.DEFINE_integer("panels", 100, "how many images get a panel; -1: all", lower_bound=-1)
    hosts.define_flags()


def main(argv: Sequence[str]) -> None:
    """Runs one evaluation."""
    from .common.evaluation import run, show

    cli.no_arguments(argv)
    hosts.initialize(flags.FLAGS)
    show(run(**cli.arguments_of(run), overrides=cli.data_flags("eval_split")))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
