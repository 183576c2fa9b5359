"""Pictures for people: palette PNGs, overlays, result panels, contact sheets, activation maps, confusion matrices."""

from deconvnet_jax.labels import save_label_png, voc_palette
from deconvnet_jax.visualization.activations import activation_picture, representative_channel
from deconvnet_jax.visualization.confusion import confusion_picture
from deconvnet_jax.visualization.contact_sheet import contact_sheet
from deconvnet_jax.visualization.overlay import overlay
from deconvnet_jax.visualization.palettes import PALETTES, painted
from deconvnet_jax.visualization.panel import class_legend, legend, result_panel, side_by_side

__all__ = [
    "PALETTES",
    "activation_picture",
    "class_legend",
    "confusion_picture",
    "contact_sheet",
    "legend",
    "overlay",
    "painted",
    "representative_channel",
    "result_panel",
    "save_label_png",
    "side_by_side",
    "voc_palette",
]
