"""How a batch is divided: over devices, into micro-batches one after the other, into groups for batch statistics."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from deconvnet_jax.errors import InputError


class BatchLayout(NamedTuple):
    """The parts of a device's share of a batch, in the order of its crops: micro-batches, and in each the groups.

    A group is a run of consecutive crops of the global batch, whatever the number of devices, unless it needs several
    devices that each have several micro-batches: then it is made of the crops that they compute at the same time.

    Attributes:
      micro_batches: computed one after the other, their gradients added up.
      groups: of a micro-batch, with batch statistics each.
      devices_a_group: consecutive devices that make up a group; 1 unless a group is larger than a micro-batch.
      devices: all that the batch is divided over.
    """

    micro_batches: int = 1
    groups: int = 1
    devices_a_group: int = 1
    devices: int = 1

    @property
    def device_groups(self) -> tuple[tuple[int, ...], ...]:
        """The devices of every group, if groups are larger than a micro-batch."""
        size = self.devices_a_group
        return tuple(tuple(range(first, first + size)) for first in range(0, self.devices, size))

    @property
    def total_groups(self) -> int:
        """Groups in the global batch."""
        return self.micro_batches * self.groups * self.devices // self.devices_a_group


def batch_layout(batch_size: int, devices: int, micro_batch: int = 0, bn_group: int = 0) -> BatchLayout:
    """The layout of a batch over devices.

    Args:
      batch_size: crops of a step, over all devices.
      devices: number of them.
      micro_batch: most crops that a device computes at once; 0: its whole share.
      bn_group: crops that share batch statistics; 0: those that a device computes at once.

    Raises:
      InputError: if a number does not divide the other.
    """
    if micro_batch < 0 or bn_group < 0:
        name, value = ("micro_batch", micro_batch) if micro_batch < 0 else ("bn_group", bn_group)
        raise InputError(f"config.{name}={value}: expected 0 or more")
    if batch_size % devices or batch_size < devices:
        raise InputError(
            f"batch_size={batch_size} does not divide over {devices} devices; "
            f"give a multiple of {devices}, for example {max(1, round(batch_size / devices)) * devices}"
        )
    share = batch_size // devices
    micro = min(micro_batch or share, share)
    if share % micro:
        raise InputError(
            f"config.micro_batch={micro_batch} does not divide the {share} crops that each of {devices} devices has of "
            f"batch_size={batch_size}; give a divisor of {share}"
        )
    group = bn_group or micro
    if group <= micro and micro % group == 0:
        return BatchLayout(share // micro, micro // group, 1, devices)
    if group > micro and group % micro == 0 and devices % (group // micro) == 0:
        return BatchLayout(share // micro, 1, group // micro, devices)
    raise InputError(
        f"config.bn_group={bn_group}: a device computes {micro} crops at once (batch_size={batch_size}, "
        f"{devices} devices, config.micro_batch={micro_batch}); give a divisor of {micro}, or {micro} times a divisor "
        f"of {devices}"
    )


def group_size(config: Mapping[str, Any], devices: int) -> int:
    """Returns the crops that share batch statistics: `bn_group`, or those that a device computes at once.

    Args:
      config: of the experiment: batch_size, micro_batch, bn_group.
      devices: number of them.

    Raises:
      InputError: if a number does not divide the other.
    """
    layout = batch_layout(config["batch_size"], devices, config["micro_batch"], config["bn_group"])
    return config["batch_size"] // layout.total_groups
