"""Bad input: one clear message with a way out, the right exit code, and nothing lost or half written."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

RANDOM = ["--weights", "random", "--target", "onnxruntime"]


def refused(result, code, *words):
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err
    assert "fix:" in result.err


def test_unknown_model(run, tmp_path):
    refused(run("build", "resnet55", "-o", tmp_path / "b"), 2, "no network 'resnet55'", "did you mean", "resnet50")


def test_unknown_target(run, tmp_path):
    words = ["build", "resnet20", "--weights", "random", "--target", "tensort", "-o", tmp_path / "b"]
    refused(run(*words), 2, "'tensort'", "tensorrt")


def test_a_backend_that_is_not_installed(run, tmp_path, monkeypatch):
    from dlcv_deploy import backends
    from dlcv_deploy.types import Ability

    backend = backends.get("tensorrt")
    why = "not installed; pip install 'dlcv-deploy[gpu]'"
    monkeypatch.setattr(backend, "ability", lambda: Ability("", why, why))
    words = ["build", "resnet20", "--weights", "random", "--target", "tensorrt", "-o", tmp_path / "b"]
    refused(run(*words), 3, "dlcv-deploy[gpu]")


def test_int8_without_images_or_table(run, tmp_path):
    result = run("build", "resnet20", "--int8", *RANDOM, "-o", tmp_path / "b")
    refused(result, 2, "INT8 needs images", "--calib DIR", "--calib random")


def test_random_calibration_is_marked(run, tmp_path):
    words = ["build", "resnet20", "--int8", *RANDOM, "--calib", "random", "--calib-count", "4", "--quality", "fast"]
    result = run(*words, "--allow-partial", "-o", tmp_path / "b.dlcv")
    assert result.code == 0, result.err
    assert "RANDOM CALIBRATION" in result.out
    assert "RANDOM CALIBRATION" in (tmp_path / "b.dlcv/report.md").read_text()


def test_calibrating_on_test_images_is_refused(run, tmp_path):
    result = run("build", "resnet20", "--int8", *RANDOM, "--calib", "cifar10", "-o", tmp_path / "b")
    refused(result, 2, "test images", "cifar10-train")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 cut off"])
def test_damaged_weights(run, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(run("build", "resnet20", "--weights", tmp_path / name, "-o", tmp_path / "b"), 5, name)


def test_weights_of_another_depth(run, tmp_path):
    import torch

    from dlcv_deploy.models.resnet import CifarResNet

    torch.save(CifarResNet(32).state_dict(), tmp_path / "w.pth")
    result = run("build", "resnet20", "--weights", tmp_path / "w.pth", "-o", tmp_path / "b")
    refused(result, 5, "unknown", "layer1.3.conv1.weight", "resnet32")


def test_nan_in_weights(run, tmp_path):
    import torch

    from dlcv_deploy.models.resnet import CifarResNet

    state = CifarResNet(20).state_dict()
    state["layer2.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "w.pth")
    result = run("build", "resnet20", "--weights", tmp_path / "w.pth", "-o", tmp_path / "b")
    refused(result, 5, "NaN", "layer2.0.conv1.weight")


def test_an_empty_folder(run, tmp_path):
    (tmp_path / "empty").mkdir()
    result = run("build", "resnet20", "--int8", *RANDOM, "--calib", tmp_path / "empty", "-o", tmp_path / "b")
    refused(result, 2, "no images in empty")


def test_a_corrupt_image_is_named_and_can_be_skipped(run, photos, tmp_path):
    import shutil

    folder = shutil.copytree(photos, tmp_path / "some")
    (folder / "007.png").write_bytes((folder / "007.png").read_bytes()[:100])
    words = ["build", "resnet20", "--int8", *RANDOM, "--calib", folder, "--calib-count", "40", "--quality", "fast"]
    refused(run(*words, "-o", tmp_path / "b.dlcv"), 5, "007.png", "--skip-bad")
    assert not (tmp_path / "b.dlcv").exists()
    result = run(*words, "--skip-bad", "--allow-partial", "-o", tmp_path / "b.dlcv", "--json")
    assert result.code == 0, result.err
    assert result.value["calibration"]["images"] == 39
    assert any("007.png" in warning for warning in result.value["warnings"])


def test_a_tampered_bundle(run, bundle, photos):
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(data)
    for words in (["inspect", bundle], ["bench", bundle], ["validate", bundle, "--data", photos]):
        refused(run(*words), 5, "model.onnx was altered")


def test_a_half_written_bundle(run, bundle):
    (bundle / "manifest.json").unlink()
    refused(run("inspect", bundle), 5, "is no bundle")


def test_validate_on_images_of_another_size(run, built, tmp_path):
    from PIL import Image

    (tmp_path / "d").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "d/a.png")
    refused(run("validate", built[0], "--data", tmp_path / "d"), 2, "32")


def test_a_gate_needs_labels(run, built, photos, tmp_path):
    import shutil

    (tmp_path / "d").mkdir()
    shutil.copy(photos / "000.png", tmp_path / "d/000.png")
    refused(run("validate", built[0], "--data", tmp_path / "d", "--max-drop", "1"), 2, "labels")


def test_weights_that_moved(run, bundle, photos, tmp_path):
    import json

    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "weights": str(tmp_path / "gone.pth")}))
    refused(run("validate", bundle, "--data", photos), 5, "gone.pth")
    assert run("validate", bundle, "--data", photos, "--crops", "1", "--weights", "random").code == 0


def test_no_write_permission(run, tmp_path, monkeypatch):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "locked").mkdir(mode=0o500)
    refused(run("build", "resnet20", *RANDOM, "-o", tmp_path / "locked/b"), 5, "may not write")


def test_a_folder_that_does_not_exist(run, tmp_path):
    result = run("build", "resnet20", *RANDOM, "-o", tmp_path / "no/such/b")
    refused(result, 5, "no/such", "make it first")
    assert "export" not in result.err  # refused before any work


def test_an_output_that_is_something_else(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    for force in ([], ["--force"]):
        refused(run("build", "resnet20", *RANDOM, "-o", tmp_path / "mine", *force), 5, "is no bundle")
    assert (tmp_path / "mine/thesis.tex").read_text() == "x"


def test_a_full_disk(tmp_path, cache):
    """The cache and the bundle on a disk of 300 KiB: a sentence, and nothing under the final name."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("cannot mount a small file system here")
    try:
        words = ["build", "resnet20", *RANDOM, "-o", str(disk / "b.dlcv")]
        done = command(words, cache)
        assert done.returncode == 5, done.stderr
        assert "No space left" in done.stderr
        assert "fix: free space" in done.stderr
        assert list(disk.iterdir()) == []
        done = command(["export", "resnet20", "--weights", "random", "-o", str(tmp_path / "x.onnx")], disk)
        assert done.returncode == 5, done.stderr
        assert "fix: free space" in done.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def command(words, cache):
    env = {**os.environ, "DLCV_CACHE": str(cache)}
    line = [sys.executable, "-m", "dlcv_deploy.cli", *map(str, words)]
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_stopped_at_any_time(tmp_path, photos, stop):
    """Stopped after 1, 2, 3 ... seconds: no bundle or a whole one, no process left, and a later run completes."""
    words = ["build", "resnet20", "--int8", *RANDOM, "--calib", str(photos), "--calib-count", "16", "--allow-partial"]
    for seconds in range(1, 14):
        path, cache = tmp_path / f"{seconds}.dlcv", tmp_path / f"cache{seconds % 3}"
        env = {**os.environ, "DLCV_CACHE": str(cache)}
        line = [sys.executable, "-m", "dlcv_deploy.cli", *words, "-o", str(path)]
        process = subprocess.Popen(
            line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        time.sleep(seconds)
        process.send_signal(stop)
        _, said = process.communicate(timeout=60)
        if process.returncode != 0:
            assert not path.exists() or command(["inspect", path], cache).returncode == 0  # stopped while it reported
            assert b"Traceback" not in said
            if stop == signal.SIGINT:  # CPython dies by the signal, 130 to a shell, where it passed through native code
                assert process.returncode in (130, -signal.SIGINT)
                assert path.exists() or b"interrupted; nothing was left half done" in said
        time.sleep(0.5)
        assert no_process_of_group(process.pid)
    done = command([*words, "-o", path], cache)
    assert done.returncode == 0, done.stderr
    assert command(["inspect", path], cache).returncode == 0


def no_process_of_group(pid):
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return True
    return False
