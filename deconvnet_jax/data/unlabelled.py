"""Photographs of a split that has no masks, like VOC's test: to be predicted, not scored."""

from collections.abc import Sequence
from pathlib import Path

from deconvnet_jax.data.annotated import check_left_out
from deconvnet_jax.data.text_lists import read_list
from deconvnet_jax.data.voc_layout import VocFolder
from deconvnet_jax.images import Example, image_size, read_image


class UnlabelledSplit(Sequence[Example]):
    """`len(split)`, `split[i]` with `label` and `instances` None, `name(i)`, `size(i)`; as `data.DatasetSplit`."""

    def __init__(self, root: str | Path, split: str):
        """
        Args:
          root: with JPEGImages and ImageSets/Segmentation.
          split: name of a file in ImageSets/Segmentation.

        Raises:
          InputError: if the file is empty or names an image twice.
        """
        self._folder = VocFolder(root)
        self._names = read_list(self._folder.split_file(split), self._folder.photographs).names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Example:
        """Raises InputError if the photograph is missing or damaged."""
        name = self._names[index]
        return Example(name, read_image(self._folder.image(name)), None, None)

    def name(self, index: int) -> str:
        """The name of an image in the split's file."""
        return self._names[index]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image; no pixels are decoded."""
        return image_size(self._folder.image(self._names[index]))


def has_no_masks(root: str | Path, split: str) -> bool:
    """Whether there are photographs and a file of this split, but not one mask of its images.

    Raises:
      InputError: if the file cannot be used, or the masks seem to be there under other names.
    """
    folder = VocFolder(root)
    if not folder.split_file(split).is_file() or not (folder.root / "JPEGImages").is_dir():
        return False
    names = read_list(folder.split_file(split), folder.photographs).names
    if not (folder.root / "SegmentationClass").is_dir():
        return True
    if any(folder.labels.find(name) for name in names):
        return False
    check_left_out(folder, split)
    return True
