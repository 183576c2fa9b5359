"""Writes caffemodels with Google's protobuf library, for tests of the reader.

The messages are those of Caffe's caffe.proto, as far as a model file needs them.
"""

from functools import cache

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FIELD = descriptor_pb2.FieldDescriptorProto

# Numbers of the layer types in the older form.
V1_TYPES = {
    "Convolution": 4,
    "InnerProduct": 14,
    "Pooling": 17,
    "ReLU": 18,
    "SoftmaxWithLoss": 21,
    "Deconvolution": 39,
    "Crop": 40,
    "Unpooling": 42,
    "BN": 43,
    "WindowSegData": 47,
}


@cache
def messages():
    """Returns {name: class} of the messages."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe")

    def message(name, /, **fields):
        descriptor = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            added = descriptor.field.add(name=field, number=number)
            added.label = FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL
            if isinstance(kind, str):
                added.type, added.type_name = FIELD.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                added.type = kind
                if repeated and kind != FIELD.TYPE_STRING:
                    added.options.packed = True

    message("BlobShape", dim=(1, FIELD.TYPE_INT64, True))
    message(
        "BlobProto",
        num=(1, FIELD.TYPE_INT32, False),
        channels=(2, FIELD.TYPE_INT32, False),
        height=(3, FIELD.TYPE_INT32, False),
        width=(4, FIELD.TYPE_INT32, False),
        data=(5, FIELD.TYPE_FLOAT, True),
        diff=(6, FIELD.TYPE_FLOAT, True),
        shape=(7, "BlobShape", False),
        double_data=(8, FIELD.TYPE_DOUBLE, True),
        double_diff=(9, FIELD.TYPE_DOUBLE, True),
    )
    message("Param", num_output=(1, FIELD.TYPE_UINT32, False), pad=(3, FIELD.TYPE_UINT32, False))
    message(
        "V1LayerParameter",
        bottom=(2, FIELD.TYPE_STRING, True),
        top=(3, FIELD.TYPE_STRING, True),
        name=(4, FIELD.TYPE_STRING, False),
        type=(5, FIELD.TYPE_INT32, False),
        blobs=(6, "BlobProto", True),
        blobs_lr=(7, FIELD.TYPE_FLOAT, True),
        convolution_param=(10, "Param", False),
    )
    message(
        "LayerParameter",
        name=(1, FIELD.TYPE_STRING, False),
        type=(2, FIELD.TYPE_STRING, False),
        bottom=(3, FIELD.TYPE_STRING, True),
        top=(4, FIELD.TYPE_STRING, True),
        blobs=(7, "BlobProto", True),
        phase=(10, FIELD.TYPE_INT32, False),
        convolution_param=(106, "Param", False),
    )
    message(
        "NetParameter",
        name=(1, FIELD.TYPE_STRING, False),
        layers=(2, "V1LayerParameter", True),
        input=(3, FIELD.TYPE_STRING, True),
        input_dim=(4, FIELD.TYPE_INT32, True),
        layer=(100, "LayerParameter", True),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        descriptor.name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{file.package}.{descriptor.name}")
        )
        for descriptor in file.message_type
    }


def encode(layers, *, v1=True, shape=None, doubles=False, diffs=False):
    """Returns the bytes of a caffemodel.

    Args:
      layers: [(name, type as a word, [array, ...]), ...].
      v1: write the older form of layers.
      shape: write "shape" in blobs instead of num, channels, height, width. None does so in the newer form.
      doubles: write values as doubles.
      diffs: write gradients too.
    """
    net = messages()["NetParameter"](name="net", input=["data"], input_dim=[1, 3, 224, 224])
    for i, (name, kind, blobs) in enumerate(layers):
        layer = (net.layers if v1 else net.layer).add(
            name=name, type=V1_TYPES[kind] if v1 else kind, bottom=[f"blob{i}"], top=[f"blob{i + 1}"]
        )
        if blobs:
            layer.convolution_param.num_output = len(blobs[0])
        for values in blobs:
            _fill(layer.blobs.add(), values, shape=not v1 if shape is None else shape, doubles=doubles, diffs=diffs)
    return net.SerializeToString()


def _fill(blob, values, *, shape, doubles, diffs):
    if shape:
        blob.shape.dim.extend(values.shape)
    else:
        blob.num, blob.channels, blob.height, blob.width = (1,) * (4 - values.ndim) + values.shape
    (blob.double_data if doubles else blob.data).extend(values.ravel())
    if diffs:
        (blob.double_diff if doubles else blob.diff).extend(values.ravel() * 0 + 7)
