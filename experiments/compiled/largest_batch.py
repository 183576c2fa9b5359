"""Searches the largest batch per device that fits, by few compilations: memory grows linearly with the batch."""

from collections.abc import Callable

MOST = 4096  # images per device, where the search ends


def find_largest(start: int, valid: Callable[[int], bool], needed: Callable[[int], float | None], memory: float) -> int:
    """Returns the largest batch per device that fits; 0 if none does.

    Args:
      start: images per device to begin with.
      valid: whether a batch per device can be divided as the config says.
      needed: bytes that a step with a batch needs; None if XLA refuses it. Expensive.
      memory: bytes that there are.
    """
    points: dict[int, float | None] = {}
    batch: int | None = start
    while batch:
        points[batch] = needed(batch)
        batch = _next(points, valid, memory)
    return max((batch for batch, num_bytes in points.items() if _fits(num_bytes, memory)), default=0)


def _next(points: dict[int, float | None], valid: Callable[[int], bool], memory: float) -> int | None:
    """The batch to try next; None if the largest is known."""
    low = max((batch for batch, num_bytes in points.items() if _fits(num_bytes, memory)), default=0)
    high = min((batch for batch, num_bytes in points.items() if not _fits(num_bytes, memory)), default=MOST + 1)
    known = sorted((batch, num_bytes) for batch, num_bytes in points.items() if num_bytes is not None)
    fitting = [(batch, num_bytes) for batch, num_bytes in known if num_bytes <= memory]
    known = fitting[-2:] if len(fitting) > 1 else known[:2]
    if len(known) == 2:
        (first, first_bytes), (second, second_bytes) = known
        slope = (second_bytes - first_bytes) / (second - first)
        guess = int(second + (memory - second_bytes) / slope) if slope > 0 else MOST
        if guess <= low:
            return None
        guess = (low + high) // 2 if guess >= high else guess
    else:
        guess = 2 * low if high > MOST else (low + high) // 2
    between = [batch for batch in range(low + 1, min(high, 2 * guess + 1)) if valid(batch)]
    below = [batch for batch in between if batch <= guess]
    if below or (len(known) == 2 and high > MOST):  # the next valid one is known not to fit
        return max(below, default=None)
    return min(between, default=None)


def _fits(num_bytes: float | None, memory: float) -> bool:
    return num_bytes is not None and num_bytes <= memory
