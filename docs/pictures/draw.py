"""Draws the pictures of the documentation as SVG. `tests/test_docs.py` compares them with the files.

python docs/pictures/draw.py
"""

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import jax.numpy as jnp
import numpy as np

from deconvnet_jax.ops import max_pool_with_indices, max_unpool

FOLDER = Path(__file__).parent
INK, QUIET, LINE = "#1f2937", "#6b7280", "#9ca3af"
# One colour for each 2x2 window: light for its pixels, strong for the pixel of the maximum.
LIGHT = ("#dbeafe", "#fef3c7", "#dcfce7", "#fce7f3")
STRONG = ("#60a5fa", "#fbbf24", "#4ade80", "#f472b6")
# The example of docs/how_unpooling_works.md, whose code has the same numbers.
MAP = np.array([[1, 3, 2, 0], [4, 2, 1, 5], [0, 6, 7, 2], [2, 1, 3, 8]], np.float32)
KERNEL = np.array([[0, 1, 0], [1, 2, 1], [0, 1, 0]], np.float32)


class Drawing:
    """SVG picture that grows by shapes; coordinates are in pixels from the upper left corner."""

    def __init__(self, width: int, height: int, description: str):
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'role="img" font-family="Helvetica, Arial, sans-serif">',
            f"<title>{escape(description)}</title>",
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
            f'orient="auto-start-reverse"><path d="M0 0 10 5 0 10z" fill="{INK}"/></marker></defs>',
            f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
        ]

    def box(self, place: tuple[float, float, float, float], fill: str, line: str = LINE, rounded: int = 0) -> None:
        """Adds a rectangle at x, y with a width and a height."""
        x, y, w, h = place
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{rounded}" fill="{fill}" stroke="{line}"/>'
        )

    def text(self, x: float, y: float, text: str, size: int = 18, color: str = INK, anchor: str = "middle") -> None:
        """Adds a line of text; `y` is its baseline. **Text** in asterisks is bold."""
        weight = ' font-weight="bold"' if text.startswith("**") else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}" text-anchor="{anchor}"{weight}>'
            f"{escape(text.strip('*'))}</text>"
        )

    def arrow(self, path: str, dashed: bool = False) -> None:
        """Adds an arrow along an SVG path."""
        dashes = ' stroke-dasharray="6 5"' if dashed else ""
        self._parts.append(
            f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="2"{dashes} marker-end="url(#head)"/>'
        )

    def grid(self, x: float, y: float, cell: int, values: np.ndarray, fills: Sequence[Sequence[str]]) -> None:
        """Adds a table of numbers [H, W] with a colour for each cell; zeros are quiet."""
        for row, column in np.ndindex(*values.shape):
            left, top, value = x + column * cell, y + row * cell, values[row, column]
            self.box((left, top, cell, cell), fills[row][column])
            size = int(cell * 0.45)
            self.text(left + cell / 2, top + cell / 2 + size * 0.36, f"{value:g}", size, INK if value else LINE)

    def finished(self) -> str:
        """Returns the picture as the text of an SVG file."""
        return "\n".join([*self._parts, "</svg>", ""])


def window_of(row: int, column: int) -> int:
    """Returns the number of the 2x2 window that holds a pixel of the 4x4 map."""
    return row // 2 * 2 + column // 2


