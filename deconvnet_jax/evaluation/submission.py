"""Where the server of VOC's challenge expects label maps."""

from pathlib import Path


def submission_folder(split: str) -> Path:
    """The folder for NAME.png in an archive for the server, of competition 6: segmentation, any training data.

    VOC 2012 development kit, section "Segmentation"; competition 6 because VGG-16 begins with ImageNet's weights.
    """
    return Path("results/VOC2012/Segmentation") / f"comp6_{split}_cls"
