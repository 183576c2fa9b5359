"""Four virtual CPU devices for every test, random numbers with a fixed seed, and the way to real data."""

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

# As in pyproject.toml, for programs that tests start.
os.environ.setdefault("PYTHONWARNINGS", "ignore:Error reading persistent compilation cache entry:UserWarning")
# Before JAX starts: the number of devices cannot change later. Most programs run once or a few times, and LLVM's
# optimisations, which are the same mathematics, would take longer than that. So would the emitter of fused loops that
# makes hundreds of small LLVM modules per network; only JAX 0.10 knows the flag for the older one.
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

# Programs that tests start share compiled programs. The tests themselves do not: as for users by default, their
# convolutions are oneDNN's, and programs with oneDNN cannot be kept. Of several processes that run tests, the first
# makes the folder and the others inherit its name.
if "DECONVNET_TEST_COMPILED" not in os.environ:
    _compiled = tempfile.mkdtemp(prefix="deconvnet_jax_compiled_")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
    os.environ["DECONVNET_TEST_COMPILED"] = _compiled
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["DECONVNET_TEST_COMPILED"]
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# JAX's traces are millions of small objects, of which few are in cycles: Python's garbage collector took a tenth of
# the time.
gc.set_threshold(100_000, 20, 50)

ROOT = Path(__file__).resolve().parent.parent

# Files that take longest; with several processes the last one should not begin with them.
LONGEST = ("test_voc_train", "test_step", "test_hosts", "test_interrupted_runs", "test_early_sums", "test_loop")
MANY_MAPPINGS = 15_000


SECONDS_BETWEEN_LOOKS = 5

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.register_profile("fresh", deadline=None, print_blob=True)


def pytest_addoption(parser):
    text = "new random numbers in every test (a nightly job); without it each test has a fixed seed, made of its name"
    parser.addoption("--fresh-seeds", action="store_true", help=text)


def pytest_configure(config):
    hypothesis.settings.load_profile("fresh" if config.getoption("--fresh-seeds") else "fixed")


def pytest_collection_modifyitems(items):
    """The longest files come first; slow tests are left out with the end-to-end ones."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker("end_to_end")
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def _last_look():
    """Processor time of this process when its memory mappings were counted."""
    return [time.process_time()]


@pytest.fixture(autouse=True)
def _compiled_programs_are_freed(_last_look):
    """Every program compiled for CPU holds memory mappings, of which Linux grants a process 65,530.

    Beyond them XLA aborts while it compiles, or crashes. One file of tests may need 40,000. Counting them takes longer
    than most tests, so they are counted every few seconds.
    """
    yield
    if time.process_time() - _last_look[0] < SECONDS_BETWEEN_LOOKS:
        return
    _last_look[0] = time.process_time()
    mappings = Path("/proc/self/maps")  # absent on other systems
    if mappings.exists() and mappings.read_bytes().count(b"\n") > MANY_MAPPINGS:
        jax.clear_caches()


@pytest.fixture
def rng(request):
    """Random numbers: the same in every run, or new ones with --fresh-seeds; DECONVNET_TEST_SEED repeats a failure."""
    fresh = request.config.getoption("--fresh-seeds")
    default = np.random.SeedSequence().entropy % 2**32 if fresh else zlib.crc32(request.node.name.encode())
    seed = int(os.environ.get("DECONVNET_TEST_SEED", default))
    print(f"repeat this test's random numbers with DECONVNET_TEST_SEED={seed}")  # pytest shows it when the test fails
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def shared_steps():
    """Trainings in this process compile a step once for the same settings, whatever their folders and lengths."""
    optimizers, steps = {}, {}

    def make_optimizer(settings, params):
        key = f"{settings} {jax.tree.map(np.shape, params)}"
        if key not in optimizers:
            optimizers[key] = original_optimizer(settings, params)
        return optimizers[key]

    def compile_parallel(step, before, batch, devices):
        key = f"{step} {jax.tree.map(np.shape, (before, batch))} {devices}"
        if key not in steps:  # the step is kept, too: its parts are known by their addresses
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
        state._initialised.clear_cache()  # of networks with the same fields
        yield
    state._initialised.clear_cache()


@pytest.fixture(scope="module")
def shallow():
    """In the whole file, DeconvNet and FCN-8s have one layer per block: steps compile in less than half the time."""
    yield from _one_layer_per_block()


@pytest.fixture
def shallow_here():
    """The same in one test."""
    yield from _one_layer_per_block()


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
