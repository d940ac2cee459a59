"""Layers are ranked by what each costs, and left in floating point where that pays."""

import itertools
import math

import numpy as np
import onnx
import pytest
from helpers import models

from dlcv_deploy.calibration.sensitivity import Layer, mixed, sensitivity
from dlcv_deploy.calibration.tournament import tournament
from dlcv_deploy.errors import SpecError, ToolError
from dlcv_deploy.export import from_proto
from dlcv_deploy.graph.qdq import quantizable, quantize
from dlcv_deploy.study import LayerDamage, Score
from dlcv_deploy.types import Corrections

IMAGES = 400
RNG = np.random.default_rng(0)
REFERENCE = np.stack([RNG.uniform(0.01, 1, IMAGES), np.zeros(IMAGES)], 1)  # class 0, by margins up to 1
LABELS = np.zeros(IMAGES, np.int64)


class Network:
    """Layers that each take something off the margin of class 0 when in INT8; an image flips where that uses it up."""

    def __init__(self, taken, macs=None, fixed=0.0):
        self.taken, self.fixed, self.asked = taken, fixed, []
        macs = macs or dict.fromkeys(taken, 100)
        self.layers = [Layer(node, f"net.{node}", macs[node]) for node in taken]

    def only(self, nodes):
        return self._graph([*nodes])

    def without(self, nodes):
        assert list(nodes) == sorted(nodes)
        self.asked.append(frozenset(nodes))
        return self._graph([node for node in self.taken if node not in nodes])

    def _graph(self, int8):
        if not int8 and not self.fixed:
            raise SpecError("nothing in net can be computed in int8: there are no such layers")
        return repr(sum(self.taken[node] for node in int8) + self.fixed).encode()

    @staticmethod
    def run(onnx):
        return REFERENCE - [float(onnx), 0]

    def ranked(self):
        return sensitivity(self.layers, self.only, self.run, REFERENCE, LABELS)

    def mixed(self, max_drop, **more):
        labels = more.pop("labels", LABELS)
        return mixed(self.ranked(), self.without, self.run, REFERENCE, labels, max_drop=max_drop, **more)

    def drop(self, nodes):
        taken = sum(self.taken[node] for node in self.taken if node not in nodes) + self.fixed
        return 100 * float((REFERENCE[:, 0] < taken).mean())


def test_layers_are_ranked_by_the_damage_each_does_alone():
    net = Network({"conv_1": 0.02, "conv_2": 0.3, "fc": 0.0, "conv_3": 0.05})
    ranked = net.ranked()
    assert [damage.node for damage in ranked] == ["conv_2", "conv_3", "conv_1", "fc"]
    assert (ranked[0].module, ranked[0].multiply_adds) == ("net.conv_2", 100)
    assert ranked[0].score.name == "net.conv_2"
    assert ranked[0].score.drop == net.drop({"conv_1", "fc", "conv_3"}) > 0
    assert ranked[3].score.flips == ranked[3].score.divergence == 0


def test_layers_of_equal_damage_stay_in_the_order_of_the_graph():
    assert [damage.node for damage in Network(dict.fromkeys("dbca", 0.1)).ranked()] == ["d", "b", "c", "a"]


def test_broken_answers_come_first_and_layers_that_cannot_last():
    def only(nodes):
        if nodes == ("alone",):
            raise SpecError("nothing in net can be computed in int8: a sum")
        return {"bad": b"nan", "fair": b"0.1", "refused": b"x"}[nodes[0]]

    def run(onnx):
        if onnx == b"x":
            raise ToolError("the runtime refused it")
        return Network.run(onnx)

    layers = [Layer(node, node, 1) for node in ("refused", "alone", "fair", "bad")]
    ranked = sensitivity(layers, only, run, REFERENCE)
    assert [damage.node for damage in ranked] == ["bad", "fair", "refused", "alone"]
    assert ranked[0].score.non_finite == IMAGES
    assert ranked[2].score.failed == "the runtime refused it"
    assert ranked[3].score.failed == "nothing in net can be computed in int8: a sum"


def test_nothing_is_left_in_float_where_nothing_is_lost():
    net = Network(dict.fromkeys("abcd", 1e-4))
    found = net.mixed(0.1)
    assert found.reached
    assert found.measure == "top-1"
    assert found.chosen.float_nodes == ()
    assert found.chosen.share_int8 == 1.0
    assert found.chosen.score.name == "all layers in INT8"
    assert found.curve[0] == found.chosen
    assert found.curve[-1].float_nodes == ("a", "b", "c", "d")
    assert found.curve[-1].share_int8 == 0.0
    assert found.curve[-1].score.drop == found.curve[-1].score.divergence == 0
    assert all(point.latency_ms is None for point in found.curve)