def unpooling() -> str:
    """Returns the picture of pooling, unpooling and deconvolution of a 4x4 map."""
    pooled, indices = max_pool_with_indices(jnp.asarray(MAP)[None, :, :, None], window=2)
    sparse = np.asarray(max_unpool(pooled, indices, (4, 4), window=2))[0, :, :, 0]
    pooled, indices = np.asarray(pooled)[0, :, :, 0], np.asarray(indices)[0, :, :, 0]
    chosen = {(int(i) // 4, int(i) % 4) for i in indices.ravel()}
    colored = [
        [(STRONG if (r, c) in chosen else LIGHT)[window_of(r, c)] for c in range(4)] for r in range(4)
    ]  # the map: windows light, maxima strong
    windows = [[STRONG[0], STRONG[1]], [STRONG[2], STRONG[3]]]
    scattered = [[STRONG[window_of(r, c)] if (r, c) in chosen else "#ffffff" for c in range(4)] for r in range(4)]

    drawing = Drawing(680, 640, "A 4x4 map, its maxima and their positions, the unpooled map, and its deconvolution")
    drawing.text(30, 42, "**1  A map of the encoder", 19, anchor="start")
    drawing.grid(30, 60, 52, MAP, colored)
    drawing.text(30, 292, "four windows of 2x2 pixels", 15, QUIET, "start")

    drawing.arrow("M250 164 H330")
    drawing.text(290, 152, "pool", 17)
    drawing.text(345, 42, "**2  Pooling keeps two things", 19, anchor="start")
    drawing.grid(345, 104, 52, pooled, windows)
    drawing.text(397, 232, "the maxima", 15, QUIET)
    drawing.grid(510, 104, 52, indices, windows)
    drawing.text(562, 232, "the switches", 15, QUIET)
    drawing.text(510, 254, "position = row x 4 + column", 15, QUIET)

    drawing.arrow("M397 246 V284 Q397 318 363 318 H164 Q138 318 138 344 V362")
    drawing.arrow("M562 268 V298 Q562 338 522 338 H198 Q172 338 172 352 V362", dashed=True)
    drawing.text(600, 322, "unpool", 17)

    drawing.text(30, 394, "**3  Unpooling: sparse", 19, anchor="start")
    drawing.grid(30, 410, 52, sparse, scattered)
    drawing.arrow("M250 514 H400")
    drawing.text(325, 434, "deconvolve with", 15)
    drawing.grid(289, 444, 20, KERNEL, [["#f3f4f6"] * 3] * 3)
    drawing.text(420, 394, "**4  Deconvolution: dense", 19, anchor="start")
    drawing.grid(420, 410, 52, deconvolved(sparse), [["#f3f4f6"] * 4] * 4)
    return drawing.finished()


def stamps() -> str:
    """Returns the picture of what each value of the sparse map adds to the deconvolution."""
    pooled, indices = max_pool_with_indices(jnp.asarray(MAP)[None, :, :, None], window=2)
    drawing = Drawing(680, 350, "What each of the four values adds to the deconvolution, and the sum")
    for number, index in enumerate(np.asarray(indices).ravel()):
        alone = np.zeros(16, np.float32)
        alone[index] = np.asarray(pooled).ravel()[number]
        stamp = deconvolved(alone.reshape(4, 4))
        fills = [[LIGHT[number] if value else "#ffffff" for value in row] for row in stamp]
        fills[index // 4][index % 4] = STRONG[number]
        x, y = 40 + number % 2 * 170, 42 + number // 2 * 160
        drawing.grid(x, y, 30, stamp, fills)
        if number:
            drawing.text(x - (25 if number % 2 else 20), y + 66, "+", 22)
        drawing.text(x, y - 10, f"from the {alone[index]:g}", 15, QUIET, "start")
    sparse = np.asarray(max_unpool(pooled, indices, (4, 4), window=2))[0, :, :, 0]
    drawing.text(390, 186, "=", 26)
    drawing.text(430, 60, "the sum", 15, QUIET, "start")
    drawing.grid(430, 70, 52, deconvolved(sparse), [["#f3f4f6"] * 4] * 4)
    return drawing.finished()


def deconvolved(sparse: np.ndarray) -> np.ndarray:
    """Returns the transposed convolution of a map [H, W] with `KERNEL`, cut to the size of the map."""
    height, width = sparse.shape
    padded = np.zeros((height + 2, width + 2), np.float32)
    for row, column in np.ndindex(height, width):
        padded[row : row + 3, column : column + 3] += sparse[row, column] * KERNEL
    return padded[1:-1, 1:-1]


def network() -> str:
    """Returns the picture of the network: encoder, decoder, and the switches between them."""
    drawing = Drawing(830, 380, "DeconvNet: five blocks of convolutions, fc6 and fc7, and five mirrored blocks")
    sides, top = (224, 112, 56, 28, 14), 40
    heights, widths = (190, 150, 112, 78, 50), (38, 40, 42, 44, 44)
    middle, x, left, right = top + 95, 70, [], []
    drawing.text(30, middle - 4, "224x224", 13)
    drawing.text(30, middle + 14, "image", 13)
    for number, (height, width) in enumerate(zip(heights, widths, strict=True), 1):
        drawing.box((x, middle - height / 2, width, height), "#bfdbfe", "#3b82f6", 4)
        drawing.text(x + width / 2, middle + height / 2 + 18, f"conv{number}", 13)
        drawing.text(x + width / 2, middle + height / 2 + 35, f"{sides[number - 1]}", 12, QUIET)
        left.append((x + width / 2, middle - height / 2))
        x += width + 12
    for name, side in (("fc6", "1"), ("fc7", "1"), ("fc6-deconv", "7")):
        wide = 66 if "-" in name else 30
        drawing.box((x, middle - 16, wide, 32), "#e5e7eb", "#6b7280", 4)
        drawing.text(x + wide / 2, middle + 34, name, 12)
        drawing.text(x + wide / 2, middle + 50, side, 12, QUIET)
        x += wide + 10
    for number in range(5, 0, -1):
        height, width = heights[number - 1], widths[number - 1]
        drawing.box((x, middle - height / 2, width, height), "#bbf7d0", "#16a34a", 4)
        drawing.text(x + width / 2, middle + height / 2 + 18, f"deconv{number}", 13)
        drawing.text(x + width / 2, middle + height / 2 + 35, f"{sides[number - 1]}", 12, QUIET)
        right.insert(0, (x + width / 2, middle - height / 2))
        x += width + 14
    drawing.text(x + 22, middle - 4, "224x224", 13)
    drawing.text(x + 22, middle + 14, "scores", 13)
    for number, ((x0, y0), (x1, y1)) in enumerate(zip(left, right, strict=True)):
        depth = 285 + 14 * (4 - number)
        bottom0 = middle + (middle - y0) + 42
        bottom1 = middle + (middle - y1) + 42
        drawing.arrow(f"M{x0:g} {bottom0:g} V{depth} H{x1:g} V{bottom1:g}", dashed=True)
    drawing.text(
        (left[0][0] + right[0][0]) / 2, 366, "switches: the positions of the maxima, from pool1..5 to unpool1..5", 14
    )
    return drawing.finished()


def pictures() -> dict[str, str]:
    """Returns the text of every picture under the name of its file."""
    return {"unpooling.svg": unpooling(), "deconvolution.svg": stamps(), "network.svg": network()}


if __name__ == "__main__":
    for name, text in pictures().items():
        (FOLDER / name).write_text(text)
