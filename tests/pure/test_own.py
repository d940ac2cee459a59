"""Networks of the user's own: made, tried, and refused in one sentence where they cannot be deployed."""

import os
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from dlcv_deploy.errors import ArtifactError, SpecError, ToolError
from dlcv_deploy.spec import BuildSpec, own_name

torch = pytest.importorskip("torch")
own = pytest.importorskip("dlcv_deploy.models.own")
catalogue = pytest.importorskip("dlcv_deploy.models.catalogue")
make = pytest.importorskip("dlcv_deploy.models.own.factory").make
select = pytest.importorskip("dlcv_deploy.models.outputs").select
export = pytest.importorskip("dlcv_deploy.export").export

HERE = Path(__file__).parents[1] / "helpers/own"
BAD = HERE / "bad.py"


def pre(size=32):
    return own.preprocess(BuildSpec("net.py:f", input_shape=(3, size, size)))


@pytest.fixture
def folder(tmp_path):
    """A copy of the small network, to change."""
    return shutil.copytree(HERE, tmp_path / "my nets", ignore=shutil.ignore_patterns("__pycache__"))


def line_of(text, file=BAD):
    """Where a line is."""
    return 1 + [line.strip() for line in file.read_text().splitlines()].index(text)


MADE = {
    "raise": "no factory in bad.py called 'raise'\n  fix: did you mean raises",
    "SIZE": "bad.py:SIZE is a value of type int, and cannot be called",
    "network": "bad.py:network is a network already\n  fix: name a class, or a function without arguments",
    "Needs": "bad.py:Needs needs the arguments width, classes",
    "leaves": "bad.py:leaves raised SystemExit: usage: train.py --epochs N",
    "state": "bad.py:state returns a value of type OrderedDict, and no torch.nn.Module",
    "pair": "bad.py:pair returns a tuple of Base, str, and no torch.nn.Module",
    "Lazy": "bad.py:Lazy returns a network whose fc.weight has no values yet",
    "Tuple": "answers with a tuple of 2 (a tensor of shape (1, 5); a tensor of shape (1, 3, 32, 32)), not with",
    "Dict": "answers with a dict with out, aux, not with one tensor",
    "Map": "answers to one image with a tensor of shape (1, 8, 32, 32), not with (1, classes)",
    "Score": "answers to one image with a tensor of shape (1, 1), not with (1, classes)",
    "Index": "answers with a tensor of int64 of shape (1, 1), not with logits",
    "ViewOne": "bad.py:ViewOne takes one image, but not three: its batch is fixed",
    "FlatOne": "bad.py:FlatOne has a fixed batch: to one image it answers with a tensor of shape (1, 5), to three with",
    "ViewFour": "fix: it takes a batch of 4 alone; keep the batch axis free",
    "Sized": "in big (Linear)",
    "Grey": "it takes images of one channel, and this tool prepares RGB",
    "Dropout": "bad.py:Dropout answers differently each time",
    "Batch": "bad.py:Batch answers differently beside other images",
}