def test_the_most_damaging_layer_per_multiply_add_leaves_first():
    net = Network({"a": 0.1, "b": 0.1, "c": 0.002}, {"a": 900, "b": 50, "c": 50})
    bound = net.drop({"b"})
    found = net.mixed(bound)
    assert found.chosen.float_nodes == ("b",)
    assert found.chosen.float_modules == ("net.b",)
    assert found.chosen.share_int8 == 0.95
    assert found.chosen.score.drop == bound
    assert found.chosen.score.name == "1 of 3 layers in floating point"


def test_what_left_without_need_is_put_back():
    """Per multiply-add a goes first, but only b, which goes next, is the one that matters."""
    net = Network({"a": 0.02, "b": 0.3, "c": 0.0}, {"a": 1, "b": 1000, "c": 5000})
    ranked = net.ranked()
    assert ranked[0].node == "b"
    found = net.mixed(net.drop({"b"}))
    assert net.asked.index(frozenset("a")) < net.asked.index(frozenset("ab")) < net.asked.index(frozenset("b"))
    assert found.chosen.float_nodes == ("b",)


def test_the_largest_layer_is_put_back_first():
    """Three layers leave before the fourth suffices; then either c can come back, or a and b."""
    net = Network(
        {"a": 0.0504, "b": 0.0503, "c": 0.1006, "d": 0.3, "e": 0.0}, {"a": 10, "b": 10, "c": 50, "d": 900, "e": 9000}
    )
    assert [d.node for d in sorted(net.ranked(), key=lambda d: d.score.sqnr_db)] == ["d", "c", "a", "b", "e"]
    found = net.mixed(net.drop({"d"}) * 0.6)
    assert frozenset("abcd") - {"c"} in net.asked
    assert found.chosen.float_nodes == ("a", "b", "d")


