"""Searches for the largest batch per device that fits, with few compilations: memory grows linearly with the batch."""

from collections.abc import Callable

MOST = 4096  # images per device; larger batches are not tried


def find_largest(start: int, valid: Callable[[int], bool], needed: Callable[[int], float | None], memory: float) -> int:
    """Returns the largest batch per device that fits; 0 if none does.

    Args:
      start: images per device to begin with.
      valid: takes a batch per device; whether the config's `micro_batch` and `bn_group` allow it.
      needed: takes a batch per device; returns the bytes that a step needs, or None if XLA refuses to compile it. Slow,
        because it compiles the step.
      memory: bytes that a program can use on a device.
    """
    fits, too_large, guess, on_line = 0, MOST + 1, start, False
    points: list[tuple[int, float]] = []  # the last two batches whose bytes are known
    while between := [batch for batch in range(fits + 1, too_large) if valid(batch)]:
        below = [batch for batch in between if batch <= guess]
        if on_line and not below:  # By the line, the next valid batch needs too much.
            break
        batch = below[-1] if below else between[0]
        num_bytes = needed(batch)
        fits, too_large = (batch, too_large) if num_bytes is not None and num_bytes <= memory else (fits, batch)
        points = points if num_bytes is None else [*points, (batch, num_bytes)][-2:]
        guess, on_line = 2 * fits if too_large > MOST else (fits + too_large) // 2, False
        if len(points) == 2:
            (first, first_bytes), (second, second_bytes) = points
            slope = (second_bytes - first_bytes) / (second - first)
            line = int(second + (memory - second_bytes) / slope) if slope > 0 else MOST
            guess, on_line = (line, True) if line < too_large else (guess, False)
    return fits
