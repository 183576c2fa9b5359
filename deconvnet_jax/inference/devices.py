"""Runs inference on several devices: one program runs on all of them, each with its own image or windows.

A spread array holds the parts of all devices, which have the same shape, one after the other along its first axis. With
`mesh=None` there is one device, JAX's default, and arrays and programs are those of that device.

A round is a set of images with the same padded size, at most one per device, that the devices compute at the same time.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deconvnet_jax.errors import InputError
from deconvnet_jax.short_repr import short_repr

Tree = TypeVar("Tree")
AXIS = "devices"
PARTS, WHOLE = PartitionSpec(AXIS), PartitionSpec()  # each device holds its part; each holds everything
BUCKET = 256  # pixels; sides of images and canvases are padded to multiples of it. All of VOC fits into 512x512.


def local_mesh(devices: Sequence[jax.Device] | None) -> Mesh | None:
    """Returns a mesh of devices of this process, or None if only the default device is used.

    Args:
      devices: the devices; None for all of this process, or for that of `jax.default_device` if it is set.

    Raises:
      InputError: if there is no device, one is given twice, or one belongs to another process.
    """
    if devices is None and jax.config.jax_default_device is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return None
    local = jax.local_devices()
    chosen = local if devices is None else list(devices)
    if not chosen or len(set(chosen)) < len(chosen) or any(d.process_index != jax.process_index() for d in chosen):
        raise InputError(f"devices={chosen}: expected one or more distinct devices of jax.local_devices()")
    return None if chosen == local[:1] else Mesh(np.array(chosen), (AXIS,))


def device_count(mesh: Mesh | None) -> int:
    """Returns the number of devices of a mesh; 1 for None."""
    return 1 if mesh is None else mesh.size


def sharding_of(mesh: Mesh | None, spec: PartitionSpec = PARTS) -> NamedSharding | None:
    """Returns the sharding of an array on the devices of a mesh.

    Args:
      mesh: the devices; None for one device.
      spec: `PARTS` for a spread array, `WHOLE` for one that every device holds.

    Returns:
      The sharding; None with one device.
    """
    return None if mesh is None else NamedSharding(mesh, spec)


def replicated(tree: Tree, mesh: Mesh | None) -> Tree:
    """Copies a tree of arrays to every device.

    Args:
      tree: a tree of arrays, on the host or on devices.
      mesh: the devices; None for one device.

    Returns:
      The tree; every device of the mesh holds all of it. With one device, `tree` itself, unless one of its arrays is on
      several devices: then a copy on the first device.
    """
    if mesh is not None:
        return jax.device_put(tree, sharding_of(mesh, WHOLE))
    several = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, Array) and len(leaf.devices()) > 1]
    return jax.device_put(tree, jax.local_devices()[0]) if several else tree


def parts_of(array: Array, mesh: Mesh | None) -> list[Array]:
    """Returns the parts of a spread array; does not wait for the devices.

    Args:
      array: a spread array [devices * n, ...].
      mesh: the devices; None for one device.

    Returns:
      One array [n, ...] per device, on that device.
    """
    if mesh is None:
        return [array]
    shards = {shard.device: shard.data for shard in array.addressable_shards}
    return [shards[device] for device in mesh.devices.flat]


@lru_cache(maxsize=64)
def on_each(
    function: Callable[..., Any], mesh: Mesh | None, donate: tuple[int, ...] = (), **static: Any
) -> Callable[..., Any]:
    """Returns a function that runs `function` on the parts of every device.

    Args:
      function: takes arrays, and `static` as keywords; returns arrays.
      mesh: the devices; None for one device.
      donate: positions of the arguments whose memory may be reused; ignored with one device.
      **static: hashable keyword arguments for `function`.

    Returns:
      A function of spread arrays that returns spread arrays, compiled once for all devices. With one device, `function`
      with the keywords bound.
    """
    own = partial(function, **static)
    return own if mesh is None else jax.jit(spread(own, mesh), donate_argnums=donate)


def spread(function: Callable[..., Any], mesh: Mesh, inputs: Any = PARTS) -> Callable[..., Any]:
    """Returns a function that runs `function` on the parts of every device, not jitted.

    Args:
      function: takes arrays and returns arrays.
      mesh: the devices.
      inputs: a `PartitionSpec` for all arguments, or a tuple with one for each: `PARTS` or `WHOLE`.

    Returns:
      A function whose results are spread arrays.
    """
    return jax.shard_map(function, mesh=mesh, in_specs=inputs, out_specs=PARTS, check_vma=False)


class DeviceImage(NamedTuple):
    """An image on the device, or one image on each of several devices as spread arrays.

    Attributes:
      pixels: uint8 RGB [Hp, Wp, 3], padded with 0 at the bottom and on the right (`padded_size`).
      extent: int32 [2], the height and width of the image without padding.
    """

    pixels: Array
    extent: Array

    __repr__ = short_repr


def padded_size(height: int, width: int) -> tuple[int, int]:
    """Returns the size to which an image is padded; images of the same padded size share compiled programs.

    Args:
      height: in pixels, at least 1.
      width: in pixels, at least 1.

    Returns:
      Height and width rounded up to multiples of 256.

    Example:
      >>> padded_size(375, 500)
      (512, 512)
    """
    return -(-height // BUCKET) * BUCKET, -(-width // BUCKET) * BUCKET


def device_image(*images: np.ndarray, mesh: Mesh | None = None) -> DeviceImage:
    """Pads images and copies one to each device.

    Args:
      *images: uint8 RGB [H, W, 3], at most one per device, all with the same padded size. If there are fewer images
        than devices, the other devices repeat them from the first.
      mesh: the devices; None for one device.

    Returns:
      The images; with several devices, spread arrays.
    """
    height, width = padded_size(*images[0].shape[:2])
    padded = np.zeros((device_count(mesh), height, width, 3), np.uint8)
    extents = np.zeros((device_count(mesh), 2), np.int32)
    for i in range(device_count(mesh)):
        image = images[i % len(images)]
        extents[i] = image.shape[:2]
        padded[i, : extents[i, 0], : extents[i, 1]] = image
    where = sharding_of(mesh)
    return DeviceImage(jax.device_put(padded.reshape(-1, width, 3), where), jax.device_put(extents.ravel(), where))


def without_padding(part: np.ndarray, image: np.ndarray, by_row: bool) -> np.ndarray:
    """Returns a copy of the part of an array that belongs to an image.

    Args:
      part: [Hp, Wp, ...], padded; or [P, ...] if `by_row`, the pixels row by row.
      image: [H, W, 3], the image.
      by_row: how `part` is stored.

    Returns:
      [H, W, ...].
    """
    height, width = image.shape[:2]
    if by_row:
        return np.array(part[: height * width]).reshape(height, width, *part.shape[1:])
    return np.array(part[:height, :width])


class Prepared(NamedTuple):
    """An image that is ready to be computed.

    Attributes:
      photograph: uint8 RGB [H, W, 3], in its own size.
      image: uint8 RGB [H', W', 3], the photograph reduced to `max_side`.
      windows: float32 [n, 4] for each network and scale, the windows in pixels of `image`.
    """

    photograph: np.ndarray
    image: np.ndarray
    windows: Sequence[np.ndarray]

    __repr__ = short_repr


def rounds_of(group: Sequence[Prepared], devices: int) -> list[list[int]]:
    """Returns the rounds that a group of images takes.

    Args:
      group: images of any sizes.
      devices: the number of devices.

    Returns:
      For each round, the indices of its images in `group`: at most `devices`, all with the same padded size.
    """
    rounds: list[list[int]] = []
    open_rounds: dict[tuple[int, int], list[int]] = {}
    for i, prepared in enumerate(group):
        size = padded_size(*prepared.image.shape[:2])
        if len(open_rounds.get(size, ())) in (0, devices):
            open_rounds[size] = []
            rounds.append(open_rounds[size])
        open_rounds[size].append(i)
    return rounds


def prepared_ahead(
    pool: ThreadPoolExecutor, prepare: Callable[..., Prepared], arguments: Iterable[tuple[Any, ...]], ahead: int
) -> Iterator[Prepared]:
    """Yields prepared images in their order; the threads of `pool` prepare later ones meanwhile.

    Args:
      pool: the threads.
      prepare: prepares an image.
      arguments: the arguments of `prepare` for each image; read `ahead` of the image that is yielded. If reading them
        fails, the images before come first.
      ahead: the number of images.
    """

    def preparations() -> Iterator[Future[Prepared]]:
        try:
            for each in arguments:
                yield pool.submit(prepare, *each)
        except Exception as error:
            failed: Future[Prepared] = Future()
            failed.set_exception(error)
            yield failed

    waiting: deque[Future[Prepared]] = deque()
    for preparation in preparations():
        waiting.append(preparation)
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def groups(ready: Iterable[Prepared], limit: int, devices: int) -> Iterator[list[Prepared]]:
    """Yields the images in groups, in their order.

    Args:
      ready: the images; read one by one.
      limit: the rounds that a group takes, at most.
      devices: the number of devices.

    Yields:
      A group as soon as it is full. If reading the next image fails, the group before it comes first.
    """
    group: list[Prepared] = []
    try:
        for prepared in ready:
            if len(rounds_of([*group, prepared], devices)) > limit:
                yield group
                group = []
            group.append(prepared)
            if len(group) == limit * devices:
                yield group
                group = []
    except Exception:
        if group:
            yield group
        raise
    if group:
        yield group


def are_faster_alone(batches: Sequence[int], devices: int) -> bool:
    """Returns whether the images of a round take fewer batches one after the other than at the same time.

    One after the other, all devices share the windows of each image.

    Args:
      batches: the number of batches that the windows of each image fill.
      devices: the number of devices.

    Returns:
      True if they do; False for ties.
    """
    return sum(-(-count // devices) for count in batches) < max(batches, default=0)
