"""The TFDS data set of VOC 2012 segmentation with the annotations of SBD. TensorFlow is never imported.

builder = prepare_voc2012("downloads", "~/tensorflow_datasets")
example = open_split(builder, "train_aug")[0]
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from deconvnet_jax.data.archives import (
    Archive,
    Member,
    Members,
    find_archive,
    find_near,
    find_renamed,
    stream_members,
    verify_archive,
)
from deconvnet_jax.data.named_files import NamedFiles, walk
from deconvnet_jax.data.packing import Origin, check_origin, pack, packed_data_dir, remove_leftovers
from deconvnet_jax.data.records import FORMAT, PackedBuilder, dataset_info, record, silence
from deconvnet_jax.data.sbd import read_sbd
from deconvnet_jax.data.text_lists import parse_list
from deconvnet_jax.data.voc_layout import check_label
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import user_path
from deconvnet_jax.images import Example, read_image, read_mask
from deconvnet_jax.labels import VOC_CLASSES

Progress = Callable[[int, int], None]

VOC = Archive(
    "VOCtrainval_11-May-2012.tar",
    1_999_639_040,
    "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
    "VOCdevkit/VOC2012",
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"),
)
SBD = Archive(
    "benchmark.tgz",
    1_419_539_633,
    "6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
    "benchmark_RELEASE/dataset",
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    ("cls", "inst"),
)
NEEDS_SBD = (
    f"it needs SBD; put {SBD.file} ({SBD.url}) or the folder extracted from it into --manual_dir and run "
    "experiments.prepare_data again"
)
COUNTS = {"train": 1464, "val": 1449, "train_aug": 10582}
_CONFIGS = {
    True: tfds.core.BuilderConfig(name="with_sbd", description="VOC 2012 and SBD: also train_aug."),
    False: tfds.core.BuilderConfig(name="voc_only", description="VOC 2012 alone: no train_aug."),
}


class Voc2012Seg(PackedBuilder):
    """VOC 2012 segmentation, and the images that SBD adds; see `dataset_info` for the features.

    Stored are "train" and "val" of VOC with VOC's masks (255 along the objects), and "train_extra", images of SBD that
    are in neither, with SBD's masks (no 255). Combined: "trainval", and "train_aug" = train + train_extra, which is the
    union of VOC's train with SBD's train and val, less VOC's val.
    """

    name = "voc2012_seg"
    VERSION = FORMAT
    code_path = Path(__file__)  # TFDS looks it up with importlib_resources, which it does not depend on

    def __init__(
        self,
        *,
        voc: Members | None = None,
        sbd: Path | None = None,
        official: bool = False,
        packed_from: dict[str, Any] | None = None,
        progress: Progress | None = None,
        **kwargs: Any,
    ):
        self._voc, self._sbd, self._official, self._progress = voc, sbd, official, progress
        self._packed_from = packed_from
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        combined, left_out = {"trainval": ["train", "val"]}, {}
        if self.builder_config.name == "with_sbd":
            combined["train_aug"] = ["train", "train_extra"]
        else:
            left_out = dict.fromkeys(("train_aug", "train_extra"), NEEDS_SBD)
        description = "PASCAL VOC 2012 segmentation, with the annotations of SBD where they are at hand."
        return dataset_info(
            self,
            description,
            VOC_CLASSES,
            combined_splits=combined,
            left_out=left_out,
            packed_from=self._packed_from,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        members = self._voc
        train, val = (_split_list(members, split) for split in ("train", "val"))
        sbd = _SbdMats(self._sbd, {*train, *val}) if self._sbd else None
        extra = sbd.names if sbd else []
        total = len(train) + len(val) + len(extra)
        if self._official:
            _check_counts({"train": len(train), "val": len(val), "train_aug": len(train) + len(extra)}, bool(sbd))

        def voc_masks(name: str) -> tuple[np.ndarray, np.ndarray]:
            files = (f"SegmentationClass/{name}.png", f"SegmentationObject/{name}.png")
            return tuple(read_mask(members.read(file)) for file in files)

        splits = {
            "train": self._generate_examples(members, train, voc_masks, 0, total),
            "val": self._generate_examples(members, val, voc_masks, len(train), total),
        }
        if sbd:
            splits["train_extra"] = self._generate_examples(members, extra, sbd.read, len(train) + len(val), total)
        return splits

    def _generate_examples(
        self,
        members: Members,
        names: Sequence[str],
        masks: Callable[[str], tuple[np.ndarray, np.ndarray]],
        start: int,
        total: int,
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, name in enumerate(names):
            yield i, self._record(members, name, *masks(name))
            if self._progress:
                self._progress(start + i + 1, total)

    @staticmethod
    def _record(members: Members, name: str, label: np.ndarray, instances: np.ndarray) -> dict[str, Any]:
        encoded = members.read(f"JPEGImages/{name}.jpg")
        image = read_image(encoded)
        for what, mask in (("class", label), ("object", instances)):
            if mask.shape != image.shape[:2]:
                raise InputError(
                    f"the {what} mask of image '{name}' is {mask.shape[1]}x{mask.shape[0]} pixels, but the image is "
                    f"{image.shape[1]}x{image.shape[0]}; get the data again"
                )
        check_label(Path(f"{name}.png"), label, image, len(VOC_CLASSES))
        return record(Example(name, image, label, instances), encoded.getvalue())


class _SbdMats:
    """SBD's annotations of the images that VOC's splits lack; in memory, because a compressed archive is one pass."""

    def __init__(self, path: Path, known: set[str]):
        lists: dict[str, list[str]] = {}
        self._mats: dict[str, Member] = {}

        def wanted(name: str) -> bool:
            folder, _, file = name.partition("/")
            annotation = folder in ("cls", "inst") and file.removesuffix(".mat") not in known
            return annotation or name in ("train.txt", "val.txt")

        for name, member in stream_members(path, SBD.root, wanted):
            if name.endswith(".txt"):
                lists[name] = member.getvalue().decode("ascii", "replace").split()
            else:
                self._mats[name] = member
        missing = {"train.txt", "val.txt"} - set(lists)
        if missing:
            raise InputError(f"{path} has no {_inside(path, missing.pop())}; is it the whole of SBD?")
        self._path = path
        self.names = sorted({*lists["train.txt"], *lists["val.txt"]} - known)

    def read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        files = [f"cls/{name}.mat", f"inst/{name}.mat"]
        for file in files:
            if file not in self._mats:
                raise InputError(f"{self._path} has no {_inside(self._path, file)}; is it the whole of SBD?")
        return read_sbd(*(self._mats[file] for file in files), len(VOC_CLASSES))


def prepare_voc2012(
    manual_dir: str | Path | None, data_dir: str | Path, progress: Progress | None = None, verify: bool = True
) -> tfds.core.DatasetBuilder:
    """The data set; built on the first call.

    Args:
      manual_dir: folder with VOCtrainval_11-May-2012.tar and, for the split "train_aug", benchmark.tgz, or with what
        was extracted from them (VOCdevkit/VOC2012, benchmark_RELEASE/dataset). None: only what was built before.
      data_dir: where TFDS keeps data sets.
      progress: called with the number of examples done and of all examples while building.
      verify: whether archives must be the official ones, by size, sha256 and the number of examples.

    Returns:
      A builder whose data is ready to read.

    Raises:
      InputError: if the archives are missing or not usable; nothing half-built is left.
    """
    data_dir = packed_data_dir(data_dir, Voc2012Seg.name, pack_it=manual_dir is not None)
    folder = user_path(manual_dir, "--manual_dir") if manual_dir is not None else None
    voc, sbd = _archives(folder) if folder is not None else (None, None)
    remove_leftovers(data_dir, Voc2012Seg.name)
    for with_sbd in (True, False):
        builder = _builder(with_sbd, data_dir)
        if builder.data_path.exists() and (with_sbd or sbd is None):
            check_origin(builder, _origin, folder, data_dir)
            return builder
    if voc is None:
        raise InputError(
            f"VOC 2012 is not built in {data_dir} yet: python -m experiments.prepare_data --dataset=voc2012 "
            f"--manual_dir=FOLDER_WITH_THE_ARCHIVES --data_dir={data_dir}"
        )
    found = [(path, archive) for path, archive in ((voc, VOC), (sbd, SBD)) if path]
    for path, archive in found:
        if verify and path.is_file():
            verify_archive(path, archive)
    origin = _origin(folder, data_dir / Voc2012Seg.name)
    with Members(voc, VOC.root) as members:
        options = {
            "voc": members,
            "sbd": sbd,
            "official": verify and all(path.is_file() for path, _ in found),
            "progress": progress,
            "packed_from": origin.described,
        }
        pack(lambda target: _builder(sbd is not None, target, **options), data_dir)
    origin.keep()
    return _builder(sbd is not None, data_dir)


def _archives(manual_dir: Path) -> tuple[Path, Path | None]:
    voc, sbd = find_archive(manual_dir, VOC), find_archive(manual_dir, SBD) or find_renamed(manual_dir, SBD)
    if voc is None:
        near = find_near(manual_dir, VOC)
        remedy = f"did you mean {near}?" if near else f"get {VOC.url}, and for train_aug {SBD.url}"
        raise InputError(f"{manual_dir} has neither {VOC.file} nor {VOC.root}; {remedy}")
    return voc, sbd


def _origin(manual_dir: Path, notes: Path) -> Origin:
    found = dict(zip(("VOC", "SBD"), _archives(manual_dir), strict=True))
    return Origin(manual_dir, {part: _files(path) for part, path in found.items() if path}, notes)


def _files(path: Path) -> list[Path]:
    """Returns an archive, or the files that are read of an extracted one."""
    if path.is_file():
        return [path]
    parts = [part for part in (*VOC.holds, *SBD.holds) if (path / part).is_dir()]
    lists = [path / name for name in ("train.txt", "val.txt") if (path / name).is_file()]
    return [file for part in parts for _, file in walk(path / part)] + lists


def _inside(path: Path, name: str) -> str:
    """Returns the path of a file of SBD in the archive or in the folder."""
    return f"{SBD.root}/{name}" if path.is_file() else name


def _builder(with_sbd: bool, data_dir: Path, **options: Any) -> Voc2012Seg:
    with silence():
        return Voc2012Seg(config=_CONFIGS[with_sbd], data_dir=data_dir, file_format="array_record", **options)


def _split_list(members: Members, split: str) -> list[str]:
    listed = members.read(f"ImageSets/Segmentation/{split}.txt")
    photographs = NamedFiles(
        (".jpg",), lambda: members.below("JPEGImages"), lambda name: f"JPEGImages/{name}" in members
    )
    return parse_list(listed.getvalue(), listed, photographs).names


def _check_counts(counts: dict[str, int], with_sbd: bool) -> None:
    for split, wanted in COUNTS.items():
        if counts[split] != wanted and (with_sbd or split != "train_aug"):
            raise InputError(f"the split '{split}' has {counts[split]} images, expected {wanted}; please report this")
