"""Weights from files, the catalogue and random numbers, and every way in which a file can be wrong."""

import dataclasses as dc
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from safetensors.torch import save, save_file  # noqa: E402

from dlcv_deploy.bundle import Bundle, Manifest  # noqa: E402
from dlcv_deploy.digest import sha256_file  # noqa: E402
from dlcv_deploy.errors import ArtifactError, SpecError  # noqa: E402
from dlcv_deploy.models import catalogue, weights  # noqa: E402
from dlcv_deploy.models.catalogue import NETWORKS, WEIGHT_SETS, network  # noqa: E402
from dlcv_deploy.models.importers.checkpoint import read_state  # noqa: E402
from dlcv_deploy.models.weights import load, weights_sha256  # noqa: E402
from dlcv_deploy.proof import original  # noqa: E402
from dlcv_deploy.types import TensorSpec  # noqa: E402

DATA = Path(os.environ.get("DLCV_DATA") or Path(__file__).parents[3] / "shared" / "data")
RESNET20 = network("resnet20")


@pytest.fixture(scope="module")
def random():
    return load(RESNET20, "random")


@pytest.fixture
def state(random):
    return {key: value.clone() for key, value in random.net.state_dict().items()}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DLCV_CACHE", str(tmp_path / "cache"))


def saved(tmp_path, value, name="w.pth"):
    path = tmp_path / name
    torch.save(value, path)
    return str(path)


def message(choice, net=RESNET20):
    with pytest.raises(ArtifactError) as e:
        load(net, str(choice))
    return str(e.value)


# --- files that fit ---