def test_no_better_mixture_exists_where_damages_add_up():
    rng = np.random.default_rng(1)
    for _ in range(10):
        names = "abcdef"
        net = Network({n: float(rng.exponential(0.05)) for n in names}, {n: int(rng.integers(50, 60)) for n in names})
        bound = net.drop(set(names[:3]))
        found = net.mixed(bound)
        macs = {layer.node: layer.multiply_adds for layer in net.layers}
        costs = [
            sum(macs[n] for n in chosen)
            for size in range(7)
            for chosen in itertools.combinations(names, size)
            if net.drop(set(chosen)) <= bound
        ]
        chosen = sum(macs[n] for n in found.chosen.float_nodes)
        assert found.reached
        assert min(costs) <= chosen <= min(costs) + 60  # a greedy search: within a layer of the best
        assert found.chosen.score.drop <= bound


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_each_mixture_is_measured_once_and_their_number_is_bounded(count):
    names = [f"conv_{i:02}" for i in range(count)]
    net = Network({name: 0.01 + 0.001 * i for i, name in enumerate(names)})
    for bound in (0, 0.5, net.drop(set(names[count // 2 :])), 100):
        net.asked.clear()
        found = net.mixed(bound)
        assert len(net.asked) == len(set(net.asked)) == len(found.curve)
        assert len(net.asked) <= count + math.ceil(math.log2(count + 1)) + 7
        assert found.reached
        shares = [point.share_int8 for point in found.curve]
        assert shares == sorted(shares, reverse=True)
        assert shares[0] == 1
        assert shares[-1] == 0


def test_the_chosen_mixture_was_measured_even_where_noise_reigns():
    """Drops that have nothing to do with the layers: the answer still holds, and is the same each time."""

    def run(onnx):
        seed = int.from_bytes(onnx[-4:], "little")
        return REFERENCE - np.array([np.random.default_rng(seed).uniform(0, 0.2), 0])

    net = Network({f"n{i}": 0.01 + i * 1e-4 for i in range(12)})
    for bound in (2, 5, 10):
        results = [mixed(net.ranked(), net.without, run, REFERENCE, LABELS, max_drop=bound) for _ in range(2)]
        assert results[0] == results[1]
        assert results[0].reached
        assert results[0].chosen.score.drop <= bound
        assert results[0].chosen in results[0].curve


def test_the_best_reached_is_given_where_nothing_suffices():
    net = Network({"a": 0.1, "b": 0.2}, fixed=0.3)
    found = net.mixed(1.0)
    assert not found.reached
    assert found.chosen.float_nodes == ("a", "b")
    assert found.chosen.score.drop == net.drop({"a", "b"}) > 1


def test_without_labels_flips_are_counted():
    net = Network({"a": 0.1, "b": 0.001})
    bound = net.drop({"a"})
    found = net.mixed(bound, labels=None)
    assert found.measure == "flips"
    assert found.chosen.float_nodes == ("a",)
    assert found.chosen.score.drop is None
    assert found.chosen.score.flipped_percent == bound


def test_a_mixture_that_cannot_be_made_or_is_broken_does_not_hold():
    def without(nodes):
        if nodes == ("a",):
            raise SpecError("nothing in net can be computed in int8: b")
        return b"0.5" if "a" not in nodes else b"nan"

    layers = [LayerDamage(n, n, 1, Score(n, 1, 0, 0.0, sqnr_db=d)) for n, d in (("a", 10.0), ("b", 20.0), ("c", 30.0))]
    found = mixed(layers, without, Network.run, REFERENCE, LABELS, max_drop=1)
    assert found.curve[-1].float_nodes == ("a", "b", "c")
    assert found.curve[-1].score.non_finite == IMAGES
    assert not found.reached
    assert found.chosen.float_nodes == ()  # loses half, but answers
    failed = [point for point in found.curve if point.float_nodes == ("a",)]
    assert failed[0].score.failed == "nothing in net can be computed in int8: b"


def test_other_multiply_adds_count_where_they_are_told():
    net = Network({"a": 0.1, "b": 0.001}, {"a": 30, "b": 70})
    found = net.mixed(net.drop({"a"}), multiply_adds=200)
    assert found.curve[0].share_int8 == 0.5
    assert found.chosen.share_int8 == 0.35


def test_layers_without_multiply_adds():
    net = Network({"sum_1": 0.1, "sum_2": 0.001}, {"sum_1": 0, "sum_2": 0})
    found = net.mixed(net.drop({"sum_1"}))
    assert found.reached
    assert found.chosen.share_int8 == 0
    assert found.chosen.float_nodes == ("sum_1",)


@pytest.mark.parametrize("max_drop", [-0.1, math.nan, math.inf])
def test_a_drop_that_cannot_be_asked_for(max_drop):
    with pytest.raises(SpecError, match=f"no mixture can lose at most {max_drop} points"):
        Network({"a": 0.1}).mixed(max_drop)


def test_a_network_without_layers():
    for call in (
        lambda: sensitivity([], None, None, REFERENCE),
        lambda: mixed([], None, None, REFERENCE, max_drop=1),
    ):
        with pytest.raises(SpecError, match="no layer that can be in INT8"):
            call()


def test_a_network_with_one_bad_range():
    """The second convolution's range is a hundred times too wide: it is found, left in floating point, and loses."""
    proto = onnx.load_model_from_string(models.net())
    model, images = from_proto("net", proto, "0" * 64), models.images(24)
    names = [value.name for value in proto.graph.output]
    inner = quantizable(proto)
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner if name not in (*names, "x"))
    seen = {"x": images, **models.reference(proto.SerializeToString(), {"x": images})}
    fair = {name: float(np.abs(seen[name]).max()) for name in inner}
    wide = {**fair, "r": 100 * fair["r"]}
    nodes = quantize(model, fair).quantized
    assert nodes == ("conv1", "conv2", "fc")

    def graph(amax, float_nodes=()):
        return quantize(model, amax, Corrections(float_nodes=tuple(float_nodes))).model.onnx

    def run(data):
        return models.reference(data, {"x": images})["y"]

    layers = [Layer(node, node.upper(), 10) for node in nodes]
    ranked = sensitivity(layers, lambda only: graph(wide, set(nodes) - set(only)), run, seen["y"])
    assert ranked[0].module == "CONV2"
    assert ranked[0].score.sqnr_db < ranked[1].score.sqnr_db - 10
    found = mixed(ranked, lambda out: graph(wide, out), run, seen["y"], max_drop=0)
    assert found.chosen.float_nodes == ("conv2",)
    assert found.curve[-1].score.flips == 0
    result = tournament({"wide": lambda: graph(wide), "fair": lambda: graph(fair)}, run, seen["y"])
    assert result.winner == "fair"
