"""ONNX files as others write them: the Model Zoo's layouts of AlexNet, GoogLeNet and ResNet, with drawn weights."""

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch import nn


class Writer:
    """A graph in the making; layers follow a module's shapes and settings, their weights are drawn."""

    def __init__(self, seed=0, *, listed=False):
        self.nodes, self.initializers = [], []
        self.rng, self.listed = np.random.default_rng(seed), listed

    def node(self, op, *inputs, outputs=1, **attributes):
        name = f"{op.lower()}_{len(self.nodes)}"
        outs = [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), outs, name=name, **attributes))
        return outs[0]

    def constant(self, array, name=None):
        name = name or f"w_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def drawn(self, *shape, about=0.0, spread=0.1):
        return (about + spread * self.rng.standard_normal(shape)).astype(np.float32)

    def filters(self, module):
        fan_in = module.weight[0].numel()
        return self.drawn(*module.weight.shape, spread=(2 / fan_in) ** 0.5)

    def conv(self, x, module, *, bias=True, strides=None):
        p = module.padding
        about = {
            "kernel_shape": list(module.kernel_size),
            "strides": list(strides or module.stride),
            "pads": [*p, *p],
            "group": module.groups,
        }
        weights = [self.constant(self.filters(module))]
        if bias:
            weights.append(self.constant(self.drawn(module.out_channels)))
        return self.node("Conv", x, *weights, **about)

    def norm(self, x, channels, *, eps=1e-5):
        vectors = [self.drawn(channels, about=about) for about in (1, 0, 0)]
        var = np.abs(self.drawn(channels, about=1))
        return self.node("BatchNormalization", x, *map(self.constant, (*vectors, var)), epsilon=eps)

    def dense(self, x, module):
        bias = self.constant(self.drawn(module.out_features))
        return self.node("Gemm", x, self.constant(self.filters(module)), bias, transB=1)

    def lrn(self, x, module):
        return self.node("LRN", x, size=module.size, alpha=module.alpha, beta=module.beta, bias=module.k)

    def pool(self, x, size, strides, pads=(0, 0, 0, 0)):
        return self.node("MaxPool", x, kernel_shape=[size] * 2, strides=[strides] * 2, pads=list(pads))

    def flat(self, x, features):
        """As Caffe2 writes it."""
        return self.node("Reshape", x, self.constant(np.array([-1, features])))

    def proto(self, answer, classes, size, *, opset=13):
        inputs = [helper.make_tensor_value_info("data_0", 1, ["N", 3, size, size])]
        if self.listed:  # as files before IR version 4 do
            inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in self.initializers]
        outputs = [helper.make_tensor_value_info(answer, 1, ["N", classes])]
        graph = helper.make_graph(self.nodes, "zoo", inputs, outputs, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model)
        return model


def alexnet(net, *, swapped=False, size=227):
    """bvlcalexnet: normalization before pooling, as in bvlc_alexnet; ``swapped``, as in CaffeNet."""
    w = Writer(listed=True)
    x = "data_0"
    for conv, norm in ((net.conv1, net.norm1), (net.conv2, net.norm2)):
        x = w.node("Relu", w.conv(x, conv))
        x = w.pool(x, 3, 2, (0, 0, 1, 1)) if swapped else w.lrn(x, norm)
        x = w.lrn(x, norm) if swapped else w.pool(x, 3, 2, (0, 0, 1, 1))
    for conv in (net.conv3, net.conv4, net.conv5):
        x = w.node("Relu", w.conv(x, conv))
    x = w.flat(w.pool(x, 3, 2, (0, 0, 1, 1)), net.fc6.in_features)
    for dense in (net.fc6, net.fc7):
        x = w.node("Dropout", w.node("Relu", w.dense(x, dense)), outputs=2)
    return w.proto(w.node("Softmax", w.dense(x, net.fc8), axis=1), net.fc8.out_features, size)


def googlenet(net, *, order=(3, 1, 0, 2)):
    """bvlc_googlenet; the branches of each Inception module stand in the file in any ``order``."""
    w = Writer()

    def relu(x, block):
        return w.node("Relu", w.conv(x, block.conv))

    def inception(x, block):
        branches = {}
        for i in order:
            y = x
            for layer in [getattr(block, f"branch{i + 1}")] if i == 0 else getattr(block, f"branch{i + 1}"):
                y = w.pool(y, 3, 1, (1, 1, 1, 1)) if isinstance(layer, nn.MaxPool2d) else relu(y, layer)
            branches[i] = y
        return w.node("Concat", *(branches[i] for i in range(4)), axis=1)

    x = w.lrn(w.pool(relu("data_0", net.conv1), 3, 2, (0, 0, 2, 2)), net.norm1)
    x = w.lrn(relu(relu(x, net.conv2), net.conv3), net.norm2)
    for stage in ("3a 3b", "4a 4b 4c 4d 4e", "5a 5b"):
        x = w.pool(x, 3, 2, (0, 0, 2, 2))
        for name in stage.split():
            x = inception(x, getattr(net, f"inception{name}"))
    x = w.node("AveragePool", x, kernel_shape=[7, 7], strides=[1, 1])
    x = w.dense(w.flat(w.node("Dropout", x, outputs=2), net.fc.in_features), net.fc)
    return w.proto(w.node("Softmax", x, axis=1), net.fc.out_features, 224)


def resnet(net, style="gluon", *, size=64, eps=1e-5):
    """A bottleneck ResNet: "gluon" with biases on its 1x1, "folded", or "caffe" with a scale after each norm."""
    w = Writer()

    def layer(x, conv, *, bias=False):
        if style == "folded":
            return w.conv(x, conv)
        x = w.norm(w.conv(x, conv, bias=bias), conv.out_channels, eps=eps)
        if style == "caffe":
            scale, shift = (w.constant(w.drawn(conv.out_channels, about=about)) for about in (1, 0))
            axes = w.constant(np.array([1, 2]))
            x = w.node("Mul", x, w.node("Unsqueeze", scale, axes))
            x = w.node("Add", x, w.node("Unsqueeze", shift, axes))
        return x

    def block(x, b):
        side = x if b.downsample is None else layer(x, b.downsample[0])
        y = w.node("Relu", layer(x, b.conv1, bias=style == "gluon"))
        y = w.node("Relu", layer(y, b.conv2))
        y = layer(y, b.conv3, bias=style == "gluon")
        sides = (side, y) if style == "gluon" else (y, side)
        return w.node("Relu", w.node("Sum" if style == "caffe" else "Add", *sides))

    x = w.pool(w.node("Relu", layer("data_0", net.conv1)), 3, 2, (1, 1, 1, 1))
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        for b in stage if isinstance(stage, nn.Sequential) else ():
            x = block(x, b)
    x = w.node("Flatten", w.node("GlobalAveragePool", x))
    return w.proto(w.dense(x, net.fc), net.fc.out_features, size)
