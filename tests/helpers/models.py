"""Tiny ONNX models, each as bytes, and what they should answer."""

import numpy as np
from onnx import helper, load_model_from_string, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

_HEAD = '<ir_version: 9, opset_import: ["" : 19, "away" : 1]>'


def model(text, **initializers):
    """A model from the text of its graph; ``float[N,3] x`` and the like. Initializers are arrays."""
    proto = parser.parse_model(f"{_HEAD}\n{text}")
    for name, array in initializers.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto.SerializeToString(deterministic=True)


def reference(onnx, feeds):
    """Outputs by name, computed by the reference implementation of the ONNX standard."""
    proto = load_model_from_string(onnx)
    values = ReferenceEvaluator(proto).run(None, feeds)
    return dict(zip([o.name for o in proto.graph.output], values, strict=True))


def weights(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(dtype)


def images(batch, seed=1):
    """(batch, 3, 8, 8)"""
    return np.random.default_rng(seed).normal(0, 1, (batch, 3, 8, 8)).astype("float32")


def linear(seed=0):
    """x (N, 6) -> y (N, 4), without a nonlinearity."""
    return model("g (float[N,6] x) => (float[N,4] y) { [fc] y = Gemm(x, w, b) }",
                 w=weights(6, 4, seed=seed), b=weights(4, seed=seed + 1))  # fmt: skip


def shifted():
    """y = x + b, for x (N, 6)."""
    return model("g (float[N,6] x) => (float[N,6] y) { [shift] y = Add(x, b) }", b=weights(6))


def two_inputs():
    """y = a @ w + b, for a (N, 6) and b (N, 4); and b twice, as z."""
    return model("g (float[N,6] a, float[N,4] b) => (float[N,4] y, float[N,4] z) "
                 "{ [mm] m = MatMul(a, w) [sum] y = Add(m, b) [twice] z = Add(b, b) }", w=weights(6, 4))  # fmt: skip


_NET = """g (float[N,3,8,8] x) => (float[N,5] y) {
  [conv1] c = Conv<pads=[1,1,1,1]>(x, w1, b1)
  [relu1] r = Relu(c)
  [conv2] d = Conv<strides=[2,2]>(r, w2)
  [relu2] s = Relu(d)
  [pool] p = GlobalAveragePool(s)
  [flat] f = Flatten(p)
  [fc] y = Gemm(f, w3)
}"""


def net():
    """x (N, 3, 8, 8) -> y (N, 5): two convolutions, pooling, a fully connected layer."""
    return model(_NET, w1=weights(8, 3, 3, 3), b1=weights(8), w2=weights(8, 8, 3, 3), w3=weights(8, 5))


def net_fp16():
    """``net`` with everything between its ends typed float16."""
    text = _NET.replace("Conv<pads=[1,1,1,1]>(x,", "Conv<pads=[1,1,1,1]>(h,").replace("y = Gemm", "g = Gemm")
    text = text.replace("{\n", "{\n  [to16] h = Cast<to=10>(x)\n").replace("}", "  [to32] y = Cast<to=1>(g)\n}")
    w = {"w1": weights(8, 3, 3, 3), "b1": weights(8), "w2": weights(8, 8, 3, 3), "w3": weights(8, 5)}
    return model(text, **{name: array.astype("float16") for name, array in w.items()})


def net_int8():
    """``net``'s two convolutions with explicit symmetric Q/DQ: per tensor at their inputs, per channel at weights."""
    text = """g (float[N,3,8,8] x) => (float[N,5] y) {
      [xq] x8 = QuantizeLinear(x, xs, z)        [xdq] xf = DequantizeLinear(x8, xs, z)
      [w1dq] w1f = DequantizeLinear<axis=0>(w1, w1s, z8)
      [conv1] c = Conv<pads=[1,1,1,1]>(xf, w1f)
      [relu1] r = Relu(c)
      [rq] r8 = QuantizeLinear(r, rs, z)        [rdq] rf = DequantizeLinear(r8, rs, z)
      [w2dq] w2f = DequantizeLinear<axis=0>(w2, w2s, z8)
      [conv2] d = Conv<strides=[2,2]>(rf, w2f)
      [relu2] s = Relu(d)
      [pool] p = GlobalAveragePool(s)
      [flat] f = Flatten(p)
      [fc] y = Gemm(f, w3)
    }"""
    made = {"w3": weights(8, 5), "xs": np.float32(4 / 127), "rs": np.float32(6 / 127), "z": np.int8(0)}
    made["z8"] = np.zeros(8, "int8")
    for name, w in (("w1", weights(8, 3, 3, 3)), ("w2", weights(8, 8, 3, 3))):
        scale = np.abs(w).max((1, 2, 3)) / 127
        made[name], made[name + "s"] = np.rint(w / scale[:, None, None, None]).astype("int8"), scale
    return model(text, **{name: np.asarray(array) for name, array in made.items()})


def lrn_net():
    """x (N, 3, 8, 8) -> y (N, 8, 4, 4): two convolutions, each with an LRN behind it, the first with a pool besides."""
    return model("""g (float[N,3,8,8] x) => (float[N,8,4,4] y) {
      [conv1] c = Conv<pads=[1,1,1,1]>(x, w1)
      [lrn1] l = LRN<size=5, alpha=0.05, beta=0.75, bias=2.0>(c)
      [pool1] p = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[0,0,1,1]>(l)
      [conv2] d = Conv<pads=[1,1,1,1]>(p, w2)
      [lrn2] y = LRN<size=3, alpha=0.05, beta=0.75, bias=1.0>(d)
    }""", w1=weights(8, 3, 3, 3), w2=weights(8, 8, 3, 3))  # fmt: skip


def _returning(onnx, cast=""):
    """A form of ``net`` that also answers with the map ``r``, which a convolution reads, and the features ``f``."""
    proto = load_model_from_string(onnx)
    for tensor, name, shape in (("r", "map", ["N", 8, 8, 8]), ("f", "features", ["N", 8])):
        proto.graph.node.append(helper.make_node(cast or "Identity", [tensor], [name], **({"to": 1} if cast else {})))
        proto.graph.output.append(helper.make_tensor_value_info(name, 1, shape))
    return proto.SerializeToString(deterministic=True)


def returning():
    return _returning(net())


def returning_fp16():
    return _returning(net_fp16(), cast="Cast")


def returning_int8():
    return _returning(net_int8())


def unknown_operator(domain=""):
    """A node ``odd`` whose operator nobody has."""
    return model(f"g (float[N,3] x) => (float[N,3] y) {{ [fine] t = Relu(x) [odd] y = {domain}Frobnicate(t) }}")


def fixed_batch(batch=1):
    return model(f"g (float[{batch},3] x) => (float[{batch},3] y) {{ [relu] y = Relu(x) }}")


def free_axes():
    return model("g (float[N,3,H,W] x) => (float[N,3,H,W] y) { [relu] y = Relu(x) }")


def concat_int8(after="", *, pairs=False):
    """x (N, 3, 8, 8) -> y (N, 8, 8, 8): two int8 convolutions, joined, quantized, and read by one that changes nothing.

    ``after`` is an operator between the Concat and the QuantizeLinear; ``pairs`` are on what is joined too.
    """
    joined = "cf, df" if pairs else "c, d"
    text = f"""g (float[N,3,8,8] x) => (float[N,8,8,8] y) {{
      [xq] x8 = QuantizeLinear(x, xs, z)        [xdq] xf = DequantizeLinear(x8, xs, z)
      [w1dq] w1f = DequantizeLinear<axis=0>(w1, w1s)   [w2dq] w2f = DequantizeLinear<axis=0>(w2, w2s)
      [conv1] c = Conv(xf, w1f)                 [conv2] d = Conv(xf, w2f)
      {"[cq] c8 = QuantizeLinear(c, ks, z)    [cdq] cf = DequantizeLinear(c8, ks, z)" if pairs else ""}
      {"[dq] d8 = QuantizeLinear(d, ks, z)    [ddq] df = DequantizeLinear(d8, ks, z)" if pairs else ""}
      [join] {"j" if after else "k"} = Concat<axis=1>({joined})
      {f"[after] k = {after}(j)" if after else ""}
      [kq] k8 = QuantizeLinear(k, ks, z)        [kdq] kf = DequantizeLinear(k8, ks, z)
      [w3dq] w3f = DequantizeLinear<axis=0>(w3, w3s)
      [conv3] y = Conv(kf, w3f)
    }}"""
    made = {"xs": np.float32(4 / 127), "ks": np.float32(2 / 127), "z": np.int8(0)}
    made |= {"w3": np.eye(8).reshape(8, 8, 1, 1).astype("int8") * np.int8(127), "w3s": np.full(8, 1 / 127, "float32")}
    for name, w in (("w1", weights(4, 3, 1, 1)), ("w2", weights(4, 3, 1, 1, seed=1))):
        scale = np.abs(w).max((1, 2, 3)) / 127
        made[name], made[name + "s"] = np.rint(w / scale[:, None, None, None]).astype("int8"), scale
    return model(text, **{name: np.asarray(array) for name, array in made.items()})
