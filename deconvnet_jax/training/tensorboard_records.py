"""The parts of tensorboardX that write TensorBoard's records, imported without PyTorch.

tensorboardX imports PyTorch where it is installed, which takes seconds. Records of scalars and pictures do not need it.
"""

import sys

_torch_is_absent = "torch" not in sys.modules
if _torch_is_absent:
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]  `import torch` then raises ImportError
try:
    from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]  generated
    from tensorboardX.record_writer import masked_crc32c
    from tensorboardX.summary import image, scalar
finally:
    if _torch_is_absent:
        del sys.modules["torch"]

__all__ = ["Event", "SessionLog", "image", "masked_crc32c", "scalar"]
