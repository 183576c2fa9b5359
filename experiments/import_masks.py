r"""Converts photographs and masks of any annotation tool into a folder in the VOC layout that can be trained on.

Usage:
    python -m experiments.import_masks --images=FOLDER [--masks=FOLDER] --output=FOLDER \
        [--names=A,B,...|--classes=FILE|--binary=NAME] [--val=0.2]

Examples:
    python -m experiments.import_masks --images=photos --masks=masks --output=my_data --names=background,cat,dog
    python -m experiments.import_masks --images=photos --masks=masks --output=my_data --binary=road
    python -m experiments.import_masks --images=photos --masks=cvat_export --output=my_data
    python -m experiments.import_masks --images=labelme_folder --output=my_data --unmatched=skip
    python -m experiments.import_masks --images=roboflow_export --output=my_data
    python -m experiments.import_masks --images=supervisely_project --output=my_data

Masks hold class ids, colours, or black and white, or they are JSON files of labelme or Supervisely. The program
recognises which, as far as the files say it, and otherwise names the flag to give. A mask belongs to the photograph
with the same path below its folder, or with the same name.

The program prints what it found of each class in each split. The last line of stdout says what was written. After an
error nothing is written.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_path("images", None, "Folder with the photographs, of any nesting.")
    cli.define_path("masks", None, "Folder with the masks or annotations. Default: the folder --images.")
    cli.define_path("output", None, "Folder to write in the VOC layout: new, or empty.")
    flags.DEFINE_string(
        "mask_suffix",
        None,
        "End of the names of masks that their photographs do not have, such as _mask, _label, _L or "
        "_gtFine_labelIds. Files without it are no masks. Default: _mask for Roboflow's exports, otherwise none.",
    )
    flags.DEFINE_string(
        "image_suffix",
        None,
        "End of the names of photographs that their masks do not have, such as _leftImg8bit. Default: none.",
    )
    flags.DEFINE_enum(
        "kind",
        None,
        ["ids", "colours", "labelme", "supervisely"],
        "What marks the classes in the masks. Default: what the files show.",
    )
    cli.define_path(
        "classes",
        None,
        "File of the classes, with lines name,r,g,b or id,name, CVAT's labelmap.txt, or one name per line in the order "
        "of the ids. Default: labelmap.txt, _classes.csv, class_dict.csv, classes.txt or class_names.txt among the "
        "masks.",
    )
    flags.DEFINE_list(
        "names",
        None,
        "Class names in the order of the ids from 0; or ID=NAME,... for other ids. Default: those of --classes.",
    )
    flags.DEFINE_string(
        "binary", None, "The class that masks of 0 and 255 (or 0 and 1) show on the background. Default: not binary."
    )
    flags.DEFINE_integer(
        "threshold",
        None,
        "Grey value from which a pixel belongs to the class of --binary, such as 128 for antialiased masks. Default: "
        "other values than 0 and 255 are an error.",
        lower_bound=1,
        upper_bound=255,
    )
    flags.DEFINE_list(
        "ignore", None, "Classes whose pixels become 255, which training and scores leave out. Default: none."
    )
    flags.DEFINE_enum(
        "unknown",
        "error",
        ["error", "ignore", "background"],
        "What pixels become that belong to no class: an error, 255, or background.",
    )
    flags.DEFINE_enum(
        "unmatched",
        "error",
        ["error", "skip", "background"],
        "What happens to photographs without a mask: an error, left out, or background. With skip, masks without a "
        "photograph are left out, too.",
    )
    flags.DEFINE_boolean(
        "objects",
        True,
        "Write the numbers of single objects, if the files mark them. --noobjects leaves them out, for example because "
        "an image has more than 254.",
    )
    flags.DEFINE_float(
        "val",
        None,
        "Part of the images that is held out as val. Default: the export's folders or lists train and val if there are "
        "some, otherwise 0.2.",
    )
    flags.DEFINE_integer("seed", 0, "Number that selects the images of --val. The same number selects the same images.")
    cli.define_path("train_list", None, "File with the names of the training images, one per line. Default: none.")
    cli.define_path("val_list", None, "File with the names of the images held out, one per line. Default: none.")
    flags.mark_flags_as_required(["images", "output"])


def main(argv: Sequence[str]) -> None:
    """Imports photographs and masks."""
    from .tasks.import_masks import run

    cli.no_arguments(argv)
    run(**cli.arguments_of(run))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