def test_every_format_gives_the_same_weights(tmp_path, state, random):
    save_file(state, tmp_path / "a.safetensors")
    bare = {key: value for key, value in state.items() if "num_batches" not in key}
    save_file(bare, tmp_path / "b.safetensors")
    torch.save(state, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    choices = [
        str(tmp_path / "a.safetensors"),
        str(tmp_path / "b.safetensors"),
        str(tmp_path / "old.bin"),
        saved(tmp_path, state, "plain.pth"),
        saved(tmp_path, state, "UPPER.PTH"),
        saved(tmp_path, bare, "bare.pt"),
        saved(tmp_path, {"state_dict": state, "epoch": 3}, "nested.th"),
        saved(tmp_path, {"model": state}, "model.pth"),
        saved(tmp_path, {"net": state, "step": 1}, "training.pth"),
        saved(tmp_path, {f"module.{k}": v for k, v in state.items()}, "parallel.pth"),
        saved(tmp_path, {f"module._orig_mod.{k}": v for k, v in state.items()}, "compiled.pth"),
        saved(tmp_path, dict(reversed(state.items())), "reversed.pth"),
        saved(tmp_path, {k: v.double() for k, v in state.items()}, "double.pth"),
        saved(tmp_path, {k: torch.nn.Parameter(v) for k, v in bare.items()}, "parameters.pth"),
        saved(tmp_path, {k: v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v
                         for k, v in state.items()}, "channels_last.pth"),
    ]  # fmt: skip
    for choice in choices:
        found = load(RESNET20, choice)
        assert found.weights_sha256 == random.weights_sha256, choice
        assert found.trained
        assert (found.source, found.accuracy, found.preprocess, found.note) == (choice, "", None, "")
        assert not found.net.training
        assert all(value.is_contiguous() for value in found.net.state_dict().values())


def test_the_network_answers_with_the_files_weights(tmp_path, state, random):
    x = torch.randn(2, 3, 32, 32)
    state["linear.bias"] += 1
    found = load(RESNET20, saved(tmp_path, state))
    with torch.inference_mode():
        torch.testing.assert_close(found.net(x), random.net(x) + 1)
    assert found.net.linear.weight.requires_grad


def test_half_weights_become_float32(tmp_path, state):
    found = load(RESNET20, saved(tmp_path, {k: v.half() for k, v in state.items() if "num" not in k}))
    assert found.net.conv1.weight.dtype == torch.float32
    assert torch.equal(found.net.conv1.weight, state["conv1.weight"].half().float())


def test_home_is_understood(tmp_path, state, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(tmp_path, state, "mine.pth")
    assert load(RESNET20, "~/mine.pth").source == str(tmp_path / "mine.pth")


# --- the digest ---


def test_digest_sees_every_part():
    def name(**state):
        return weights_sha256({key: torch.as_tensor(value) for key, value in state.items()})

    base = name(a=[1.0, 2.0], b=[3.0])
    assert base == name(b=[3.0], a=[1.0, 2.0])
    assert base == name(a=[1.0, 2.0], b=[3.0], num_batches_tracked=7)
    others = [
        name(a=[1.0, 2.5], b=[3.0]),
        name(a=[[1.0, 2.0]], b=[3.0]),
        name(a=[1.0], b=[2.0, 3.0]),
        name(a=[1.0, 2.0], c=[3.0]),
        name(a=[1.0, 2.0]),
        name(a=torch.tensor([1.0, 2.0]).view(torch.int32), b=[3.0]),
        name(a=torch.tensor([1.0, 2.0], dtype=torch.float64), b=[3.0]),
        name(a=[1.0, 2.0], b=[3.0], e=torch.empty(0)),
    ]
    assert len({base, *others}) == len(others) + 1


def test_digest_is_of_values_not_of_memory():
    x = torch.arange(6.0).reshape(2, 3)
    assert weights_sha256({"a": x.T}) == weights_sha256({"a": x.T.contiguous()}) != weights_sha256({"a": x})


# --- random ---


def test_random_is_the_same_everywhere(random):
    """Pinned: integer draws, scaled once, leave no rounding to the machine."""
    assert random.weights_sha256 == "349fbe6213fedeed46c672f3108fbefae641b69b2e12d4faf601f8698d6e34c2"
    assert load(RESNET20, "random").weights_sha256 == random.weights_sha256
    assert not random.trained
    assert "untrained" in random.note
    assert random.source == "random, seed 20"


def test_random_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load(RESNET20, "random")
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "resnet56", "alexnet"])
def test_random_answers_neither_vanish_nor_explode(name):
    net = network(name)
    found = load(net, "random").net
    x = torch.randn(4, *net.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = found(x)
    assert torch.isfinite(logits).all()
    assert 0.1 < logits.std() < 4
    assert logits.std(0).mean() > 0.02 * logits.std()  # they depend on the image


def test_random_filters_sum_to_zero(random):
    for key, value in random.net.state_dict().items():
        if value.dim() > 1:
            rows = value.flatten(1)
            assert rows.sum(1).abs().max() < 1e-4
            assert rows.var() * rows.shape[1] == pytest.approx(2.93, rel=0.15), key
        assert value.unique().numel() > 1 or "num_batches" in key


# --- the catalogue's ---


@pytest.mark.parametrize("name", [name for name in NETWORKS if not WEIGHT_SETS[name]])
def test_networks_without_published_weights(name):
    with pytest.raises(SpecError, match=rf"no trained weights of {name} are catalogued\n  fix: give --weights FILE"):
        load(network(name))


def test_no_network_and_no_cache(monkeypatch, tmp_path):
    def offline(url, name, sha256, progress):
        raise ArtifactError("cannot fetch it: Name or service not known", fix="connect to the network once")

    monkeypatch.setattr(weights, "download", offline)
    with pytest.raises(ArtifactError) as e:
        load(network("resnet18"))
    place = tmp_path / "cache/downloads/resnet18-f37072fd.pth"
    assert str(e.value) == (
        "the weights of resnet18 are not in the cache, and cannot fetch it: Name or service not known\n"
        f"  fix: connect to the network once; or put the file at {place}; or give --weights FILE "
        "(.pth, .safetensors, .onnx) or --weights random"
    )
    place.parent.mkdir(parents=True)
    place.write_bytes(b"something else")
    with pytest.raises(ArtifactError, match=f"{place} is there, but its SHA-256 does not begin with f37072fd"):
        load(network("resnet18"))


def test_a_file_put_into_the_cache_is_used(monkeypatch, tmp_path, state):
    path = tmp_path / "cache/downloads/w.pth"
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    published = catalogue.WeightSet(
        "resnet20",
        "mine",
        "w.pth",
        "http://127.0.0.1:1/w.pth",
        sha256_file(path)[:8],
        "BSD-3-Clause",
        "me",
        91.0,
        None,
        "x",
        dc.replace(catalogue.CIFAR10, canvas=48),
    )
    monkeypatch.setitem(weights.WEIGHT_SETS, "resnet20", (*WEIGHT_SETS["resnet20"], published))
    found = load(RESNET20, "Mine")
    assert (found.choice, found.preprocess) == ("mine", published.preprocess)
    assert found.source == "me, http://127.0.0.1:1/w.pth"
    assert (found.licence, found.accuracy, found.trained) == ("BSD-3-Clause", "top-1 91 % on x", True)


def test_bundled_weights_that_are_absent_or_altered(monkeypatch, tmp_path, state):
    monkeypatch.setattr(catalogue, "HERE", tmp_path)
    with pytest.raises(ArtifactError, match="this installation lacks its bundled weights of resnet20"):
        load(RESNET20)
    (tmp_path / "weights").mkdir()
    save_file(state, tmp_path / "weights/resnet20.safetensors")
    (bundled,) = WEIGHT_SETS["resnet20"]
    right = sha256_file(tmp_path / "weights/resnet20.safetensors")
    for digest in (right, ""):
        monkeypatch.setitem(weights.WEIGHT_SETS, "resnet20", (dc.replace(bundled, sha256=digest),))
        assert load(RESNET20).source == bundled.source
    monkeypatch.setitem(weights.WEIGHT_SETS, "resnet20", (dc.replace(bundled, sha256="0" * 64),))
    with pytest.raises(ArtifactError, match="was altered\n  fix: install dlcv-deploy again"):
        load(RESNET20)


@pytest.mark.parametrize("name", [name for name in NETWORKS if any(w.bundled for w in WEIGHT_SETS[name])])
def test_the_bundled_weights(name):
    bundled = WEIGHT_SETS[name][0]
    if not bundled.path.is_file():
        pytest.skip(f"{bundled.path.name} is not in this checkout")
    assert bundled.sha256 == sha256_file(bundled.path), "write the file's SHA-256 into the catalogue"
    assert bundled.path.stat().st_size < 6 << 20
    assert bundled.top1 is not None, "write the measured accuracy into the catalogue"
    found = load(network(name))
    assert found.trained
    assert (found.choice, found.preprocess) == (bundled.name, bundled.preprocess)
    assert found.accuracy.startswith(f"top-1 {bundled.top1:g} %")


def test_a_set_is_chosen_by_name(monkeypatch):
    asked = []

    def offline(url, name, sha256, progress):
        asked.append((url, sha256))
        raise ArtifactError("no network", fix="connect")

    monkeypatch.setattr(weights, "download", offline)
    for choice in (None, "IMAGENET1K_V1", "imagenet1k_v2"):
        with pytest.raises(ArtifactError, match="the weights of resnet50 are not in the cache"):
            load(network("resnet50"), choice)
    address = "https://download.pytorch.org/models/resnet50-{}.pth"
    assert asked == [(address.format(d), d) for d in ("0676ba61", "0676ba61", "11ad3fa6")]


@pytest.mark.parametrize(
    ("choice", "offer"),
    [("IMAGENET1K_V3", "did you mean IMAGENET1K_V2 or IMAGENET1K_V1?"), ("rnd", "did you mean random?"),
     ("xyz", "one of IMAGENET1K_V1, IMAGENET1K_V2, random, FILE")],
)  # fmt: skip
def test_a_set_that_is_not_known(choice, offer):
    with pytest.raises(SpecError) as e:
        load(network("resnet50"), choice)
    assert str(e.value) == f"no set of weights of resnet50 '{choice}'\n  fix: {offer}"


def test_preprocessing_of_each_set():
    v1, v2 = WEIGHT_SETS["resnet50"]
    assert (v1.preprocess.canvas, v2.preprocess.canvas) == (256, 232)
    assert v1.preprocess == catalogue.IMAGENET
    assert v2.preprocess == dc.replace(v1.preprocess, canvas=232)
    (inception,) = WEIGHT_SETS["googlenet-torchvision"]
    assert (inception.preprocess.mean, inception.preprocess.std) == ((0.5,) * 3, (0.5,) * 3)
    assert "232 resize" in v2.conditions


# --- BGR ---


def test_bgr_weights_are_turned(tmp_path, state, random):
    path = saved(tmp_path, state)
    turned, x = load(RESNET20, path, bgr=True), torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(turned.net(x), random.net(x.flip(1)), rtol=1e-5, atol=1e-6)
    state["conv1.weight"] = state["conv1.weight"].flip(1)
    assert turned.weights_sha256 == load(RESNET20, saved(tmp_path, state, "rgb.pth")).weights_sha256
    assert turned.weights_sha256 != random.weights_sha256
    assert turned.source == f"{path}, turned from BGR to RGB"
    assert turned.choice == path


def test_a_bundle_remembers_that_its_weights_were_turned(tmp_path, state):
    found = load(RESNET20, saved(tmp_path, state), bgr=True)
    manifest = Manifest(
        model="resnet20",
        precision="fp32",
        weights=found.choice,
        bgr=True,
        weights_sha256=found.weights_sha256,
        trained=True,
        preprocess=RESNET20.preprocess,
        inputs=(TensorSpec("input", (3, 32, 32)),),
        outputs=(TensorSpec("logits", (10,)),),
        classes=10,
        engines={},
        build_key="k",
        tool_version="0",
    )
    image = np.ones((1, 3, 32, 32), np.float32)
    image[:, 0] = 0
    with original(Bundle(tmp_path, manifest), None) as session, torch.inference_mode():
        answer = session.run({"input": image})["logits"]
        assert np.array_equal(answer, found.net(torch.from_numpy(image)).numpy())
    with pytest.raises(ArtifactError, match="was built from other weights"):
        original(Bundle(tmp_path, dc.replace(manifest, bgr=False)), None)


@pytest.mark.parametrize("choice", [None, "random", "cifar10"])
def test_bgr_is_for_files(choice):
    with pytest.raises(SpecError, match="--bgr is for files of weights"):
        load(RESNET20, choice, bgr=True)


# --- checkpoints of others ---


@pytest.mark.parametrize(("name", "file"), [("resnet20", "resnet20-12fca82f.th"), ("resnet32", "resnet32-d509ac18.th")])
def test_checkpoints_trained_by_others(name, file):
    path, images = DATA / "checkpoints/akamaster" / file, DATA / "cifar10/test.npz"
    if not path.is_file() or not images.is_file():
        pytest.skip(f"{path} and {images} are not both there; DLCV_DATA says where they are")
    found = load(network(name), str(path))
    with np.load(images) as archive:
        pixels, labels = torch.from_numpy(archive["images"][:400]), torch.from_numpy(archive["labels"][:400])
    x = (pixels / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        hits = (found.net(x.permute(0, 3, 1, 2)).argmax(1) == labels).sum().item()
    assert hits >= 0.90 * 400


# --- files that do not fit ---


def test_weights_of_another_network_are_recognized(tmp_path, state):
    text = message(saved(tmp_path, state), network("resnet32"))
    assert "does not hold the weights of resnet32\n  60 missing: layer1.3.conv1.weight, " in text
    assert ", layer1.3.bn2.running_var, and 50 more\n" in text
    assert text.endswith("fix: they are those of resnet20: name that")


def test_missing_unknown_and_misshapen_are_all_listed(tmp_path, state):
    del state["bn1.bias"]
    state["extra"] = torch.zeros(1)
    state["linear.weight"] = torch.zeros(100, 64)
    path = saved(tmp_path, state)
    assert message(path) == (
        f"{path} does not hold the weights of resnet20\n"
        "  1 missing: bn1.bias\n"
        "  1 unknown: extra\n"
        "  1 misshapen: linear.weight (100, 64), not (10, 64)\n"
        "  fix: name the network they belong to, or give --weights FILE (.pth, .safetensors, .onnx) or --weights random"
    )


def test_another_number_of_classes(tmp_path, state):
    state["linear.weight"], state["linear.bias"] = torch.zeros(100, 64), torch.zeros(100)
    text = message(saved(tmp_path, state))
    assert "\n  2 misshapen: linear.weight (100, 64), not (10, 64), linear.bias (100,), not (10,)\n" in text
    assert "fix: it answers with 100 classes: --labels FILE with their names" in text


def test_weights_that_are_not_finite(tmp_path, state):
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    state["bn1.running_var"][3] = float("inf")
    text = message(saved(tmp_path, state))
    assert "holds NaN or infinity in conv1.weight, bn1.running_var\n" in text


def test_values_that_overflow_float32(tmp_path, state):
    state["linear.bias"] = state["linear.bias"].double() + 1e300
    assert "holds NaN or infinity in linear.bias" in message(saved(tmp_path, state))


class Code:
    def __reduce__(self):
        return os.mkdir, (os.environ["DLCV_CACHE"] + "-was-here",)


def text_file(folder):
    (folder / "w.pth").write_text("these are no weights\n" * 100)
    return "w.pth"


def empty(folder):
    (folder / "w.pth").write_bytes(b"")
    return "w.pth"


def zipped(folder):
    with zipfile.ZipFile(folder / "w.pth", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    return "w.pth"


def page(folder):
    (folder / "w.safetensors").write_text("<!DOCTYPE html><title>Sign in</title>" + " " * 500)
    return "w.safetensors"


def holding(value):
    def write(folder):
        torch.save(value() if isinstance(value, type) else value, folder / "w.pth")
        return "w.pth"

    return write


BAD = {
    "absent": (lambda folder: "absent.pth", "there is no file"),
    "a folder": (lambda folder: (folder / "d.pth").mkdir() or "d.pth", "is a folder"),
    "empty": (empty, "is empty"),
    "text": (text_file, "is damaged, or is not a checkpoint of PyTorch"),
    "a zip": (zipped, "is damaged, or is not a checkpoint of PyTorch"),
    "a page": (page, "is damaged, or is not a safetensors file"),
    "a list": (holding([torch.zeros(1)]), "holds no state dict, but a list"),
    "a tensor": (holding(torch.zeros(3)), "holds no state dict, but a Tensor"),
    "nothing": (holding({}), "holds no state dict, but an empty dict"),
    "an empty nest": (holding({"state_dict": {}}), "holds no state dict, but an empty dict"),
    "words": (holding({"a": "b"}), "'a' is not a tensor, but a str"),
    "integers": (holding({"a": torch.zeros(2, dtype=torch.int8)}), "'a' is not plain numbers, but torch.int8 on cpu"),
    "sparse": (holding({"a": torch.eye(2).to_sparse()}), "torch.sparse_coo"),
    "no storage": (holding({"a": torch.zeros(2, device="meta")}), "on meta"),
    "twice": (holding({"a": torch.zeros(2), "module.a": torch.zeros(2)}), "holds 'a' twice"),
    "code": (holding(Code), "holds posix.mkdir, a Python object, and not tensors alone; objects are code"),
    "a module": (holding(torch.nn.Linear(1, 1)), "holds torch.nn.modules.linear.Linear, a Python object"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_files_that_hold_no_weights(tmp_path, case):
    write, expected = BAD[case]
    text = message(tmp_path / write(tmp_path))
    assert expected in text
    assert "\n  fix: " in text
    assert not Path(os.environ["DLCV_CACHE"] + "-was-here").exists()


def test_a_kind_of_file_that_is_not_known(tmp_path):
    (tmp_path / "w.h5").write_bytes(b"1")
    kinds = r"\.safetensors, \.pth, \.pt, \.th, \.bin, \.ckpt, \.onnx"
    with pytest.raises(SpecError, match=rf"w.h5 is no kind .*\n  fix: use {kinds}"):
        load(RESNET20, str(tmp_path / "w.h5"))


def as_bytes(kind):
    state = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.ones(3), "b": torch.zeros(2).half()}
    if kind == "safetensors":
        return save(state)
    file = io.BytesIO()
    torch.save({"state_dict": state, "epoch": 3}, file, _use_new_zipfile_serialization=kind == "pth")
    return file.getvalue()


KINDS = {kind: as_bytes(kind) for kind in ("pth", "th", "safetensors")}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_an_error_or_still_a_state_dict(tmp_path, kind, data):
    """Cut anywhere, or with some bytes altered: never a traceback."""
    content = bytearray(KINDS[kind])
    if data.draw(st.booleans(), "cut"):
        del content[data.draw(st.integers(1, len(content) - 1), "at") :]
    for _ in range(data.draw(st.integers(0, 3), "alterations")):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"w.{kind}"
    path.write_bytes(content)
    try:
        state = read_state(path)
    except ArtifactError as error:
        state, refusal = {}, error
    else:
        refusal = None
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert refusal is None or (str(path) in refusal.what and refusal.fix)
