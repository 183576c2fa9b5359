"""Makes small archives of VOC 2012 and SBD with the members, folders and file formats of the official ones."""

import io
import tarfile
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from deconvnet_jax.data import Example

VOC_FILE, SBD_FILE = "VOCtrainval_11-May-2012.tar", "benchmark.tgz"
VOC_ROOT, SBD_ROOT = "VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"
TRAIN, VAL = ["2007_000032", "2008_000008", "2011_003271"], ["2007_000033", "2009_000001"]
SBD_TRAIN = ["2011_000006", "2010_000002", "2008_000008", "2007_000033"]
SBD_VAL = ["2009_000100", "2008_000002", "2007_000032"]
EXTRA = ["2008_000002", "2009_000100", "2010_000002", "2011_000006"]  # SBD's images outside VOC's splits
PALETTE = [value for i in range(256) for value in ((37 * i) % 256, (91 * i + 13) % 256, (200 - 7 * i) % 256)]


def random_example(name: str, rng: np.random.Generator, border: bool, scale: int = 1) -> Example:
    """Returns two or three coloured rectangles on noise; `border` adds VOC's border of 255 to the masks."""
    height, width = rng.integers(40, 90, 2)
    image = rng.integers(90, 110, (height, width, 3), np.uint8)
    label, instances = np.zeros((2, height, width), np.uint8)
    for number in range(1, rng.integers(3, 5)):
        top, left = rng.integers(0, 20, 2)
        bottom, right = top + rng.integers(8, 20), left + rng.integers(8, 20)
        edge = (slice(top, bottom), slice(left, right))
        inner = (slice(top + 2, bottom - 2), slice(left + 2, right - 2))
        for mask, value in ((label, rng.integers(1, 21)), (instances, number)):
            mask[edge] = 255 if border else value
            mask[inner] = value
        image[inner] = rng.integers(0, 256, 3)
    enlarged = (array.repeat(scale, axis=0).repeat(scale, axis=1) for array in (image, label, instances))
    return Example(name, *enlarged)


def jpeg(image: np.ndarray) -> bytes:
    """Returns an image as JPEG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90)
    return file.getvalue()


def palette_png(mask: np.ndarray) -> bytes:
    """Returns a mask as an indexed PNG, like VOC's masks."""
    picture = Image.frombytes("P", mask.shape[::-1], mask.tobytes())
    picture.putpalette(PALETTE)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def sbd_mat(name: str, **fields: object) -> bytes:
    """Returns a MATLAB file with one struct."""
    file = io.BytesIO()
    scipy.io.savemat(file, {name: fields}, do_compression=True)
    return file.getvalue()


def class_mat(label: np.ndarray) -> bytes:
    """Returns a file like SBD's cls/NAME.mat."""
    present = np.unique(label[label > 0]).astype(np.uint8)[:, None]
    return sbd_mat("GTcls", Boundaries=np.zeros((20, 1), object), Segmentation=label, CategoriesPresent=present)


def instance_mat(label: np.ndarray, instances: np.ndarray) -> bytes:
    """Returns a file like SBD's inst/NAME.mat."""
    numbers = range(1, int(instances.max()) + 1)
    categories = [[label[instances == i][0] if (instances == i).any() else 1] for i in numbers]
    return sbd_mat(
        "GTinst",
        Boundaries=np.zeros((len(categories), 1), object),
        Segmentation=instances,
        Categories=np.array(categories, np.uint8),
    )


def voc_members(examples: dict[str, Example]) -> dict[str, bytes]:
    """Returns {path: content} of the VOC archive: photographs of all examples, and masks of VOC's splits."""
    files = {
        f"{VOC_ROOT}/ImageSets/Segmentation/train.txt": "\n".join([*TRAIN, ""]).encode(),
        f"{VOC_ROOT}/ImageSets/Segmentation/val.txt": "\n".join([*VAL, ""]).encode(),
        f"{VOC_ROOT}/Annotations/2007_000032.xml": b"<annotation/>",
    }
    for name, example in examples.items():
        files[f"{VOC_ROOT}/JPEGImages/{name}.jpg"] = jpeg(example.image)
        if name in TRAIN + VAL:
            files[f"{VOC_ROOT}/SegmentationClass/{name}.png"] = palette_png(example.label)
            files[f"{VOC_ROOT}/SegmentationObject/{name}.png"] = palette_png(example.instances)
    return files


def sbd_members(examples: dict[str, Example]) -> dict[str, bytes]:
    """Returns {path: content} of the SBD archive."""
    files = {
        f"{SBD_ROOT}/train.txt": "\n".join([*SBD_TRAIN, ""]).encode(),
        f"{SBD_ROOT}/val.txt": "\n".join([*SBD_VAL, ""]).encode(),
        "benchmark_RELEASE/benchmark_code_RELEASE/README": b"code",
    }
    for name in {*SBD_TRAIN, *SBD_VAL}:
        example = examples[name]
        label = np.where(example.label == 255, 0, example.label)
        instances = np.where(example.instances == 255, 0, example.instances)
        files[f"{SBD_ROOT}/img/{name}.jpg"] = jpeg(example.image)
        files[f"{SBD_ROOT}/cls/{name}.mat"] = class_mat(label)
        files[f"{SBD_ROOT}/inst/{name}.mat"] = instance_mat(label, instances)
    return files


def random_examples(rng: np.random.Generator, scale: int = 1) -> dict[str, Example]:
    """Returns {name: example}; the masks of VOC's splits have borders, those that SBD adds have none."""
    return {name: random_example(name, rng, name not in EXTRA, scale) for name in [*TRAIN, *VAL, *EXTRA]}


def write_tar(path: Path, files: dict[str, bytes], compress: bool = False) -> Path:
    """Writes an archive of these files, folders first, as tar does."""
    with tarfile.open(path, "w:gz" if compress else "w") as tar:
        for folder in sorted({str(parent) for name in files for parent in Path(name).parents} - {".", "/"}):
            entry = tarfile.TarInfo(folder)
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def write_folder(root: Path, files: dict[str, bytes]) -> None:
    """Writes the files that extracting the archive would leave."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
