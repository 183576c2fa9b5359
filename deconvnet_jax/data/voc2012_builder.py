"""Packs VOC 2012 segmentation together with the annotations of SBD. TensorFlow is never imported.

builder = prepare_voc2012("downloads", "~/tensorflow_datasets")
example = open_split(builder, "train_aug")[0]
"""

import contextlib
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
from deconvnet_jax.data.image_names import NamedFiles, parse_list, walk
from deconvnet_jax.data.packing import PackedBuilder, Progress, packed_data_dir, prepare
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import user_path
from deconvnet_jax.images import Example, check_mask_ids, check_mask_size, read_image, read_mask
from deconvnet_jax.labels import IGNORE, VOC_CLASSES
from deconvnet_jax.mat_files import read_mat

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
    True: tfds.core.BuilderConfig(name="with_sbd", description="VOC 2012 and SBD, with train_aug."),
    False: tfds.core.BuilderConfig(name="voc_only", description="VOC 2012 alone, without train_aug."),
}


class Voc2012Seg(PackedBuilder[str]):
    """VOC 2012 segmentation with the additional images of SBD, as a packed data set.

    The stored splits are VOC's "train" and "val" with VOC's masks (255 along the borders of objects), and
    "train_extra": the images of SBD that are in neither, with SBD's masks (no 255). Two splits combine them: "trainval"
    is train and val; "train_aug" is train and train_extra, which is VOC's train joined with SBD's train and val,
    without VOC's val.
    """

    name = "voc2012_seg"
    _voc: Members
    _sbd: "_SbdMats"

    def __init__(
        self,
        data_dir: Path,
        with_sbd: bool,
        archives: dict[str, Path] | None = None,
        verify: bool = True,
        progress: Progress | None = None,
        packed_from: Any = None,
    ):
        """Prepares the builder; archives are read only when the data set is packed.

        Args:
          data_dir: folder in which TFDS keeps data sets.
          with_sbd: whether the data set includes SBD.
          archives: "VOC" and optionally "SBD", each an archive or the folder extracted from it. None if nothing is
            packed.
          verify: whether archives must be the official ones.
          progress: function that is called with the number of packed examples and of all examples.
          packed_from: description of the original files (`Origin.described`).
        """
        self._paths, self._verify, self._open = archives or {}, verify, contextlib.ExitStack()
        combined = {"trainval": ["train", "val"]}
        if with_sbd:
            combined["train_aug"] = ["train", "train_extra"]
        super().__init__(
            data_dir,
            "PASCAL VOC 2012 segmentation, with the annotations of SBD if they are available.",
            VOC_CLASSES,
            progress,
            _CONFIGS[with_sbd],
            combined_splits=combined,
            left_out={} if with_sbd else dict.fromkeys(("train_aug", "train_extra"), NEEDS_SBD),
            packed_from=packed_from,
        )

    def items(self) -> dict[str, list[str]]:
        """Returns the image names of every stored split.

        Raises:
          InputError: if an archive is not usable or, with `verify`, not the official one.
        """
        are_files = [path.is_file() for path in self._paths.values()]
        for part, path in self._paths.items():
            if self._verify and path.is_file():
                verify_archive(path, {"VOC": VOC, "SBD": SBD}[part])
        self._voc = self._open.enter_context(Members(self._paths["VOC"], VOC.root))
        names = {split: _split_list(self._voc, split) for split in ("train", "val")}
        if "SBD" in self._paths:
            self._sbd = _SbdMats(self._paths["SBD"], {*names["train"], *names["val"]})
            names["train_extra"] = self._sbd.names
        counts = {split: len(members) for split, members in names.items()}
        counts["train_aug"] = counts["train"] + counts.pop("train_extra", COUNTS["train_aug"] - counts["train"])
        if self._verify and all(are_files) and counts != COUNTS:
            raise InputError(f"the splits have {counts} images, expected {COUNTS}; please report this")
        return names

    def read(self, split: str, item: str) -> tuple[Example, bytes]:
        """Reads one image with its masks and checks them.

        Args:
          split: stored split of the image. "train_extra" takes the masks from SBD.
          item: image name.

        Returns:
          The example and the content of its JPEG file.

        Raises:
          InputError: if a file is missing or not usable.
        """
        if split == "train_extra":
            files = (f"cls/{item}.mat", f"inst/{item}.mat")
            label, instances = self._sbd.read(item)
        else:
            files = (f"SegmentationClass/{item}.png", f"SegmentationObject/{item}.png")
            label, instances = (read_mask(self._voc.read(file)) for file in files)
        encoded = self._voc.read(f"JPEGImages/{item}.jpg")
        image = read_image(encoded)
        for file, mask in zip(files, (label, instances), strict=True):
            check_mask_size(file, mask, image)
        check_mask_ids(files[0], label, len(VOC_CLASSES))
        return Example(item, image, label, instances), encoded.getvalue()

    def close(self) -> None:
        """Closes the archive of VOC."""
        self._open.close()


