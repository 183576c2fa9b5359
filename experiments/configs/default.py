"""All settings of an experiment, with their meanings and defaults; every other config changes some of them.

    python -m experiments.voc_train --config=default --workdir=DIR --config.data.voc_root=FOLDER [--config.KEY=VALUE]

The defaults are stage 1 of the paper (section 6.1). Where the paper gives no number, they are the released solver's
(training/001_stage_1/solver.prototxt). `KINDS` in settings.py has the type and the range of every key; a training
checks them before it starts.

To add a setting, also add its type and range to `KINDS`. deconvnet_jax/training/workdir.py needs the value that older
runs used (`SINCE`), and the key itself if a run may resume with another value (`HARMLESS` or `ACCEPTABLE`). Add it to
`OWN` in stages.py if stage 1 and stage 2 need different values.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    """Returns the defaults. The config is locked: a misspelt key is an error."""
    config = ml_collections.ConfigDict()
    config.seed = 0  # random seed: initial weights, order of examples, crops, mirroring, dropout; a whole number from 0
    config.num_steps = 20_000  # training steps; each updates the parameters once
    config.batch_size = 64  # crops per step, over all devices; a multiple of the number of devices
    # Most crops that a device computes at once; it adds up the gradients of its micro-batches. Fewer crops need less
    # memory. Must divide the device's share of the batch. 0: the whole share at once.
    config.micro_batch = 0
    # Crops that share batch statistics, on one device or over several: a divisor of the crops that a device computes at
    # once, or that number times a divisor of the number of devices. 0: the crops that a device computes at once. FCN-8s
    # and other networks without batch normalisation need 0.
    config.bn_group = 0
    # True: as in the released Caffe code, the loss is the mean of the groups' means over pixels, and scale and shift of
    # batch normalisation learn from the last group only. False: the loss is the mean over all labelled pixels.
    config.caffe_gradients = False

    config.data = _data()
    config.model = _model()
    # Class balancing of the loss, from 0 (every pixel counts the same) to 1 (every class counts the same). The weight
    # of a class is proportional to (its share of the pixels) ** -class_balance. `data.balance` repeats windows of rare
    # classes instead.
    config.class_balance = 0.0
    # True: the backward pass computes activations again instead of keeping them. Less memory, about a third more time,
    # the same results. Not for FCN-8s.
    config.remat = False
    config.all_reduce_dtype = "float32"  # dtype of gradients in the all-reduce; "bfloat16" sends half the bytes

    # Decay of a moving average of parameters and batch statistics, below 1, for example 0.999. Evaluations, predictions
    # and `calibrate` use the averages; a checkpoint holds both. While (1 + step) / (10 + step) is smaller, that is the
    # decay. 0: no averages.
    config.ema_decay = 0.0

    # Start from the network of this checkpoint: the folder of a training run or of an import, also gs://BUCKET/NAME. If
    # its classes differ from the data's, the score layer starts from random weights. None: start as `init` says. Give
    # `init_from` or `init.vgg16`, not both.
    config.init_from = config_dict.placeholder(str)
    config.init_from_step = config_dict.placeholder(int)  # its step; None: the step with the best mean IoU
    config.init = _init()

    config.optimizer = _optimizer()

    config.log_every = 10  # steps between lines of metrics.jsonl and updates of the progress line
    # Steps between evaluations; the last step is evaluated too. 0: no evaluations, which "plateau" does not allow.
    config.eval_every = 500
    config.eval_images = 0  # images that an evaluation takes, from the start of the split; 0: all
    # Steps between checkpoints. The last step, every evaluated step and a step stopped by SIGTERM are always saved. 0:
    # only those.
    config.checkpoint_every = 500

    config.calibrate = calibrate = ml_collections.ConfigDict()
    # Batches over which batch-norm statistics are re-estimated after training; the result goes to WORKDIR/calibrated. 0
    # disables it, also for networks without batch normalisation; the original used 500 batches of 28 crops.
    calibrate.batches = 0
    calibrate.batch_size = 28  # crops per batch, at least 2; rounded up to a multiple of the number of devices

    # How photographs are segmented after training, and in the evaluations during training. Those leave out the CRF and
    # the ensemble, and in modes with proposals they show the network the whole image in one window.
    config.inference = _inference()

    # Experiment tracker that also gets metrics, pictures and settings: "wandb", "mlflow" or "trackio"; its package must
    # be installed. "none": TensorBoard files and metrics.jsonl only, which are written in any case.
    config.tracker = "none"
    config.tracker_project = "deconvnet_jax"  # project of the tracker that holds the run; in MLflow the experiment

    config.profile = 0  # steps that JAX's profiler records into WORKDIR/profile, from the sixth after a start; 0: none
    # Folder that keeps compiled programs, so that the next start is faster; runs may share it. None: WORKDIR/compiled,
    # or no folder on a CPU.
    config.compilation_cache = config_dict.placeholder(str)
    return config.lock()


def _data() -> ml_collections.ConfigDict:
    """Returns section "data": what to train on, and how crops are made."""
    data = ml_collections.ConfigDict()
    # "voc_layout": the folder `voc_root`. "voc2012", "camvid": that data set, after experiments.prepare_data.
    data.dataset = "voc_layout"
    # Folder with JPEGImages, SegmentationClass and ImageSets (docs/own_data.md); for "voc_layout" only, which needs it.
    data.voc_root = config_dict.placeholder(str)
    # Folder where TFDS keeps packed data; for "voc2012" and "camvid" also gs://BUCKET/NAME. None: the environment's
    # TFDS_DATA_DIR, or ~/tensorflow_datasets.
    data.data_dir = config_dict.placeholder(str)
    data.train_split = "train"  # split to train on: a name in ImageSets/Segmentation, or "train_aug" (VOC 2012 and SBD)
    data.eval_split = "val"  # split for the evaluations
    # Windows to train on, one or several of "instance" (one around every object), "proposal" (every proposal that
    # overlaps an object) and "image" (one around every whole image).
    data.windows = ("instance",)
    # File of proposals for "proposal" windows. None: the file that experiments.prepare_data --proposals wrote.
    data.proposals = config_dict.placeholder(str)
    data.min_overlap = 0.5  # least intersection over union of a proposal with an object's box, above 0 and up to 1
    # Least side in pixels of a window around a connected part of a class mask; smaller parts get none. In small images
    # it is at most an eighth of the longer side. Annotated objects keep windows of any size. 0: no least side.
    data.min_window = 64
    # Text file that replaces `windows`; a line "image mask x1 y1 x2 y2" per window, corners in whole pixels, inclusive.
    data.window_list = config_dict.placeholder(str)
    # Repeats windows of rare classes, from 0 (no repetition) to 1 (all classes equally frequent); not for windows of
    # whole images alone. `class_balance` weights pixels in the loss instead.
    data.balance = 0.0
    # "instance": only the object of an "instance" window is labelled, everything else is background (stage 1). "all":
    # all classes are labelled.
    data.label_mode = "instance"
    data.resize_size = 250  # side in pixels of the square to which a window is resized; at least `crop_size`
    # Side in pixels of the crop that is cut out of that square: the network's input. A multiple of 32, and at least
    # 32 * model.fc_window.
    data.crop_size = 224
    data.random_crop = True  # True: crops are cut at a random place; False: from the centre
    data.inside_image = False  # True: random crops show as little as possible of the black area outside the image
    # Smallest and largest factor on `resize_size`, from 0.1 to 10; drawn at random for each crop. (1.0, 1.0): no zoom.
    data.zoom = (1.0, 1.0)
    # Largest angle in degrees, 0 to 180, by which crops are turned at random in either direction. What lies outside the
    # image is black and ignored. 0: no rotation.
    data.rotation = 0.0
    # Random colours of crops. Brightness, contrast and saturation are multiplied by a factor from 1 - x to 1 + x, with
    # x from 0 to 1. The hue is shifted by up to `hue` turns of the colour circle, 0 to 0.5. 0: unchanged.
    data.brightness = 0.0
    data.contrast = 0.0
    data.saturation = 0.0
    data.hue = 0.0
    data.mirror = True  # True: a random half of the crops is mirrored left to right
    data.cache_mb = 2048  # memory for decoded images in each training process, in MiB; 0: no cache
    # Most windows of an image that come close together in an epoch, so that the image is decoded once for all of them.
    # 1: windows are shuffled one by one. With several hosts, multiply by their number.
    data.crops_per_decode = 8
    data.read_threads = 4  # threads that prepare crops, in each worker
    # Worker processes that prepare crops. 0: threads of the training process prepare them. That is faster up to about
    # eight cores, because each worker has only its share of the cache and decodes images itself.
    data.workers = 0
    return data


def _model() -> ml_collections.ConfigDict:
    """Returns section "model": the network. `models.DeconvNet` says more about each key."""
    model = ml_collections.ConfigDict()
    model.num_classes = config_dict.placeholder(int)  # classes with background; None: as many as the data has
    model.width = 1.0  # factor on the channels of all convolutions and deconvolutions except fc6 and fc7
    model.decoder_width = 1.0  # further factor on the deconvolutions whose channels are not fixed by unpooling
    model.fc_features = 4096  # channels of fc6 and fc7
    # Side of fc6's window on the map after pool5. data.crop_size / 32 makes it see the whole crop.
    model.fc_window = 7
    # "gaussian": the original's decoder weights. "smooth": decoder weights that carry class signals to the output from
    # the first step on.
    model.decoder_init = "gaussian"
    # Where unpooling puts values: "indices" (where the maxima were, as in the paper), or for comparison "corner" (first
    # pixel of each 2x2 window) or "nearest" (all four pixels).
    model.unpooling = "indices"
    model.batch_norm = True  # False leaves batch normalisation out, for comparison
    model.bn_epsilon = 1e-5  # added to variances, above 0; the original's 1e-9 is too small for float32
    model.bn_momentum = 0.9  # share of the old value when running statistics are updated, from 0 and below 1
    model.dtype = "float32"  # dtype of the computation, or "bfloat16"; parameters and batch statistics stay float32
    return model


def _init() -> ml_collections.ConfigDict:
    """Returns section "init": initial weights of a training that does not start from a checkpoint (`init_from`)."""
    init = ml_collections.ConfigDict()
    # File of VGG-16's ImageNet weights: .pth, .h5, .npz, .safetensors or .caffemodel, also gs://BUCKET/NAME. None:
    # random weights.
    init.vgg16 = config_dict.placeholder(str)
    # True: batch normalisation starts with the scale and shift that keep VGG-16's features, computed on 32 training
    # images. False: scale 1 and shift 0.001, as in the original. Used with `vgg16` only.
    init.keep_features = False
    return init


def _optimizer() -> ml_collections.ConfigDict:
    """Returns section "optimizer": momentum SGD or AdamW, and its learning rates."""
    optimizer = ml_collections.ConfigDict()
    optimizer.name = (
        "sgd"  # "sgd": momentum SGD with Caffe's rules, the paper's. "adamw": AdamW, whose decay is decoupled
    )
    # Learning rate after the warm-up, above 0. The paper's 0.01 is for "sgd"; 1e-4 to 1e-3 are usual for "adamw".
    optimizer.learning_rate = 0.01
    # "step": the learning rate drops at the steps `drops`. "plateau": it drops when evaluations no longer improve.
    # "poly" and "cosine": it falls from the end of the warm-up to step `decay_steps`, in proportion to (1 - share of
    # these steps) ** power, or as half a cosine.
    optimizer.schedule = "step"
    # "step": steps at which the learning rate is multiplied by `drop_factor`, in ascending order. (): none.
    optimizer.drops = (9_000, 18_000)
    optimizer.drop_factor = 0.1  # "step" and "plateau": factor on the learning rate at each drop, between 0 and 1
    optimizer.plateau_metric = "pixel_accuracy"  # "plateau": the score that counts; or "mean_iou"
    optimizer.plateau_patience = 1  # "plateau": evaluations without improvement before a drop
    # "poly" and "cosine", which need it: step at which the learning rate reaches its end, usually `num_steps`; counted
    # from the start of the run and above `warmup_steps`. A config file can let it follow (docs/training.md).
    optimizer.decay_steps = 0
    optimizer.power = 0.9  # "poly": exponent of the fall, above 0; 1 is a straight line
    optimizer.end_factor = 0.0  # "poly" and "cosine": share of `learning_rate` that remains from `decay_steps` on
    # All schedules: steps at the start in which the learning rate rises in proportion to the step, up to its whole
    # value. 0: no warm-up.
    optimizer.warmup_steps = 0
    optimizer.momentum = 0.9  # "sgd": share of the velocity that each step keeps, from 0 and below 1
    optimizer.b1 = 0.9  # "adamw": share that the average of gradients keeps at each step, from 0 and below 1
    optimizer.b2 = 0.999  # "adamw": share that the average of squared gradients keeps at each step, from 0 and below 1
    optimizer.eps = 1e-8  # "adamw": added to the root of the averaged squares, above 0
    # Weight decay, from 0 to 1; not on biases. "sgd": factor on the weights that is added to the gradient. "adamw":
    # times the learning rate, the share by which kernels shrink at each step, independent of the gradient.
    optimizer.weight_decay = 5e-4
    optimizer.decay_bn = True  # "sgd": True: scale and shift of batch normalisation decay too; "adamw": they never do
    # "sgd": factor on the learning rate of biases; not on the shift of batch normalisation. "adamw": always 1.
    optimizer.bias_rate = 2.0
    # Factors on the learning rate of some layers, from 0: pairs (prefix of layer names, factor), for example
    # (("conv", 0.1), ("bn", 0.1)). The first prefix that fits a layer counts. (): none.
    optimizer.rates = ()
    # Prefixes of the names of layers whose parameters stay as initialised, for example ("conv1_", "bn1_"). (): none.
    optimizer.freeze = ()
    return optimizer


def _inference() -> ml_collections.ConfigDict:
    """Returns section "inference": how images are segmented. `inference.InferenceSettings` says more about each key."""
    inference = ml_collections.ConfigDict()
    # Which windows of an image the network sees: "paper" or "released" (proposals), "whole_image" or "sliding_window";
    # docs/inference.md describes them. An FCN-8s sees the whole image in all modes.
    inference.mode = "paper"
    inference.num_proposals = 50  # proposals per image that the network sees
    # How proposals are found: "network", "gradient", "selective_search" or "grid" (data.propose_boxes). Or a file of
    # experiments.prepare_data --proposals.
    inference.proposals = "network"
    inference.enlarge = 1.2  # factor on both sides of a proposal, before it is made square
    inference.aggregation = "max"  # score of a pixel over the windows that show it: "max" or "mean"
    inference.flip = False  # True: average with the scores of the mirrored windows; twice the work
    # Scales at which "whole_image" and "sliding_window" show the image, 0.25 to 4; the scores are averaged. (1.0,): its
    # own scale. The work grows with the square of each scale (docs/inference.md).
    inference.scales = (1.0,)
    inference.crf = "none"  # fully connected CRF on the scores: "none", "released" (the original's) or "usual"
    # Factor on the scores before the CRF, up to 100. 0: 4 for "usual" in modes with proposals, otherwise 1.
    inference.crf_sharpness = 0.0
    inference.ensemble_checkpoint = ""  # folder of a second network for an ensemble, in the paper FCN-8s; "": none
    inference.batch_size = 10  # windows that each device computes at once
    # Longest side in pixels at which images are segmented. Larger images are reduced, and their scores enlarged again.
    inference.max_side = 1024
    return inference
