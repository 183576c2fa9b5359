"""From a config to data."""

from experiments import dataset
from experiments.configs import default


def test_config_and_overrides_choose_the_data():
    own = dataset.data_config(None, {"data": {"voc_root": "a", "eval_split": "val"}}, {"eval_split": "train"})
    assert (own.data.voc_root, own.data.eval_split) == ("a", "train")
    config = default.get_config()
    config.data.voc_root = "b"
    given = dataset.data_config(config, {"data": {"voc_root": "a"}}, {})
    assert (given.data.voc_root, given.data.eval_split) == ("b", "val")
    imported = dataset.data_config(None, {"model": {}}, {"voc_root": "c"})
    assert imported.data.voc_root == "c"
    trained = {"data": {"windows": ["image"], "crop_size": 64, "data_dir": None, "forgotten": 1}}
    restored = dataset.data_config(None, trained, {})
    assert (restored.data.windows, restored.data.crop_size) == (("image",), 64)
