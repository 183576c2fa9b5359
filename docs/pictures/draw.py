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
        """Adds a rectangle.

        Args:
          place: x and y of the upper left corner, width and height.
          fill: colour of the area.
          line: colour of the border.
          rounded: radius of the corners.
        """
        x, y, w, h = place
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{rounded}" fill="{fill}" stroke="{line}"/>'
        )

    def text(self, x: float, y: float, text: str, size: int = 18, color: str = INK, anchor: str = "middle") -> None:
        """Adds one line of text.

        Args:
          x: where the text starts, or its middle or end (`anchor`).
          y: height of the baseline.
          text: the words; bold if they begin with two asterisks.
          size: height of the letters.
          color: colour of the letters.
          anchor: "start", "middle" or "end".
        """
        weight = ' font-weight="bold"' if text.startswith("**") else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}" text-anchor="{anchor}"{weight}>'
            f"{escape(text.strip('*'))}</text>"
        )

    def arrow(self, path: str, dashed: bool = False) -> None:
        """Adds an arrow.

        Args:
          path: its line as an SVG path, for example "M0 0 H20".
          dashed: True for a dashed line.
        """
        dashes = ' stroke-dasharray="6 5"' if dashed else ""
        self._parts.append(
            f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="2"{dashes} marker-end="url(#head)"/>'
        )

    def grid(self, x: float, y: float, cell: int, values: np.ndarray, fills: Sequence[Sequence[str]]) -> None:
        """Adds a table of numbers, with zeros in grey.

        Args:
          x: left edge.
          y: upper edge.
          cell: side of a cell.
          values: the numbers, [H, W].
          fills: colours of the cells, H rows of W.
        """
        for row, column in np.ndindex(*values.shape):
            left, top, value = x + column * cell, y + row * cell, values[row, column]
            self.box((left, top, cell, cell), fills[row][column])
            size = int(cell * 0.45)
            self.text(left + cell / 2, top + cell / 2 + size * 0.36, f"{value:g}", size, INK if value else LINE)

    def finished(self) -> str:
        """Returns the picture as the text of an SVG file."""
        return "\n".join([*self._parts, "</svg>", ""])


def window_of(row: int, column: int) -> int:
    """Returns which 2x2 window of the 4x4 map holds a pixel.

    Args:
      row: row of the pixel, 0 to 3.
      column: column of the pixel, 0 to 3.

    Returns:
      0 to 3, row by row.
    """
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
    """Returns the transposed convolution of a map with `KERNEL`, cut to the size of the map.

    Args:
      sparse: the map, [H, W].

    Returns:
      The sum of the kernels, [H, W] float32.
    """
    height, width = sparse.shape
    padded = np.zeros((height + 2, width + 2), np.float32)
    for row, column in np.ndindex(height, width):
        padded[row : row + 3, column : column + 3] += sparse[row, column] * KERNEL
    return padded[1:-1, 1:-1]


def network() -> str:
    """Returns the picture of the network: the encoder goes down, the decoder goes up, switches go across."""
    drawing = Drawing(
        600, 560, "DeconvNet: the encoder, fc6 and fc7, the mirrored decoder, and the switches between them"
    )
    blocks = [(224, 64, 2), (112, 128, 2), (56, 256, 3), (28, 512, 3), (14, 512, 3)]
    left, right = 150, 450
    drawing.text(left, 34, "**encoder (VGG-16)", 17)
    drawing.text(right, 34, "**decoder", 17)
    drawing.text(left, 58, "image 224x224x3", 14, QUIET)
    drawing.text(right, 58, "scores 224x224x21", 14, QUIET)
    for number, (side, channels, layers) in enumerate(blocks, 1):
        y, width = 76 + (number - 1) * 78, 220 - 22 * (number - 1)
        drawing.box((left - width / 2, y, width, 46), "#dbeafe", "#3b82f6", 6)
        drawing.text(left, y + 20, f"conv{number}: {layers} layers", 14)
        drawing.text(left, y + 38, f"{side}x{side}x{channels}", 13, QUIET)
        drawing.box((right - width / 2, y, width, 46), "#dcfce7", "#16a34a", 6)
        drawing.text(right, y + 20, f"deconv{number}: {layers} layers", 14)
        drawing.text(right, y + 38, f"{side}x{side}", 13, QUIET)
        drawing.arrow(f"M{left + 36} {y + 62} H{right - 36}", dashed=True)
        drawing.text(300, y + 57, f"switches {number}", 13)
        drawing.arrow(f"M{left} {y + 48} V{y + 76}")
        drawing.text(left - 10, y + 67, f"pool{number}", 13, QUIET, "end")
        drawing.arrow(f"M{right} {y + 76} V{y + 48}")
        drawing.text(right + 10, y + 67, f"unpool{number}", 13, QUIET, "start")
    y = 76 + 5 * 78
    for x, name, size in ((left, "fc6", "1x1x4096"), (300, "fc7", "1x1x4096"), (right, "fc6-deconv", "7x7x512")):
        drawing.box((x - 52, y, 104, 46), "#e5e7eb", "#6b7280", 6)
        drawing.text(x, y + 20, name, 14)
        drawing.text(x, y + 38, size, 13, QUIET)
    drawing.arrow(f"M{left + 54} {y + 23} H{300 - 54}")
    drawing.arrow(f"M{300 + 54} {y + 23} H{right - 54}")
    drawing.text(300, y + 76, "Batch normalisation and ReLU follow every layer, except the scores.", 14, QUIET)
    return drawing.finished()


