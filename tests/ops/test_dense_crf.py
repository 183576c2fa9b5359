"""Tests the dense CRF against pydensecrf2, against float64 sums over all pairs of pixels, and its documented behaviour.

Results of pydensecrf2 for small pictures are stored (support/pydensecrf_reference.py). If it is installed (pip install
pydensecrf2==1.1, which needs a C++ compiler), photographs are compared, too.
"""

import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pydensecrf_reference as reference
import pytest
from PIL import Image

from deconvnet_jax.errors import InputError
from deconvnet_jax.ops import CRF_PRESETS, dense_crf
from deconvnet_jax.ops.permutohedral import FIRST_SHARES, MORE_SHARES

crf_module = importlib.import_module("deconvnet_jax.ops.dense_crf")  # The package exports a function of the same name.
SHAPE = (12, 16, 3)
# Without normalisation the kernel sums are large. With the usual weights nearly all pixels would be certain of their
# class, and a difference in the last digit could flip an undecided pixel. So the weights here are small.
NUMBERS = {"gaussian": (2.0, 0.15), "bilateral": (4.0, 60.0, 0.2)}
SYMMETRIC = {"gaussian": (2.0, 1.5), "bilateral": (4.0, 60.0, 2.0), "normalization": "symmetric"}


def random_case(rng, height=12, width=16, classes=3):
    """Returns random unaries, and an image of noise on a ramp."""
    ramp = np.linspace(0, 200, width)[None, :, None]
    image = (ramp + rng.uniform(0, 55, (height, width, 3))).astype(np.uint8)
    return (4 * rng.standard_exponential((height, width, classes))).astype(np.float32), image


def exact_kernels(image, gaussian, bilateral):
    """Returns the kernels as float64 matrices between all pixels."""
    height, width, _ = image.shape
    y, x = np.mgrid[:height, :width]
    places = np.stack([x, y], axis=-1).reshape(-1, 2).astype(float)
    features = np.concatenate([places / bilateral[0], image.reshape(-1, 3) / bilateral[1]], axis=1)
    for points in (places / gaussian[0], features):
        squares = (points**2).sum(1)
        yield np.exp(-np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0) / 2)


def mean_field(unary, kernels, weights, normalization="none", iterations=10):
    """Runs mean field in float64 with kernels given as matrices."""
    flat = unary.reshape(-1, unary.shape[-1]).astype(float)

    def softmax(logits):
        p = np.exp(logits - logits.max(1, keepdims=True))
        return p / p.sum(1, keepdims=True)

    if normalization == "symmetric":
        norms = [1 / np.sqrt(kernel.sum(1) + 1e-20) for kernel in kernels]
        kernels = [norm[:, None] * kernel * norm for norm, kernel in zip(norms, kernels, strict=True)]
    q = softmax(-flat)
    for _ in range(iterations):
        q = softmax(sum(w * kernel @ q for w, kernel in zip(weights, kernels, strict=True)) - flat)
    return q.reshape(unary.shape)


def brute_force(unary, image, gaussian, bilateral, normalization="none", iterations=10):
    kernels = list(exact_kernels(image, gaussian, bilateral))
    return mean_field(unary, kernels, (gaussian[1], bilateral[2]), normalization, iterations)


def agreement(p, q):
    return np.mean(np.asarray(p).argmax(-1) == np.asarray(q).argmax(-1))


@pytest.mark.accelerator
@pytest.mark.parametrize("case", reference.CASES)
def test_equals_pydensecrf(case):
    unary, image, expected = reference.load(case)
    q = dense_crf(unary, image, **reference.CASES[case])
    assert q.dtype == jnp.float32
    assert agreement(unary * -1, expected) < 0.9, "the CRF changes too little for this test"
    assert agreement(q, expected) >= 0.9999
    np.testing.assert_allclose(q, expected, atol=1e-2)


