# The type checker would take a setting for a union of all that ConfigDict.__getattr__ can return.
from ml_collections.config_dict import ConfigDict as ConfigDict
