"""validate --pixels: a pipeline of one's own, its distance from the contract, and what that costs."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def golden(built):
    return np.load(built[0] / "golden" / "inputs.npy")


@pytest.fixture
def check(run, built, tmp_path):
    def call(pixels, *words):
        np.save(tmp_path / "mine.npy", pixels)
        return run("validate", built[0], "--pixels", tmp_path / "mine.npy", *words)

    return call


def normalized(images, manifest):
    pre = manifest["preprocess"]
    x = (np.stack(images).astype(np.float64) / 255 - pre["mean"]) / pre["std"]
    return x.transpose(0, 3, 1, 2).astype(np.float32)


def test_a_bundle_holds_its_contract(run, built, golden):
    folder, manifest = built[0], json.loads((built[0] / "manifest.json").read_text())
    names = run("validate", folder, "--list").out.split()
    assert names == [name for name in sorted(manifest["files"]) if name.endswith(".png")]
    mine = normalized([np.asarray(Image.open(folder / name)) for name in names], manifest)
    assert np.abs(mine - golden).max() < 1e-5
    assert len(manifest["contract"]) == 4
    ort = pytest.importorskip("onnxruntime")
    logits = ort.InferenceSession(folder / "model.onnx").run(None, {manifest["inputs"][0]["name"]: golden})[0]
    original = np.load(folder / "golden" / "logits.npy")
    assert original.shape == logits.shape == (4, 10)
    assert np.abs(original - logits).max() < 0.3 * np.abs(original).max()  # INT8 beside fp32


def test_the_golden_inputs_themselves_pass(check, golden):
    result = check(golden)
    assert result.code == 0
    assert result.out.splitlines()[-1].startswith("passed: these are the contract's pixels, but for")
    value = check(golden + np.float32(0.001), "--json").value
    assert value["passed"] is True
    assert 0 < value["distance"]["max_levels"][0] < 1
    assert value["mistakes"] == []


def test_a_mistake_is_named_and_fails(check, golden):
    result = check(golden[:, ::-1])
    assert result.code == 1
    assert "explained by: channels swapped (BGR)\n" in result.out
    assert result.out.splitlines()[-1].startswith("FAILED")
    last = check(golden.transpose(0, 2, 3, 1), "--json")
    assert last.code == 1
    assert last.value["mistakes"][0].startswith("channels last")
    both = check(golden[:, ::-1].transpose(0, 2, 3, 1), "--json").value["mistakes"]
    assert [words[:13] for words in both] == ["channels last", "channels swap"]


def test_labelled_images_say_what_it_costs(check, run, built, photos):
    manifest = json.loads((built[0] / "manifest.json").read_text())
    names = run("validate", built[0], "--data", photos, "--list", "--json").value
    assert names == [f"{i:03}.png" for i in range(40)]
    mine = normalized([np.asarray(Image.open(photos / name)) for name in names], manifest)
    same = check(mine, "--data", photos, "--json").value
    assert same["passed"] is True
    assert [cost["name"] for cost in same["costs"]] == ["PyTorch fp32", "int8 on onnxruntime"]
    assert [(cost["flips"], cost["loss"]["drop"]) for cost in same["costs"]] == [(0, 0), (0, 0)]
    wrong = check(-mine, "--data", photos, "--json")
    assert wrong.code == 1
    assert wrong.value["mistakes"] == []  # none of the usual ones
    for cost in wrong.value["costs"]:
        loss = cost["loss"]
        assert cost["flips"] > 0
        assert loss["drop"] == pytest.approx(cost["top1_contract"] - cost["top1_pixels"])
        assert loss["drop"] == pytest.approx(100 * (loss["lost"] - loss["gained"]) / 40)
        assert loss["low"] <= loss["drop"] <= loss["high"]


def test_a_choice_of_images_has_the_order_that_is_printed(check, run, built, photos):
    manifest = json.loads((built[0] / "manifest.json").read_text())
    chosen = run("validate", built[0], "--data", photos, "--count", "5", "--list").out.split()
    assert len(chosen) == 5
    assert chosen != sorted(chosen)
    mine = normalized([np.asarray(Image.open(photos / name)) for name in chosen], manifest)
    assert check(mine, "--data", photos, "--count", "5").code == 0


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda x: x[:2], "holds tensors for 2 images, and there are 4"),
        (lambda x: x[:2].transpose(0, 2, 3, 1), "holds tensors for 2 images, and there are 4"),
        (lambda x: x[0], "is of shape (3, 32, 32), and the contract's is (4, 3, 32, 32)"),
        (lambda x: x[..., :31], "is of shape (4, 3, 32, 31)"),
        (lambda x: x.astype(np.float64), "holds float64"),
        (lambda x: (x * 0).astype(np.uint8), "holds uint8"),
        (lambda x: np.where(x == x[2, 0, 0, 0], np.float32("nan"), x), "holds NaN or infinity, first for image"),
        (lambda x: np.where(np.arange(4)[:, None, None, None] == 3, np.float32("inf"), x), "first for image 3"),
        (lambda x: np.array([None]), "it is no whole .npy file of numbers"),
    ],
)
def test_a_file_of_something_else_is_refused(check, golden, made, words):
    result = check(made(golden))
    assert result.code == 5
    assert words in result.err
    assert "fix:" in result.err


def test_a_file_that_cannot_be_read_is_refused(run, built, golden, tmp_path):
    np.savez(tmp_path / "x.npz", x=golden)
    np.save(tmp_path / "cut.npy", golden)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-4])
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "empty.npy").write_bytes(b"")
    expected = {
        "x.npz": "is an .npz",
        "cut.npy": "no whole .npy file",
        "text.npy": "no whole .npy file",
        "empty.npy": "no whole .npy file",
        "gone.npy": "No such file",
    }
    for name, words in expected.items():
        result = run("validate", built[0], "--pixels", tmp_path / name)
        assert (result.code, words in result.err) == (5, True), name


def test_options_that_do_not_go_together_are_refused(run, built, tmp_path, photos):
    assert run("validate", built[0]).code == 2
    assert "--data" in run("validate", built[0]).err
    assert run("validate", built[0], "--pixels", tmp_path / "x.npy", "--margin", "1").code == 2
    wrong = run("validate", built[0], "--data", "cifar10", "--truth", tmp_path / "x.csv")
    assert (wrong.code, "x.csv is to label a folder" in wrong.err) == (2, True)
    alone = run("build", "resnet20", "--weights", "random", "--truth", tmp_path / "x.csv", "-o", tmp_path / "b.dlcv")
    assert (alone.code, "add --data DIR" in alone.err) == (2, True)


def test_labels_may_be_elsewhere(run, built, photos, tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"{i:03}.png {i % 11}\n" for i in range(40)))
    for words in (["--pixels", tmp_path / "x.npy"], []):
        result = run("validate", built[0], *words, "--data", photos, "--truth", tmp_path / "list.txt")
        assert (result.code, "list.txt: label 10 of 010.png, and the network has 10 classes" in result.err) == (5, True)