def chain(drawing: Drawing, y: int, boxes: Sequence[tuple[str, str]], fill: str) -> None:
    """Adds a row of boxes with arrows from each to the next.

    Args:
      drawing: the picture.
      y: upper edge of the row.
      boxes: up to four pairs of lines of text; the second one may be empty.
      fill: colour of the boxes.
    """
    for number, (first, second) in enumerate(boxes):
        x = 20 + number * 155
        drawing.box((x, y, 135, 50), fill, LINE, 6)
        drawing.text(x + 67, y + (21 if second else 30), first, 14)
        drawing.text(x + 67, y + 40, second, 13, QUIET)
        if number:
            drawing.arrow(f"M{x - 20} {y + 25} H{x}")


def data_flow() -> str:
    """Returns the picture of how data flows from photographs to checkpoints and from checkpoints to label maps."""
    drawing = Drawing(640, 640, "Data, training and inference: what goes where")
    drawing.text(20, 34, "**data (host)", 16, anchor="start")
    files = [("photographs", "and masks"), ("TFDS builder", "ArrayRecord files")]
    chain(drawing, 46, [*files, ("windows", "around objects, ..."), ("Grain pipeline", "uint8 crops")], "#fef3c7")
    drawing.arrow("M552 96 V112 H87 V140")

    drawing.text(110, 132, "**training (device)", 16, anchor="start")
    steps = [("normalise", ""), ("DeconvNet", "forward pass"), ("loss", "sums over pixels")]
    chain(drawing, 142, [*steps, ("gradients", "backward pass")], "#dcfce7")
    drawing.arrow("M552 192 V228")
    drawing.box((485, 230, 135, 50), "#dcfce7", LINE, 6)
    drawing.text(552, 251, "all-reduce", 14)
    drawing.text(552, 270, "momentum SGD", 13, QUIET)
    drawing.arrow("M485 245 H242 V194")
    drawing.text(360, 238, "new parameters", 13, QUIET)
    drawing.arrow("M552 280 V316")
    drawing.box((485, 318, 135, 50), "#e5e7eb", "#6b7280", 22)
    drawing.text(552, 348, "checkpoint", 14)
    drawing.box((330, 318, 135, 50), "#e5e7eb", LINE, 6)
    drawing.text(397, 339, "caffemodel,", 14)
    drawing.text(397, 357, "VGG-16", 14)
    drawing.arrow("M465 343 H485")

    drawing.text(20, 404, "**inference (device)", 16, anchor="start")
    found = [("photograph", ""), ("proposals", "best first")]
    chain(drawing, 418, [*found, ("proposal batch", "crop, network"), ("scores", "of the image")], "#dbeafe")
    drawing.arrow("M552 368 V392 H397 V416")
    drawing.arrow("M552 468 V488 H242 V506")
    chain(
        drawing, 508, [("FCN-8s", "the same image"), ("ensemble", ""), ("dense CRF", ""), ("label map", "")], "#dbeafe"
    )
    drawing.arrow("M552 558 V584")
    drawing.text(552, 604, "confusion matrix, IoU", 14)
    return drawing.finished()


def pictures() -> dict[str, str]:
    """Returns the text of every picture under the name of its file."""
    return {
        "unpooling.svg": unpooling(),
        "deconvolution.svg": stamps(),
        "network.svg": network(),
        "data_flow.svg": data_flow(),
    }


if __name__ == "__main__":
    for name, text in pictures().items():
        (FOLDER / name).write_text(text)