@pytest.mark.parametrize("name", MADE)
def test_what_a_factory_makes_is_refused_in_words(name):
    with pytest.raises(SpecError) as refused:
        own.network(f"{BAD}:{name}", pre())
    assert MADE[name] in str(refused.value)
    assert "\n  fix: " in str(refused.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused():
    with pytest.raises(SpecError, match=r"bad\.py:script returns TorchScript"):
        own.network(f"{BAD}:script", pre())


def test_an_error_of_the_factory_keeps_its_last_lines():
    with pytest.raises(SpecError) as refused:
        own.network(f"{BAD}:raises", pre())
    said = str(refused.value).splitlines()
    assert said[0].startswith("bad.py:raises raised TypeError: ")
    assert (
        said[1]
        == f'  {BAD}, line {line_of("return helper(" + chr(34) + "x" + chr(34) + ")")}, in raises: return helper("x")'
    )
    assert said[2] == f"  {BAD}, line {line_of('return nn.Linear(8, width)')}, in helper: return nn.Linear(8, width)"


def test_another_input_is_offered():
    with pytest.raises(SpecError) as refused:
        own.network(f"{BAD}:Sized", pre())
    said = str(refused.value)
    assert "does not take a 3x32x32 image: RuntimeError" in said
    assert f"{BAD}, line {line_of('return self.big(self.conv(x).flatten(1))')}, in forward" in said
    assert said.endswith("fix: it takes 3x48x48: --input 3x48x48")
    assert own.network(f"{BAD}:Sized", pre(48)).classes == 5


FILES = {
    "def f(:\n    pass\n": "cannot be imported: SyntaxError: invalid syntax",
    "x = 1\nimport no_such_package\n": "imports no_such_package, which is not installed here",
    "1 / 0\n": "cannot be imported: ZeroDivisionError: division by zero",
    "import sys\nsys.exit(3)\n": "cannot be imported: SystemExit: 3",
    "_hidden = len\n": "no factory in net.py called 'f'",
}


@pytest.mark.parametrize("text", FILES)
def test_a_file_that_cannot_be_run(text, tmp_path):
    (tmp_path / "net.py").write_text(text)
    with pytest.raises(SpecError) as refused:
        make(f"{tmp_path}/net.py:f")
    assert FILES[text] in str(refused.value)
    if "called" not in FILES[text]:
        line = 2 if "\nsys" in text or "\nimport no" in text else 1
        assert f"{tmp_path}/net.py, line {line}" in str(refused.value)


def test_there_is_no_such_file_or_package(tmp_path):
    with pytest.raises(ArtifactError, match=r"there is no file .*/gone\.py"):
        make(f"{tmp_path}/gone.py:f")
    with pytest.raises(SpecError, match=r"there is no package no\.such"):
        make("no.such:f")


REQUESTS = {
    "net.py": "net.py does not say what makes the network\n  fix: net.py:NAME",
    "nets/": "nets/ does not say what makes the network",
    "net.py:": "'net.py:' names no factory",
    ":f": "':f' names no factory",
    "net.txt:f()": "'net.txt:f()' names no factory",
}


@pytest.mark.parametrize("model", REQUESTS)
def test_a_model_that_is_neither_a_name_nor_a_factory(model):
    with pytest.raises(SpecError) as refused:
        BuildSpec(model)
    assert REQUESTS[model] in str(refused.value)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 40)])
def test_an_input_that_is_no_square_rgb_image(shape):
    with pytest.raises(SpecError, match=f"{shape[0]}x{shape[1]}x{shape[2]} is no square RGB image"):
        BuildSpec("net.py:f", input_shape=shape)


def test_an_input_is_for_own_networks_and_they_need_one():
    with pytest.raises(SpecError, match="resnet20 is of the catalogue"):
        BuildSpec("resnet20", input_shape=(3, 32, 32))
    with pytest.raises(SpecError, match="--input 3xSxS"):
        own.preprocess(BuildSpec("net.py:f"))


def test_names_can_be_files():
    assert own_name("a b/my net.py:Small") == "my_net-Small"
    assert own_name("timm.models.resnet:resnet26") == "resnet-resnet26"
    assert BuildSpec("~/net.py:f", "fp16").path() == Path("net-f-fp16.dlcv")


def test_images_are_prepared_as_for_the_catalogues_networks():
    assert (pre(32).canvas, pre(32).fit, pre(64).canvas, pre(64).fit) == (40, "pad", 72, "pad")
    assert (pre(65).canvas, pre(65).fit, pre(224).canvas, pre(224).fit) == (74, "resize", 256, "resize")
    asked = BuildSpec("net.py:f", input_shape=(3, 32, 32), canvas=36, mean=(0.5, 0.5, 0.5))
    assert (own.preprocess(asked).canvas, own.preprocess(asked).fit) == (36, "resize")
    assert (own.preprocess(asked).mean, own.preprocess(asked).std) == ((0.5, 0.5, 0.5), catalogue.IMAGENET.std)
    with pytest.raises(SpecError, match="--canvas 31 is smaller than the network's input\n  fix: --canvas 32"):
        own.preprocess(BuildSpec("net.py:f", input_shape=(3, 32, 32), canvas=31))