@pytest.mark.parametrize("case", reference.CASES)
def test_as_near_to_brute_force_as_pydensecrf(case):
    unary, image, expected = reference.load(case)
    exact = brute_force(unary, image, **reference.CASES[case])
    q = dense_crf(unary, image, **reference.CASES[case])
    assert abs(agreement(q, exact) - agreement(expected, exact)) < 0.01
    assert agreement(q, exact) > 0.9


def test_the_default_is_released():
    unary, image, expected = reference.load("released")
    np.testing.assert_allclose(dense_crf(unary, image), expected, atol=1e-2)
    assert CRF_PRESETS["released"] == reference.CASES["released"]
    assert CRF_PRESETS["usual"] == reference.CASES["usual"]


@pytest.mark.parametrize("preset", CRF_PRESETS)
def test_photographs_equal_pydensecrf(rng, real_data, preset):
    pytest.importorskip("pydensecrf", reason="the reference: pip install pydensecrf2==1.1")
    files = sorted((real_data / "voc2012_sample/VOCdevkit/VOC2012/JPEGImages").glob("*.jpg"))
    image = np.array(Image.open(files[rng.integers(len(files))]).convert("RGB"))
    height, width, _ = image.shape
    noise = [np.kron(rng.standard_normal((height // 16 + 1, width // 16 + 1)), np.ones((16, 16))) for _ in range(21)]
    unary = 3 * np.stack(noise, axis=-1)[:height, :width].astype(np.float32)
    unary -= unary.min()
    expected = reference.pydensecrf(unary, image, **CRF_PRESETS[preset])
    q = np.asarray(dense_crf(unary, image, **CRF_PRESETS[preset]))
    assert agreement(q, expected) >= 0.9999
    # Without normalisation a difference in the last digit can flip the class of a region.
    assert np.mean(np.abs(q - expected) > 1e-2) < 1e-4


@pytest.mark.accelerator
@pytest.mark.parametrize("numbers", [NUMBERS, SYMMETRIC], ids=["none", "symmetric"])
def test_exact_equals_brute_force(rng, numbers):
    unary, image = random_case(rng)
    expected = brute_force(unary, image, **numbers, iterations=5)
    q = dense_crf(unary, image, 5, **numbers, method="exact")
    np.testing.assert_allclose(q, expected, atol=1e-5)
    assert np.abs(q - jax.nn.softmax(-unary)).mean() > 0.02, "the CRF changes too little for this test"


lattice_filter = jax.jit(crf_module.lattice_filter)


def lattice_matrices(image):
    """Returns the filters of the two lattices as float64 matrices."""
    pixels = image.shape[0] * image.shape[1]
    for kernel in crf_module.crf_kernels(image, **NUMBERS):
        yield np.float64(lattice_filter(kernel, jnp.eye(kernel.weights.shape[1]))[:pixels, :pixels])


def test_mass_of_the_spatial_kernel():
    """Away from the border the mass is about 0.88 of a Gaussian's, as in densecrf."""
    _, image, _ = reference.load("released")
    kernel, _ = crf_module.crf_kernels(image, (3.0, 3.0), (20.0, 3.0, 0.0))
    mass = np.asarray(lattice_filter(kernel, np.ones((kernel.weights.shape[1], 1), np.float32)))
    mass = mass.reshape(48, 64)[15:-15, 15:-15].mean()  # 48 * 64 is the size of a bucket, so there is no padding.
    assert 0.83 < mass / (2 * np.pi * 9) < 0.93


@pytest.mark.parametrize("numbers", [NUMBERS, SYMMETRIC], ids=["none", "symmetric"])
@pytest.mark.parametrize("method", ["lattice", "exact"])
def test_gradient_in_the_unary(rng, method, numbers):
    """Compares with central differences in float64."""
    unary, image = random_case(rng)
    kernels = list(lattice_matrices(image) if method == "lattice" else exact_kernels(image, **NUMBERS))
    weights, normalization = (numbers["gaussian"][1], numbers["bilateral"][2]), numbers.get("normalization", "none")
    upstream = rng.standard_normal(unary.shape)

    def expected_loss(unary):
        return (mean_field(unary, kernels, weights, normalization, 5) * upstream).sum()

    def loss(unary):
        q = dense_crf(unary, image, 5, **numbers, method=method)
        return (q * upstream.astype(np.float32)).sum()

    gradient = np.asarray(jax.grad(loss)(jnp.asarray(unary)))
    step = 1e-5
    for _ in range(3):
        direction = rng.standard_normal(unary.shape)
        ahead, behind = (expected_loss(unary + sign * step * direction) for sign in (1, -1))
        assert (gradient * direction).sum() == pytest.approx((ahead - behind) / (2 * step), rel=1e-3, abs=1e-4)


def test_within_a_jitted_function(rng):
    """Inside jit the size of the lattice is unknown: `capacity` sets the room, else it is the largest possible."""
    unary, image = random_case(rng)
    upstream = rng.standard_normal(unary.shape).astype(np.float32)

    def loss(unary, image, room=None):
        q = dense_crf(unary, image, 5, **NUMBERS, capacity=room)
        return (q * upstream).sum(), q

    derive = jax.grad(loss, has_aux=True)
    expected, q = derive(unary, image)
    np.testing.assert_allclose(dense_crf(unary, image, 5, **NUMBERS), q, atol=1e-5)
    jitted = jax.jit(derive, static_argnums=2)
    for found, wanted in zip(jitted(unary, image, 900), (expected, q), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    known = jax.jit(lambda unary: loss(unary, image)[1])
    np.testing.assert_allclose(known(unary), q, atol=1e-4)


def test_slices_of_both_lattices_are_added_in_one_pass(rng):
    """One loop runs all gathers, forward and backward, instead of one pass over all pixels and classes per gather."""
    unary, image = random_case(rng, classes=21)
    kernels = crf_module.crf_kernels(image, **NUMBERS)
    vertices_of_a_point = sum(len(kernel.vertices) for kernel in kernels)
    gathers = sum(FIRST_SHARES + MORE_SHARES + 3 * len(kernel.vertices) for kernel in kernels)  # Splat, blur and slice.

    def q(unary, kernels):
        return crf_module.mean_field_rows(unary, kernels, (1.0, 1.0), iterations=5)

    def gradient(unary, kernels):
        return jax.grad(lambda unary: (q(unary, kernels) ** 2).sum())(unary)

    for function, passes in ((q, 1), (gradient, 2)):
        program = jax.jit(function).lower(unary.reshape(-1, 21), kernels).compile().as_text()
        counts = [len(re.findall(r"\bgather\(", computation)) for computation in program.split("\n\n")]
        assert counts.count(vertices_of_a_point) == passes
        assert sum(counts) == passes * gathers


def test_capacity_that_turns_out_to_be_too_small(rng):
    unary, image = random_case(rng)
    q = jax.jit(lambda unary, image: dense_crf(unary, image, 1, **NUMBERS, capacity=20))(unary, image)
    assert np.isnan(q).all()


def test_capacity_that_is_known_to_be_too_small(rng):
    unary, image = random_case(rng)
    with pytest.raises(InputError, match=r"^capacity=20: this image's lattice has \d+ vertices"):
        dense_crf(unary, image, 5, **NUMBERS, capacity=20)
    count = int(crf_module._find(crf_module._entries(*lattice_arguments(image))).counted[0])
    plain = dense_crf(unary, image, 5, **NUMBERS)
    np.testing.assert_allclose(dense_crf(unary, image, 5, **NUMBERS, capacity=count + 1), plain, atol=1e-5)
    with pytest.raises(InputError, match=f"has {count} vertices"):
        dense_crf(unary, image, 5, **NUMBERS, capacity=count)


def lattice_arguments(image):
    padded = crf_module._padded(image, crf_module._bucket(image.shape[0] * image.shape[1]))
    return padded, np.float32(image.shape[:2]), np.float32(crf_module._deviations(NUMBERS["bilateral"]))


def test_batch_equals_single(rng):
    cases = [random_case(rng) for _ in range(2)]
    unary, image = (np.stack(arrays) for arrays in zip(*cases, strict=True))
    single = np.stack([dense_crf(*case, 5, **NUMBERS) for case in cases])
    np.testing.assert_array_equal(dense_crf(unary, image, 5, **NUMBERS), single)
    np.testing.assert_allclose(jax.jit(lambda u, i: dense_crf(u, i, 5, **NUMBERS))(unary, image), single, atol=1e-4)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_images_of_one_bucket_share_programs(rng, monkeypatch, platform):
    """Other image sizes and settings reuse the programs, on a CPU and in the form for accelerators."""
    monkeypatch.setattr(crf_module, "_platform", lambda entries: platform)
    jitted = (crf_module._entries, crf_module._find, crf_module._build, crf_module._mean_field)

    def cached():
        return [function._cache_size() for function in jitted]

    def shapes(image, gaussian, bilateral):
        """Returns the shapes of the two lattices, which are bucket sizes that depend on the image."""
        return str(jax.tree.map(lambda leaf: leaf.shape, crf_module.crf_kernels(image, gaussian, bilateral)))

    numbers = ((2.0, 1.0), (40.0, 80.0, 1.0))
    unary, image = random_case(rng)
    dense_crf(unary, image, 5, *numbers)
    before, seen = cached(), {shapes(image, *numbers)}
    assert platform == "cpu" or min(before) > 0
    numbers = ((2.1, 2.0), (41.0, 81.0, 2.0))
    for height, width in ((12, 16), (16, 12), (11, 17), (24, 7)):
        unary, image = random_case(rng, height, width)
        assert dense_crf(unary, image, 5, *numbers).shape == unary.shape
        seen.add(shapes(image, *numbers))
    assert cached()[:2] == before[:2]
    assert cached()[3] - before[3] <= len(seen) - 1
    assert crf_module._bucket(500 * 375) == crf_module._bucket(480 * 400) == 196_608
    assert crf_module._bucket(503_029) == 8 * 65_536
    assert [crf_module._bucket(n) for n in (0, 1, 64, 65, 128, 129, 2**20)] == [64, 64, 64, 80, 128, 160, 2**20]


def test_lattices_are_made_on_the_default_device(rng):
    _, image = random_case(rng)
    device = jax.devices()[-1]
    with jax.default_device(device):
        kernels = crf_module.crf_kernels(image, NUMBERS["gaussian"], NUMBERS["bilateral"])
        entries = crf_module._entries(*lattice_arguments(image))
    assert {leaf.device for leaf in jax.tree.leaves(kernels)} == {device}
    assert crf_module._platform(entries) == device.platform


def test_infinite_unaries(rng):
    """Impossible classes keep probability 0; a pixel with only impossible classes follows its neighbours."""
    unary, image = random_case(rng)
    unary[:6, :, 2] = np.inf
    unary[3, 4] = np.inf
    unary[:8, :9, 0] -= 30 * np.isfinite(unary[:8, :9, 0])
    gradient = jax.grad(lambda u: dense_crf(u, image, 5, **NUMBERS)[..., 0].sum())(unary)
    assert np.isfinite(gradient).all()
    for method in ("lattice", "exact"):
        q = np.asarray(dense_crf(unary, image, 5, **NUMBERS, method=method))
        assert np.isfinite(q).all()
        np.testing.assert_allclose(q.sum(-1), 1, atol=1e-5)
        impossible = np.isinf(unary) & ~np.isinf(unary).all(-1, keepdims=True)
        np.testing.assert_array_equal(q[impossible], 0)
        assert q[3, 4].argmax() == 0


def test_large_unaries_do_not_lose_digits(rng):
    unary, image = random_case(rng)
    q = dense_crf(unary, image, 5, **NUMBERS)
    np.testing.assert_allclose(dense_crf(unary + np.float32(4096), image, 5, **NUMBERS), q, atol=2e-3)


def test_weights_of_0(rng):
    unary, image = random_case(rng)
    softmax = jax.nn.softmax(-unary)
    np.testing.assert_allclose(dense_crf(unary, image, 5, (2.0, 0.0), (4.0, 60.0, 0.0)), softmax, atol=1e-6)
    np.testing.assert_allclose(dense_crf(unary, image, 0, **NUMBERS), softmax, atol=1e-6)
    near, alike = lattice_matrices(image)
    for weights, kernel in (((1.5, 0), near), ((0, 2.0), alike)):
        q = dense_crf(unary, image, 5, (2.0, weights[0]), (4.0, 60.0, weights[1]))
        np.testing.assert_allclose(q, mean_field(unary, [kernel], [sum(weights)], iterations=5), atol=1e-4)


def test_one_pixel_of_two_classes():
    """A single pixel weighs itself between the weights of a simplex's centre and of a corner."""
    unary, first = jnp.asarray([1.0, 2.0]), jax.nn.softmax(jnp.asarray([-1.0, -2.0]))
    q = dense_crf(unary[None, None], np.full((1, 1, 3), 255, np.uint8), 1, (3.0, 0), (20.0, 3.0, 5.0))
    least, most = (jax.nn.softmax(5 * mass * first - unary)[0] for mass in (0.1, 2.0))
    assert least < q[0, 0, 0] < most
    assert q.sum() == pytest.approx(1)


def zeros(*shape):
    return np.zeros(shape, np.float32)


BAD_KERNELS = (
    None,
    3,
    "33",
    (),
    (3.0,),
    (3.0, 3.0, 3.0),
    {3.0: 1, 4.0: 2},
    (3.0, np.inf),
    (3.0, np.nan),
    (3.0, -1.0),
    (3.0, 1e39),
    (3.0, None),
    (np.nan, 3.0),
    (3.0, np.array([1.0, 2.0, 3.0])),  # pydensecrf's `compat` with one number per class.
    (3.0, -np.eye(3)),
    ((3, 0), 3),
    ((3, 3, 3), 3),
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unary": zeros(12, 16)}, r"dense_crf: unary has shape \[12, 16\]; expected \[12, 16, K\], to match image$"),
        (
            {"unary": zeros(0, 12, 16, 3), "image": np.zeros((0, 12, 16, 3), np.uint8)},
            r"dense_crf: unary has shape \[0, 12, 16, 3\]; expected at least one image",
        ),
        ({"unary": zeros(12, 16, 0)}, r"dense_crf: unary has shape \[12, 16, 0\]; expected at least one class"),
        ({"unary": np.zeros((12, 16, 3), int)}, "dense_crf: unary has dtype int64; expected floating-point"),
        (
            {"unary": zeros(12, 15, 3)},
            r"dense_crf: unary has shape \[12, 15, 3\]; expected \[12, 16, K\], to match image",
        ),
        ({"image": zeros(*SHAPE)}, "dense_crf: image has dtype float32; expected uint8"),
        ({"unary": np.full(SHAPE, np.nan, np.float32)}, "dense_crf: unary has the value nan; expected -log p"),
        ({"unary": np.full(SHAPE, -np.inf, np.float32)}, "dense_crf: unary has the value -inf"),
        ({"normalization": "both"}, "normalization='both': expected one of none, symmetric"),
        ({"method": "fast"}, "method='fast': expected one of lattice, exact"),
        ({"iterations": -1}, "iterations=-1: expected a whole number from 0"),
        ({"iterations": 2.5}, r"iterations=2\.5"),
        ({"capacity": 0}, "capacity=0: expected a whole number from 1"),
        ({"normalization": 3}, "normalization=3: expected one of none, symmetric"),  # A constant of pydensecrf.
        ({"normalization": np.ones(2)}, r"normalization=array\(\[1., 1.\]\): expected one of"),
        ({"iterations": True}, "iterations=True: expected a whole number"),
        ({"iterations": None}, "iterations=None: expected a whole number"),
        ({"iterations": 2**31}, "iterations=2147483648: expected a whole number"),
        ({"unary": [[[0.0, 1.0]], [[0.0]]]}, "dense_crf: unary: rows of different lengths; expected an array"),
        ({"unary": None}, r"dense_crf: unary has shape \[\]; expected"),
        (
            {"unary": zeros(3, 12 * 16)},
            r"dense_crf: unary has shape \[3, 192\]; .* unary.reshape\(-1, 12, 16\)",
        ),
        (
            {"unary": zeros(5, 12, 16)},
            r"dense_crf: unary has shape \[5, 12, 16\]; .* unary.transpose\(1, 2, 0\)",
        ),
        ({"unary": np.full(SHAPE, -1e300)}, "dense_crf: unary has the value -inf"),
        (
            {"image": zeros(12, 16, 4).astype(np.uint8)},
            r"dense_crf: image has shape \[12, 16, 4\]; .* image\[\.\.\., :3\]",
        ),
        ({"gaussian": (0.0, 3.0)}, r"gaussian=\(0.0, 3.0\): expected \(standard deviation in pixels, weight\)"),
        *(
            ({"gaussian": value}, "gaussian=.*: expected .standard deviation in pixels, weight.")
            for value in BAD_KERNELS
        ),
        ({"bilateral": (20.0, -3.0, 5.0)}, "bilateral=.*: expected .standard deviation in pixels, standard"),
        ({"bilateral": (20.0, 3.0)}, "bilateral=.*: expected .standard deviation in pixels, standard"),
        ({"bilateral": (20.0, (3.0, 3.0), 5.0)}, "bilateral=.*: expected .standard deviation in pixels, standard"),
        ({"bilateral": (1e-4, 1e-4, 5.0)}, "bilateral=.*: too small for 12x16 pixels"),
        ({"gaussian": (1e-30, 3.0), "method": "exact"}, "gaussian=.*: too small for 12x16 pixels"),
    ],
)
def test_bad_arguments(arguments, message):
    good = {"unary": zeros(*SHAPE), "image": np.zeros(SHAPE, np.uint8)}
    with pytest.raises(InputError, match=f"^{message}") as error:
        dense_crf(**(good | arguments))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["lattice", "exact"])
def test_one_number_is_a_deviation_for_each_axis_and_channel(rng, method):
    unary, image = random_case(rng)
    rest = {"iterations": 3, "method": method}
    expected = dense_crf(unary, image, gaussian=(3.0, 2.0), bilateral=(5.0, 30.0, 4.0), **rest)
    same = dense_crf(unary, image, gaussian=[(3, 3), np.array(2)], bilateral=((5, 5), [30, 30, 30], 4), **rest)
    np.testing.assert_array_equal(same, expected)
    other = dense_crf(unary, image, gaussian=((2, 6), 2), bilateral=((4, 9), (20, 30, 60), 4), **rest)
    assert np.abs(other - expected).max() > 1e-2


def test_deviations_are_of_x_and_y_and_of_red_green_and_blue(rng):
    """Uses the exact method: the lattice treats a channel of zeros differently from a flat one."""
    unary, image = random_case(rng)
    rest = {"iterations": 3, "method": "exact"}
    red = dense_crf(unary, image, gaussian=((2, 6), 2), bilateral=((4, 9), (20, 1e9, 1e9), 4), **rest)
    only_red = image * np.uint8([1, 0, 0])
    alike = dense_crf(unary, only_red, gaussian=((2, 6), 2), bilateral=((4, 9), (20, 7, 5), 4), **rest)
    np.testing.assert_allclose(red, alike, atol=1e-3)
    turned = dense_crf(
        unary.swapaxes(0, 1), only_red.swapaxes(0, 1), gaussian=((6, 2), 2), bilateral=((9, 4), (20, 7, 5), 4), **rest
    )
    np.testing.assert_allclose(turned.swapaxes(0, 1), alike, atol=1e-3)
