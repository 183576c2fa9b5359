"""Every setting of an experiment with its meaning; the other configs derive from this one and change a few.

The values are the paper's stage 1 where it has them: section 4 of the paper, training/001_stage_1/solver.prototxt.

A new setting also needs its type and range in `KINDS` of settings.py, and the value that older runs used in `SINCE` of
deconvnet_jax/training/workdir.py. Name it in `HARMLESS` or `ACCEPTABLE` there if a run may resume with another value,
and in `OWN` of stages.py if stage 1 does not share it with stage 2.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    """The defaults, locked: a misspelt override is an error."""
    config = ml_collections.ConfigDict()
    config.seed = 0  # initial weights, order of examples, crops, flips
    config.num_steps = 20_000
    config.batch_size = 64  # crops a step, over all devices
    config.micro_batch = 0  # most crops that a device computes at once, gradients are added up; 0: its whole share
    # Crops that share batch statistics, on one device or over several; 0: those that a device computes at once.
    config.bn_group = 0
    config.caffe_gradients = False  # the loss as the mean of the groups' means, BN learns from the last group alone

    config.data = _data()
    config.model = _model()
    # Class balancing of the loss, from 0 (every pixel counts the same) to 1 (every class counts the same).
    # `data.balance` repeats windows of rare classes instead.
    config.class_balance = 0.0
    config.remat = False  # compute activations again instead of keeping them: less memory, a third more time
    config.all_reduce_dtype = "float32"  # or "bfloat16": of gradients on their way between devices

    config.init_from = config_dict.placeholder(str)  # checkpoint to go on from, of a training or imported; all layers
    config.init_from_step = config_dict.placeholder(int)  # its step; default: the one with the best evaluation
    config.init = ml_collections.ConfigDict()
    config.init.vgg16 = config_dict.placeholder(str)  # ImageNet VGG-16: .pth, .h5, .npz, .safetensors, .caffemodel
    config.init.keep_features = False  # let batch normalisation begin with VGG-16's own features; the original does not

    config.optimizer = optimizer = ml_collections.ConfigDict()
    optimizer.learning_rate = 0.01
    optimizer.schedule = "step"  # one of `training.SCHEDULES`; "plateau": drops when evaluations no longer improve
    optimizer.drops = (9_000, 18_000)  # "step": steps at which the learning rate is multiplied by `drop_factor`
    optimizer.drop_factor = 0.1  # "step" and "plateau": factor on the learning rate at each drop
    optimizer.plateau_metric = "pixel_accuracy"  # "plateau": the score that counts; or "mean_iou"
    optimizer.plateau_patience = 1  # "plateau": evaluations without improvement before a drop
    optimizer.momentum = 0.9
    optimizer.weight_decay = 5e-4
    optimizer.decay_bn = True  # scale and shift of batch normalisation decay too
    optimizer.bias_rate = 2.0  # learning rate of biases, relative
    optimizer.rates = ()  # pairs (prefix of layers, their learning rate, relative), e.g. (("conv", 0.1), ("bn", 0.1))
    optimizer.freeze = ()  # prefixes of layers that stay as initialised, e.g. ("conv1_", "bn1_")

    config.log_every = 10  # steps
    config.eval_every = 500  # steps, and at the end; 0: never
    config.eval_images = 0  # images of the evaluation split used while training; 0: all
    config.checkpoint_every = 500  # steps, and at the end; before every evaluation too

    config.calibrate = calibrate = ml_collections.ConfigDict()  # at the end: statistics measured anew, into
    calibrate.batches = 0  # WORKDIR/calibrated, over so many batches (the original: 500); 0: not
    calibrate.batch_size = 28  # crops each, rounded up to a multiple of the devices

    # How photographs are segmented after training. While training, evaluations do the same if that needs no proposals;
    # otherwise they show the network whole images.
    config.inference = _inference()

    config.profile = 0  # steps that JAX's profiler records into WORKDIR/profile, from the sixth on
    config.compilation_cache = config_dict.placeholder(str)  # folder of compiled programs; see docs/training.md
    return config.lock()


def _data() -> ml_collections.ConfigDict:
    """What to train on, and how crops are made of it."""
    data = ml_collections.ConfigDict()
    # the folder voc_root; or a name in data.DOWNLOADED, such as "voc2012", after experiments.prepare_data
    data.dataset = "voc_layout"
    data.voc_root = config_dict.placeholder(str)  # folder with JPEGImages, SegmentationClass, ImageSets
    # where TFDS keeps its copy, of downloaded data sets also gs://BUCKET/NAME; default as TFDS: ~/tensorflow_datasets
    data.data_dir = config_dict.placeholder(str)
    data.train_split = "train"
    data.eval_split = "val"
    data.windows = ("instance",)  # what to crop: one or several of "instance" (every object), "proposal", "image"
    data.proposals = config_dict.placeholder(str)  # file of proposals; default: that of experiments.prepare_data
    data.min_overlap = 0.5  # of a proposal with an object's box, intersection over union
    data.window_list = config_dict.placeholder(str)  # file of lines "image mask x1 y1 x2 y2"; replaces `windows`
    # Repeats windows of rare classes: 0 disables it, 1 repeats until all classes are equally frequent. `class_balance`
    # weighs pixels in the loss instead.
    data.balance = 0.0
    data.label_mode = "instance"  # "instance": the object's class alone, all else background; "all": every class
    data.resize_size = 250  # a window is resized to this square,
    data.crop_size = 224  # of which this is cut out: the network's input
    data.random_crop = True  # at a random place; otherwise the centre
    data.inside_image = False  # random places show as little as possible of what is beyond the image
    data.zoom = (1.0, 1.0)  # side of the resized square, times a random factor between these two
    data.mirror = True  # half of the crops are mirrored left to right
    data.cache_mb = 2048  # memory for decoded images
    data.crops_per_decode = 8  # so many windows of an image come near each other; times the number of hosts
    data.read_threads = 4  # prepare crops, in each worker
    # Processes that prepare crops. 0: threads of this one, faster up to about eight cores, because every worker has its
    # part of the cache only, and decodes for itself.
    data.workers = 0
    return data


def _model() -> ml_collections.ConfigDict:
    """The network: fields of `models.DeconvNet`, which says more about each."""
    model = ml_collections.ConfigDict()
    model.num_classes = config_dict.placeholder(int)  # with background; default: as many as the data has
    model.width = 1.0  # multiplies the width of all convolutions
    model.decoder_width = 1.0  # of deconvolutions once more, where no unpooling fixes their width
    model.fc_features = 4096  # width of fc6 and fc7
    model.fc_window = 7  # fc6's window on pool5: data.crop_size / 32 for one that sees the whole crop
    model.decoder_init = "gaussian"  # the original's; or "smooth": class signals reach the output at once
    model.unpooling = "indices"  # to where the maxima came from; for comparison "corner" or "nearest"
    model.batch_norm = True  # False: for comparison
    model.bn_epsilon = 1e-5
    model.bn_momentum = 0.9  # of the running averages of the batch statistics
    model.dtype = "float32"  # or "bfloat16": of the computation; parameters are float32
    return model


def _inference() -> ml_collections.ConfigDict:
    """Settings of `inference.InferenceSettings`, which says more about each."""
    inference = ml_collections.ConfigDict()
    inference.mode = "paper"  # which windows the network is shown: one of `inference.MODES`, docs/inference.md
    inference.num_proposals = 50
    inference.proposals = "network"  # how they are found (data.propose_boxes), or a file of experiments.prepare_data
    inference.enlarge = 1.2  # both sides of proposals, before they are squared
    inference.aggregation = "max"  # of the windows that show a pixel; or "mean"
    inference.flip = False  # average with the mirrored windows
    inference.crf = "none"  # or "released", "usual": a fully connected CRF at the end
    inference.crf_sharpness = 0.0  # factor on the scores before the CRF; 0: 4 for "usual" after proposals, else 1
    inference.ensemble_checkpoint = ""  # a second network, in the paper FCN-8s
    inference.batch_size = 10  # windows at once
    inference.max_side = 1024  # larger photographs are computed at this size
    return inference