def state_of_the_process():
    numbers = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    torchs = (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled(), torch.get_num_threads())
    return list(sys.path), list(sys.argv), os.getcwd(), numbers, torchs


def test_nothing_is_left_changed(folder, capsys):
    text = (folder / "small.py").read_text()
    more = "    torch.set_default_device('meta'); torch.set_grad_enabled(False); torch.set_num_threads(3)\n"
    (folder / "small.py").write_text(text.replace("def factory():\n", f"def factory():\n{more}"))
    before, modules = state_of_the_process(), set(sys.modules)
    with pytest.raises(SpecError, match="has no values yet"):
        make(f"{folder}/small.py:factory")
    assert state_of_the_process() == before
    (folder / "small.py").write_text(text)
    net, _ = make(f"{folder}/small.py:factory")
    assert state_of_the_process() == before
    assert "blocks" not in set(sys.modules) - modules
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert not net.training
    assert "imported []" in capsys.readouterr().out


def test_the_digest_follows_the_code_that_makes_the_network(folder):
    def code():
        return make(f"{folder}/small.py:factory")[1]

    (folder / "widths.py").write_text("NARROW = 16\n")
    (folder / "small.py").write_text("import widths\n" + (folder / "small.py").read_text())
    first = code()
    assert code() == first
    (folder / "bad.py").write_text("# not imported\n")
    assert code() == first
    shutil.copytree(folder, folder.parent / "elsewhere")
    assert make(f"{folder.parent}/elsewhere/small.py:factory")[1] == first
    for name in ("small.py", "blocks.py", "widths.py"):
        before, file = code(), folder / name
        file.write_text(file.read_text() + "# a change\n")
        assert code() != before


def test_a_factory_from_an_installed_package():
    network = own.network("dlcv_deploy.models.alexnet:CifarAlexNet", pre())
    assert (network.name, network.classes) == ("alexnet-CifarAlexNet", 10)
    assert "conv1.weight" in catalogue.build(network).state_dict()


def test_the_factorys_own_weights_are_trained_where_no_seed_changes_them():
    fixed, drawn = (own.load(own.network(f"{BAD}:{name}", pre())) for name in ("fixed", "drawn"))
    assert (fixed.trained, fixed.source) == (True, "the factory's own")
    assert not drawn.trained
    assert drawn.source == "the factory's own, seed 20; it draws 2 of 4 tensors, such as conv.weight"
    again = own.load(own.network(f"{BAD}:drawn", pre()))
    assert again.weights_sha256 == drawn.weights_sha256


def test_weights_from_a_file_by_exact_names(tmp_path, monkeypatch):
    monkeypatch.setattr("dlcv_deploy.models.importers.fitting._forms", dict)  # it would try the whole catalogue's
    network = own.network(f"{HERE}/small.py:Small", pre())
    state = {key: value.clone() for key, value in catalogue.build(network).state_dict().items()}
    state["head.bias"] += 1
    torch.save(state, tmp_path / "w.pth")
    loaded = own.load(network, str(tmp_path / "w.pth"))
    assert loaded.trained
    assert torch.equal(loaded.net.head.bias, state["head.bias"])
    assert loaded.net.inverted.deep[1].running_mean.device.type == "cpu"
    state["head.mystery"] = state.pop("head.bias")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ArtifactError) as refused:
        own.load(network, str(tmp_path / "w.pth"))
    assert "missing: head.bias" in str(refused.value)
    assert "unknown: head.mystery" in str(refused.value)


def test_random_weights_for_any_module():
    network = own.network(f"{HERE}/small.py:Small", pre())
    one, two = own.load(network, "random"), own.load(network, "random")
    assert not one.trained
    assert one.weights_sha256 == two.weights_sha256
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        answers = one.net(x)
    assert answers.isfinite().all()
    assert not torch.allclose(answers[0], answers[1])


