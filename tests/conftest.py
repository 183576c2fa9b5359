"""Gives every test four virtual CPU devices, random numbers with a fixed seed, and a path to real data."""

import atexit
import gc
import os
import shutil
import tempfile
import time
import zlib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

# pyproject.toml sets the same filter for the tests themselves; this one is for programs that tests start.
os.environ.setdefault("PYTHONWARNINGS", "ignore:Error reading persistent compilation cache entry:UserWarning")
# These flags must be set before JAX starts. Most compiled programs run only a few times, so LLVM's optimisations, which
# do not change the mathematics, would take longer than they save. The same holds for the new emitter of fused loops,
# which makes hundreds of small LLVM modules per network; only JAX 0.10 has the flag for the older emitter.
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else "",
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
    ]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)

import hypothesis
import jax
import numpy as np
import pytest
from gcs_emulator import emulated_bucket

from deconvnet_jax import data
from deconvnet_jax.files import user_path
from deconvnet_jax.models.deconvnet import DECODER_WIDTHS, ENCODER_WIDTHS
from deconvnet_jax.training import loop, parallel, state

# Programs that tests start share a compilation cache. The tests themselves do not use it: like users by default, they
# compute convolutions with oneDNN, and programs with oneDNN cannot be cached. If several processes run tests, the first
# one makes the folder and the others inherit its name.
if "DECONVNET_TEST_COMPILED" not in os.environ:
    _compiled = tempfile.mkdtemp(prefix="deconvnet_jax_compiled_")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
    os.environ["DECONVNET_TEST_COMPILED"] = _compiled
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["DECONVNET_TEST_COMPILED"]
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# JAX's traces consist of millions of small objects, few of which are in cycles. With the default thresholds, Python's
# garbage collector took a tenth of the time.
gc.set_threshold(100_000, 20, 50)

ROOT = Path(__file__).resolve().parent.parent

# The files that take longest are run first, so that no process starts one of them at the end.
LONGEST = ("test_voc_train", "test_step", "test_hosts", "test_interrupted_runs", "test_early_sums", "test_loop")
MANY_MAPPINGS = 15_000  # memory mappings of this process from which compiled programs are freed
SECONDS_BETWEEN_LOOKS = 5  # seconds of processor time between two counts of the mappings

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.register_profile("fresh", deadline=None, print_blob=True)


def pytest_addoption(parser):
    text = (
        "Draws new random numbers in every run, for a nightly job. The default is a fixed seed from each test's name."
    )
    parser.addoption("--fresh-seeds", action="store_true", help=text)


def pytest_configure(config):
    hypothesis.settings.load_profile("fresh" if config.getoption("--fresh-seeds") else "fixed")