class _SbdMats:
    """SBD's annotations of the images that are not in VOC's splits.

    They are kept in memory, because a compressed archive can be read only in one pass.
    """

    def __init__(self, path: Path, known: set[str]):
        """Reads the annotations.

        Args:
          path: archive of SBD, or the folder extracted from it.
          known: image names in VOC's splits, whose annotations are left out.
        """
        self._path = path
        self._files: dict[str, Member] = {}

        def wanted(name: str) -> bool:
            folder, _, file = name.partition("/")
            annotation = folder in ("cls", "inst") and file.removesuffix(".mat") not in known
            return annotation or name in ("train.txt", "val.txt")

        self._files = dict(stream_members(path, SBD.root, wanted))
        lists = [self._file(f"{split}.txt").getvalue().decode("ascii", "replace").split() for split in ("train", "val")]
        self.names = sorted({name for names in lists for name in names} - known)

    def read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return read_sbd(self._file(f"cls/{name}.mat"), self._file(f"inst/{name}.mat"))

    def _file(self, name: str) -> Member:
        if name not in self._files:
            inside = f"{SBD.root}/{name}" if self._path.is_file() else name
            raise InputError(f"{self._path} has no {inside}, expected the whole of SBD; get SBD again")
        return self._files[name]


def read_sbd(class_file: Member, instance_file: Member) -> tuple[np.ndarray, np.ndarray]:
    """Returns the class mask and the object mask of one image of SBD, from its MATLAB files.

    Args:
      class_file: file from cls/, with the struct GTcls.
      instance_file: file from inst/, with the struct GTinst.

    Returns:
      Class ids, uint8 [H, W], and object numbers, uint8 [H, W]; 0 is background in both.

    Raises:
      InputError: if a file is not usable, or the files contradict each other.
    """
    (label, _), (instances, categories) = _sbd_mask(class_file, "GTcls"), _sbd_mask(instance_file, "GTinst")
    if label.shape != instances.shape:
        raise InputError(
            f"{instance_file} is {instances.shape[1]}x{instances.shape[0]} pixels, but {class_file} is "
            f"{label.shape[1]}x{label.shape[0]}; get SBD again"
        )
    if instances.max(initial=0) > min(len(categories), IGNORE - 1):
        raise InputError(
            f"{instance_file}: GTinst shows object {instances.max()} of {len(categories)} Categories; get SBD again"
        )
    unknown = np.setdiff1d(np.concatenate([np.unique(label), categories]), np.arange(len(VOC_CLASSES)))
    if len(unknown):
        raise InputError(
            f"{class_file} or {instance_file} has class {unknown[0]}; expected 0 to "
            f"{len(VOC_CLASSES) - 1}: get SBD again"
        )
    return label, instances