def test_outputs_are_those_of_the_method():
    assert own.network(f"{HERE}/small.py:Small", pre()).outputs == ("logits",)
    assert own.network(f"{HERE}/small.py:Small", pre(), ("logits", "features")).outputs == ("logits", "features")
    with pytest.raises(SpecError, match="did you mean features"):
        own.network(f"{HERE}/small.py:Small", pre(), ("logits", "feature"))
    with pytest.raises(SpecError, match=r"no output of bad.py:fixed .*'features'"):
        own.network(f"{BAD}:fixed", pre(), ("logits", "features"))


OUTPUTS = {
    "Listed": "bad.py:Listed.outputs returns a list of 1",
    "Headless": "bad.py:Headless.outputs returns a dict with features",
    "Summed": "bad.py:Summed.outputs gives a tensor of shape () as 'features'",
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_method_that_gives_no_outputs(name):
    with pytest.raises(SpecError) as refused:
        own.network(f"{BAD}:{name}", pre(), ("logits", "features"))
    assert OUTPUTS[name] in str(refused.value)
    assert own.network(f"{BAD}:{name}", pre()).classes == 5  # a method that nobody asks does no harm


EXPORTED = {
    "Branches": ("computes otherwise for some images", "in body.1 (Gate)", "if x.sum() > 0:"),
    "Bessel": ("bessel_j0.default cannot be written as ONNX", "in inner (Inner)", "return torch.special.bessel_j0(x)"),
    "NumPy": (".numpy() is not supported", "(NumPy)", "return self.fc(torch.from_numpy(self.features(x).numpy()))"),
}


@pytest.mark.parametrize(("name", "further"), [*((n, ()) for n in EXPORTED), ("Bessel", ("features",))])
def test_a_refused_export_names_the_module_and_the_line(name, further, capfd):
    outputs = ("logits", *further)
    what, inside, line = EXPORTED[name]
    network = own.network(f"{BAD}:{name}", pre(), outputs)
    with pytest.raises(ToolError) as refused:
        export(network.name, select(catalogue.build(network), outputs), (3, 32, 32), outputs=outputs, weights_sha256="")
    said = str(refused.value)
    assert said.startswith(f"PyTorch could not export bad-{name}: ")
    assert what in said
    assert inside in said
    assert f"\n  {BAD}, line {line_of(line)}, in forward: {line}\n  fix: " in said
    assert refused.value.log == ""
    assert capfd.readouterr() == ("", "")


def test_a_batch_that_becomes_a_number():
    network = own.network(f"{BAD}:Number", pre())
    with pytest.raises(ToolError, match="its batch is fixed: the code makes a number of the batch size"):
        export(network.name, catalogue.build(network), (3, 32, 32), weights_sha256="")


TABLE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.tensor([2, 0, 1]))
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 4.0]), persistent=False)
        self.fc = nn.Linear(3, 4)

    def forward(self, x):
        return self.fc((x.mean((2, 3)) * self.scale)[:, self.table])
"""


def test_tables_among_the_weights_and_values_beside_them(tmp_path):
    (tmp_path / "net.py").write_text(TABLE)
    network = own.network(f"{tmp_path}/net.py:Net", pre())
    state = {**catalogue.build(network).state_dict(), "table": torch.tensor([1, 2, 0])}
    torch.save(state, tmp_path / "w.pth")
    loaded = own.load(network, str(tmp_path / "w.pth"))
    assert loaded.net.table.tolist() == [1, 2, 0]
    assert loaded.net.scale.tolist() == [1, 2, 4]
    assert own.load(network, "random").net.table.tolist() == [2, 0, 1]
    torch.save({**state, "table": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(ArtifactError, match=r"'table' is torch\.float32, and net-Net has torch\.int64 there"):
        own.load(network, str(tmp_path / "w.pth"))