def pytest_collection_modifyitems(items):
    """Puts the longest files first, and marks slow tests as end-to-end, so that both can be left out together."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker("end_to_end")
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def _last_look():
    """The processor time of this process, in seconds, at the last count of its memory mappings."""
    return [time.process_time()]


@pytest.fixture(autouse=True)
def _compiled_programs_are_freed(_last_look):
    """Frees compiled programs when there are many.

    Every program that is compiled for CPU holds memory mappings. Linux allows a process 65,530 of them; beyond that,
    XLA aborts or crashes. One file of tests may need 40,000. Counting takes longer than most tests, so the mappings are
    counted every few seconds only.
    """
    yield
    if time.process_time() - _last_look[0] < SECONDS_BETWEEN_LOOKS:
        return
    _last_look[0] = time.process_time()
    mappings = Path("/proc/self/maps")  # This file exists on Linux only.
    if mappings.exists() and mappings.read_bytes().count(b"\n") > MANY_MAPPINGS:
        jax.clear_caches()


@pytest.fixture
def rng(request):
    """A random generator with the same seed in every run, or a new one with --fresh-seeds.

    The environment variable DECONVNET_TEST_SEED sets the seed, which repeats a failure.
    """
    fresh = request.config.getoption("--fresh-seeds")
    default = np.random.SeedSequence().entropy % 2**32 if fresh else zlib.crc32(request.node.name.encode())
    seed = int(os.environ.get("DECONVNET_TEST_SEED", default))
    print(f"DECONVNET_TEST_SEED={seed} repeats this test's random numbers")  # pytest shows it when the test fails.
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def shared_steps():
    """Makes all training runs in this process with the same settings share one compiled step."""
    optimizers, steps = {}, {}

    def make_optimizer(settings, params):
        key = f"{settings} {jax.tree.map(np.shape, params)}"
        if key not in optimizers:
            optimizers[key] = original_optimizer(settings, params)
        return optimizers[key]

    def compile_parallel(step, before, batch, devices):
        leaves = jax.tree_util.tree_leaves_with_path((before, batch))
        key = f"{step} {[(jax.tree_util.keystr(path), np.shape(leaf)) for path, leaf in leaves]} {devices}"
        if key not in steps:  # The step is kept alive too, because its text contains addresses of its parts.
            steps[key] = step, original_compile(step, before, batch, devices)
        return steps[key][1]

    original_optimizer, original_compile = loop.make_optimizer, parallel.compile_parallel
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_optimizer", make_optimizer)
        patch.setattr(parallel, "compile_parallel", compile_parallel)
        yield


def _one_layer_per_block():
    with pytest.MonkeyPatch.context() as patch:
        for block in ENCODER_WIDTHS:
            patch.setitem(ENCODER_WIDTHS, block, ENCODER_WIDTHS[block][:1])
            patch.setitem(DECODER_WIDTHS, block, DECODER_WIDTHS[block][-1:])
        state._initialised.clear_cache()  # It may hold variables of networks with the same fields and more layers.
        yield
    state._initialised.clear_cache()


@pytest.fixture(scope="module")
def shallow():
    """Gives DeconvNet and FCN-8s one layer per block in a whole file, which halves the time to compile a step."""
    yield from _one_layer_per_block()


@pytest.fixture
def shallow_here():
    """Gives DeconvNet and FCN-8s one layer per block in one test."""
    yield from _one_layer_per_block()


@pytest.fixture(scope="session")
def real_data():
    """The folder with real photographs and weights; skips the test if it does not exist.

    - `coco128_voc/VOCdevkit/VOC2012`: COCO128 with VOC's classes, in the VOC layout.
    - `voc2012_sample/VOCdevkit/VOC2012`: some photographs of VOC 2012, in the VOC layout.
    - `voc2012_val_masks/SegmentationClass`: masks of VOC 2012.
    - `camvid`: CamVid in the folders of SegNet's tutorial (train, trainannot, ...).
    - `bsds500/{train,val,test}`: photographs and NAME_boundaries.png.
    - `vgg16/vgg16_imagenet_conv_hwio_bgr_f16.npz`: VGG-16's convolutions under Keras's names, float16.
    - `caffe_reference`: results of the authors' Caffe.
    """
    folder = Path(os.environ.get("DECONVNET_TEST_DATA", ROOT / "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(
            f"no test data in {folder}: set DECONVNET_TEST_DATA to the folder with real photographs and weights"
        )
    return folder


@pytest.fixture(scope="session")
def bucket():
    """An emulated gs://bucket for this process and the programs that it starts; skips the test without gcsfs."""
    if not find_spec("gcsfs"):  # gcsfs reads the environment when it is imported, so it must not be imported yet.
        pytest.skip("gcsfs is not installed: pip install gcsfs")
    with emulated_bucket() as environment:
        os.environ.update(environment)
        yield user_path("gs://bucket", "bucket", in_bucket=True)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A folder in the VOC layout with 10 training and 4 held-out scenes."""
    root = tmp_path_factory.mktemp("data") / "scenes"
    data.write_scenes(root, train=10, val=4, seed=3)
    return root


@pytest.fixture(scope="session")
def train_split(scenes):
    """The packed training scenes."""
    return data.open_split(data.prepare_voc_layout(scenes, scenes.parent / "tfds"), "train")