def _sbd_mask(file: Member, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mask in a struct of SBD, uint8 [H, W], and the classes of its objects 1, 2, ..., int64 [n]."""
    found = read_mat(file, name, "get SBD again")
    try:
        struct = found[0, 0]
        mask, categories = struct["Segmentation"], np.zeros(0)
        if name == "GTinst":
            categories = struct["Categories"]
        if mask.ndim != 2 or mask.dtype != np.uint8 or not mask.size:
            raise TypeError(f"Segmentation is {mask.dtype} {list(mask.shape)}, expected uint8 [H, W]")
        return mask, categories.astype(np.int64).ravel()
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file}: {name} is not usable ({error}); expected Segmentation and, in GTinst, Categories: get SBD again"
        ) from error


def prepare_voc2012(
    manual_dir: str | Path | None, data_dir: str | Path, progress: Progress | None = None, verify: bool = True
) -> Voc2012Seg:
    """Opens VOC 2012, with SBD if it is available, and packs it on the first call.

    Args:
      manual_dir: folder with VOCtrainval_11-May-2012.tar and, for the split "train_aug", benchmark.tgz. The folders
        extracted from them (VOCdevkit/VOC2012, benchmark_RELEASE/dataset) work too. None opens only what was packed
        before.
      data_dir: folder in which TFDS keeps data sets.
      progress: function that is called with the number of packed examples and of all examples.
      verify: whether archives must have the official size and SHA-256 checksum and give the official numbers of
        examples.

    Returns:
      A builder whose data is ready to read with `open_split`.

    Raises:
      InputError: if the archives are missing or not usable; no unfinished data is left behind.
    """
    data_dir = packed_data_dir(data_dir, Voc2012Seg.name, pack_it=manual_dir is not None)
    folder = user_path(manual_dir, "--manual_dir") if manual_dir is not None else None
    archives = _archives(folder) if folder else {}
    with_sbd = "SBD" in archives or Voc2012Seg(data_dir, True).data_path.exists()
    return prepare(
        lambda target, packed_from: Voc2012Seg(target, with_sbd, archives, verify, progress, packed_from),
        data_dir,
        folder,
        _files,
        f"VOC 2012 is not packed in {data_dir} yet; run python -m experiments.prepare_data --dataset=voc2012 "
        f"--manual_dir=FOLDER_WITH_THE_ARCHIVES --data_dir={data_dir}",
    )


def _archives(manual_dir: Path) -> dict[str, Path]:
    """Returns the paths of "VOC" and, if it is there, "SBD": archives, or folders that were extracted from them."""
    voc, sbd = find_archive(manual_dir, VOC), find_archive(manual_dir, SBD) or find_renamed(manual_dir, SBD)
    if voc is None:
        near = find_near(manual_dir, VOC)
        remedy = f"did you mean {near}?" if near else f"download {VOC.url} and, for train_aug, {SBD.url}"
        raise InputError(f"{manual_dir} has neither {VOC.file} nor {VOC.root}; {remedy}")
    return {"VOC": voc, "SBD": sbd} if sbd else {"VOC": voc}


def _files(manual_dir: Path) -> dict[str, list[Path]]:
    """Returns the archives or, for extracted ones, the files that are read."""
    found = _archives(manual_dir)
    return {part: [path] if path.is_file() else _read_files(path) for part, path in found.items()}


def _read_files(path: Path) -> list[Path]:
    parts = [part for part in (*VOC.holds, *SBD.holds) if (path / part).is_dir()]
    lists = [path / name for name in ("train.txt", "val.txt") if (path / name).is_file()]
    return [file for part in parts for _, file in walk(path / part)] + lists


def _split_list(members: Members, split: str) -> list[str]:
    listed = members.read(f"ImageSets/Segmentation/{split}.txt")
    photographs = NamedFiles(
        (".jpg",), lambda: members.below("JPEGImages"), lambda name: f"JPEGImages/{name}" in members
    )
    return parse_list(listed.getvalue(), listed, photographs).names
