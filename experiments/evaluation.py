"""The evaluation of a network while it trains: scores and pictures, images divided over processes and devices."""

from collections.abc import Callable, Sequence

import chex
import jax
import ml_collections
import numpy as np

from deconvnet_jax.data import Example
from deconvnet_jax.evaluation import confusion_matrix, segmentation_scores
from deconvnet_jax.inference import InferenceSettings, Segmenter, settings_from
from deconvnet_jax.models import FCN8s, Network
from deconvnet_jax.training import Evaluation
from deconvnet_jax.visualization import result_panel
from experiments import hosts, segmenting

PICTURES = 4  # images that every evaluation draws


def evaluator(
    net: Network, class_names: Sequence[str], source: Sequence[Example], config: ml_collections.ConfigDict
) -> Callable[[chex.ArrayTree], Evaluation]:
    """Scores a network on (the first `eval_images` of) a split at the images' own resolution, with pictures.

    Images are segmented as the config says if that needs no proposals, else whole; without CRF and partner.
    """
    count, settings = _evaluated(config, source), _settings(config, net)

    def evaluate(variables: chex.ArrayTree) -> Evaluation:
        segmenter = Segmenter(net, variables, tuple(class_names), config.data.crop_size, settings)
        matrix = np.zeros((len(class_names), len(class_names)), np.int64)
        pictures = {}
        share = range(jax.process_index(), count, jax.process_count())
        for i, example, result in segmenting.results(segmenter, source, share):
            matrix += confusion_matrix(example.label, result.labels, len(class_names))
            if len(pictures) < PICTURES:
                pictures[f"image{i}"] = result_panel(example.image, result.labels, class_names, truth=example.label)
        scores = segmentation_scores(hosts.sum_over_processes(matrix), class_names)
        found = {name: scores[name] for name in ("mean_iou", "pixel_accuracy")}
        found |= {f"iou/{name}": np.nan if iou is None else iou for name, iou in scores["iou_per_class"].items()}
        return Evaluation(found, pictures)

    return evaluate


def _settings(config: ml_collections.ConfigDict, net: Network) -> InferenceSettings:
    settings = settings_from(config.inference.to_dict()).changed(crf="none", ensemble_checkpoint="")
    if settings.uses_proposals:
        settings = InferenceSettings(mode="whole_image")
    if settings.mode == "whole_image" or isinstance(net, FCN8s):
        return settings.changed(batch_size=1)  # a whole image each: memory is for the training step
    return settings


def _evaluated(config: ml_collections.ConfigDict, source: Sequence[Example]) -> int:
    return min(config.eval_images or len(source), len(source)) if config.eval_every else 0
