"""Four virtual CPU devices for every test, fresh random numbers that a failure names, and the way to real data."""

import atexit
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

# As in pyproject.toml, for programs that tests start.
os.environ.setdefault("PYTHONWARNINGS", "ignore:Error reading persistent compilation cache entry:UserWarning")
# Before JAX starts: the number of devices cannot change later. Most programs run once or a few times, and LLVM's
# optimisations, which are the same mathematics, would take longer than that.
os.environ["XLA_FLAGS"] = " ".join(
    ["--xla_backend_optimization_level=0", os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=4"]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile the same small networks again and again, in programs that they start too: once is enough. Of several
# processes that run tests, the first makes the folder and the others inherit its name.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _compiled = tempfile.mkdtemp(prefix="deconvnet_jax_compiled_")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import numpy as np
import pytest
from gcs_emulator import emulated_bucket
from jax.experimental.compilation_cache import compilation_cache

from deconvnet_jax import data
from deconvnet_jax.files import user_path

ROOT = Path(__file__).resolve().parent.parent

# Files that take longest, in minutes; with several processes the last one should not begin with them.
LONGEST = ("test_hosts", "test_step", "test_voc_train", "test_interrupted_runs", "test_loop", "test_trajectory")
MANY_MAPPINGS = 15_000


def pytest_collection_modifyitems(items):
    """The longest files come first."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def _compiled_programs_are_freed():
    """Every program compiled for CPU holds memory mappings, of which Linux grants a process 65,530.

    Beyond them XLA aborts while it compiles, or crashes. One file of tests may need 40,000.
    """
    yield
    mappings = Path("/proc/self/maps")  # absent on other systems
    if mappings.exists() and mappings.read_bytes().count(b"\n") > MANY_MAPPINGS:
        jax.clear_caches()


@pytest.fixture
def programs_are_not_kept():
    """What is compiled may contain calls of oneDNN, which programs that JAX keeps, as most tests do, cannot."""
    folder = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", folder)
    compilation_cache.reset_cache()


@pytest.fixture
def rng(record_property):
    """Random numbers that differ from run to run; DECONVNET_TEST_SEED repeats a run."""
    seed = int(os.environ.get("DECONVNET_TEST_SEED", np.random.SeedSequence().entropy % 2**32))
    record_property("seed", seed)
    print(f"DECONVNET_TEST_SEED={seed}")  # pytest shows it when the test fails
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def real_data():
    """The folder with real photographs and weights; skips the test where it is absent.

    coco128_voc/VOCdevkit/VOC2012, voc2012_sample/VOCdevkit/VOC2012: photographs in the layout of VOC (COCO128 with
    VOC's classes; some of VOC 2012). voc2012_val_masks/SegmentationClass: VOC's masks. camvid: SegNet's, train,
    trainannot, ... bsds500/{train,val,test}: photographs and NAME_boundaries.png.
    vgg16/vgg16_imagenet_conv_hwio_bgr_f16.npz: VGG-16's convolutions under Keras's names, in half precision.
    caffe_reference: what the authors' Caffe computed.
    """
    folder = Path(os.environ.get("DECONVNET_TEST_DATA", ROOT / "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(
            f"no test data in {folder}: set DECONVNET_TEST_DATA to the folder with real photographs and weights"
        )
    return folder


@pytest.fixture(scope="session")
def bucket():
    """gs://bucket on this machine, for this process and for programs that it starts; skips the test without gcsfs."""
    if not find_spec("gcsfs"):  # not imported: it reads the environment then
        pytest.skip("gcsfs is not installed: pip install gcsfs")
    with emulated_bucket() as environment:
        os.environ.update(environment)
        yield user_path("gs://bucket", "bucket", in_bucket=True)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Folder in the VOC layout with 10 training and 4 evaluation scenes."""
    root = tmp_path_factory.mktemp("data") / "scenes"
    data.write_scenes(root, train=10, val=4, seed=3)
    return root


@pytest.fixture(scope="session")
def train_split(scenes):
    """The packed training scenes."""
    return data.open_split(data.prepare_voc_layout(scenes, scenes.parent / "tfds"), "train")
