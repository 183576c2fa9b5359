"""How inference uses several devices: one program runs on all of them, each with its image or windows.

An array that is spread holds the parts of all devices one after the other along its first axis, each of the same shape.
With `mesh=None` there is one device, JAX's default, and arrays and programs are those of that device. In a round, each
device has one image, and all images have the same padded size.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deconvnet_jax.errors import InputError

Tree = TypeVar("Tree")
AXIS = "devices"
PARTS, WHOLE = PartitionSpec(AXIS), PartitionSpec()  # each device has its part; each has all of it
BUCKET = 256  # sides of images and canvases are padded to multiples of it; all of VOC fits into 512x512


def local_mesh(devices: Sequence[jax.Device] | None) -> Mesh | None:
    """Returns the mesh of these devices, of this process; None if that is the default device alone.

    Args:
      devices: by default all of this process, or the one of `jax.default_device` where that is set.

    Raises:
      InputError: if there is no device, one is given twice, or one belongs to another process.
    """
    if devices is None and jax.config.jax_default_device is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return None
    local = jax.local_devices()
    chosen = local if devices is None else list(devices)
    if not chosen or len(set(chosen)) < len(chosen) or any(d.process_index != jax.process_index() for d in chosen):
        raise InputError(f"devices={chosen}: expected one or more different devices of jax.local_devices()")
    return None if chosen == local[:1] else Mesh(np.array(chosen), (AXIS,))


def device_count(mesh: Mesh | None) -> int:
    """Returns the number of devices."""
    return 1 if mesh is None else mesh.size


def sharding_of(mesh: Mesh | None, spec: PartitionSpec = PARTS) -> NamedSharding | None:
    """Returns how an array lies on the devices; None with one device."""
    return None if mesh is None else NamedSharding(mesh, spec)


def replicated(tree: Tree, mesh: Mesh | None) -> Tree:
    """Copies a tree to every device; with one device it stays where it is, unless that is on several."""
    if mesh is not None:
        return jax.device_put(tree, sharding_of(mesh, WHOLE))
    several = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, Array) and len(leaf.devices()) > 1]
    return jax.device_put(tree, jax.local_devices()[0]) if several else tree


def parts_of(array: Array, mesh: Mesh | None) -> list[Array]:
    """Returns the part of every device, each on its device; does not wait for them."""
    if mesh is None:
        return [array]
    shards = {shard.device: shard.data for shard in array.addressable_shards}
    return [shards[device] for device in mesh.devices.flat]


@lru_cache(maxsize=64)
def on_each(
    function: Callable[..., Any], mesh: Mesh | None, donate: tuple[int, ...] = (), **static: Any
) -> Callable[..., Any]:
    """Returns a function of spread arrays to spread arrays that runs `function` on the parts of every device.

    It is compiled once for all devices. With one device it is `function`, as it is.

    Args:
      function: of arrays to arrays, with `static` as keywords.
      mesh: of the devices.
      donate: positions of the arguments whose memory is reused, with several devices.
      **static: hashable keywords of `function`.
    """
    own = partial(function, **static)
    return own if mesh is None else jax.jit(spread(own, mesh), donate_argnums=donate)


def spread(function: Callable[..., Any], mesh: Mesh, inputs: Any = PARTS) -> Callable[..., Any]:
    """Returns `function` on the parts of every device, not jitted; `inputs` says what is spread of the arguments."""
    return jax.shard_map(function, mesh=mesh, in_specs=inputs, out_specs=PARTS, check_vma=False)


class DeviceImage(NamedTuple):
    """An image on the device, or one on each of several devices.

    Attributes:
      pixels: uint8 RGB [Hp, Wp, 3], padded (`padded_size`).
      extent: int32 [2], height and width of the image itself.
    """

    pixels: Array
    extent: Array


def padded_size(height: int, width: int) -> tuple[int, int]:
    """Returns both sides rounded up to multiples of BUCKET: images of equal padded sizes share their programs."""
    return -(-height // BUCKET) * BUCKET, -(-width // BUCKET) * BUCKET


def device_image(*images: np.ndarray, mesh: Mesh | None = None) -> DeviceImage:
    """Pads images and hands one to each device.

    Args:
      *images: uint8 RGB [H, W, 3], at most one per device, all of one padded size. Where there are fewer, the devices
        that are left take them again from the first.
      mesh: of several devices.
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


class Prepared(NamedTuple):
    """An image on its way to a device.

    Attributes:
      size: height and width of the photograph.
      image: uint8 RGB [H, W, 3], as it is computed: reduced to `max_side`.
      windows: float32 [n, 4] on `image`, of each network.
    """

    size: tuple[int, int]
    image: np.ndarray
    windows: Sequence[np.ndarray]


def rounds_of(group: Sequence[Prepared], devices: int) -> list[list[int]]:
    """Returns the rounds that a group of images takes: their numbers in the group, at most `devices` per round."""
    rounds: list[list[int]] = []
    open_rounds: dict[tuple[int, int], list[int]] = {}
    for i, prepared in enumerate(group):
        size = padded_size(*prepared.image.shape[:2])
        if len(open_rounds.get(size, ())) in (0, devices):
            open_rounds[size] = []
            rounds.append(open_rounds[size])
        open_rounds[size].append(i)
    return rounds


def groups(ready: Iterable[Prepared], limit: int, devices: int) -> Iterator[list[Prepared]]:
    """Yields images that take at most `limit` rounds together; those before an image that raises an error, too."""
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
    except InputError:
        if group:
            yield group
        raise
    if group:
        yield group


def are_faster_alone(batches: Sequence[int], devices: int) -> bool:
    """Returns whether images of one round take fewer batches one by one, when the devices share their windows.

    Args:
      batches: how many batches the windows of each image fill.
      devices: how many there are.
    """
    return sum(-(-count // devices) for count in batches) < max(batches, default=0)
