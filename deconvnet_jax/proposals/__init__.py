"""Object proposals: Edge Boxes, the edge maps they need, training of the edge network, and proposals files."""

from deconvnet_jax.proposals.edge_boxes import EDGE_METHODS, METHODS, EdgeBoxes, edge_map, propose_boxes
from deconvnet_jax.proposals.files import Proposals, load_proposals, read_proposals, write_proposals
from deconvnet_jax.proposals.split import compute_proposals

__all__ = [
    "EDGE_METHODS",
    "METHODS",
    "EdgeBoxes",
    "Proposals",
    "compute_proposals",
    "edge_map",
    "load_proposals",
    "propose_boxes",
    "read_proposals",
    "write_proposals",
]
