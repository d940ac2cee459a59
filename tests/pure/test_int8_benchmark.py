"""The comparison's own machinery on made-up children: rows, resuming, errors as rows, limits of a process, the page."""

import json
import math
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from dlcv_deploy.types import Preprocess

ROOT = Path(__file__).parents[2]
FP32 = np.array([[2.0, 0], [0, 2], [2, 0], [0, 2]])
INT8 = np.array([[2.0, 0], [2, 0], [2, 0], [0, 2]])
LABELS = [0, 1, 1, 1]


@pytest.fixture
def bench(monkeypatch):
    """The benchmark and its parts."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import int8
    from peers import case, child, quantizers, rows, score

    return types.SimpleNamespace(
        main=int8.main, int8=int8, case=case, child=child, q=quantizers, rows=rows, score=score
    )


@pytest.fixture
def children(bench, monkeypatch):
    """Children that answer at once: the tasks they were given; ``fail`` names quantizers that do not make it."""
    seen = types.SimpleNamespace(tasks=[], fail={}, reads=[])

    def run(task, arguments, *, most_bytes, timeout_s):
        name = arguments.get("quantizer", arguments.get("network", Path(arguments.get("model", "")).stem))
        seen.tasks.append((task, name))
        if task == "prepare":
            folder, tests = Path(arguments["folder"]), arguments["tests"]
            (folder / "fp32.onnx").touch()
            images = {"count": 4, "side": 2, "source": "made up", "labels": LABELS}
            about = {"network": name, "model": name, "weights_sha256": "", "calibration": images}
            pre = {"size": 2, "canvas": 2, "fit": "pad", "mean": [0, 0, 0], "std": [1, 1, 1]}
            (folder / "case.json").write_text(
                json.dumps({**about, "preprocess": pre, "test": images if tests else None})
            )
            return bench.child.Outcome({}, "", 1.0, 10)
        if task == "answer":
            np.save(arguments["out"], FP32 if name == "fp32" else INT8)
            return bench.child.Outcome({"int8_share": 0.5}, "", 1.0, 10)
        if name in seen.fail:
            return bench.child.Outcome({}, seen.fail[name], 2.0, 3_000_000)
        value = {"model": f"{arguments['out']}/int8.onnx", "seconds": 1.5, "cpu_seconds": 2.5, "size_bytes": 7}
        return bench.child.Outcome({**value, "peak_bytes": 5_000_000}, "", 2.0, 4_000_000)

    monkeypatch.setattr(bench.child, "run", run)
    monkeypatch.setattr(bench.q.Quantizer, "versions", lambda self: {self.package: "1"})
    return seen


def table(folder):
    return json.loads((folder / "int8.json").read_text())["rows"]


def test_a_row_has_what_was_measured(bench, children, tmp_path, capsys):
    bench.main(["--networks", "resnet20", "--tools", "nncf-fast", "--tests", "4", "--output", str(tmp_path)])
    (row,) = table(tmp_path)
    assert [task for task, _ in children.tasks] == ["prepare", "answer", "quantize", "answer"]
    assert {k: row[k] for k in ("network", "tool", "setting", "images", "tests", "error", "symmetric")} == {
        "network": "resnet20",
        "tool": "NNCF",
        "setting": "fast",
        "images": 512,
        "tests": 4,
        "error": "",
        "symmetric": False,
    }
    assert (row["top1_fp32"], row["top1"], row["loss"], row["flips"]) == (75.0, 50.0, 25.0, 1)
    assert (row["seconds"], row["cpu_seconds"], row["process_seconds"]) == (1.5, 2.5, 2.0)
    assert row["peak_bytes"] == 5_000_000  # the larger of what the child says and what was seen from outside
    assert row["int8_share"] == 0.5
    assert "1 flips, +25.00 points lost, 1.5 s, 5 MB" in capsys.readouterr().out


def test_another_run_goes_on_where_one_stopped(bench, children, tmp_path, monkeypatch):
    one = ["--networks", "resnet20", "--output", str(tmp_path), "--tools"]
    bench.main([*one, "nncf-fast"])
    del children.tasks[:]
    bench.main([*one, "nncf"])
    assert [name for task, name in children.tasks if task == "quantize"] == ["nncf-accurate"]
    del children.tasks[:]
    bench.main([*one, "nncf"])
    assert children.tasks == []
    bench.main([*one, "nncf-fast", "--again"])
    assert [name for task, name in children.tasks if task == "quantize"] == ["nncf-fast"]
    assert len(table(tmp_path)) == 2
    del children.tasks[:]
    monkeypatch.setattr(bench.q.Quantizer, "versions", lambda self: {self.package: "2"})
    bench.main([*one, "nncf-fast"])
    assert [name for task, name in children.tasks if task == "quantize"] == ["nncf-fast"]
    assert sorted(row["versions"]["nncf"] for row in table(tmp_path)) == ["1", "2"]
    commands = json.loads((tmp_path / "int8.json").read_text())["about"]["commands"]
    assert len(commands) == 3
    assert all(command in (tmp_path / "int8.md").read_text() for command in commands)


def test_what_fails_is_a_row_and_not_the_end(bench, children, tmp_path):
    children.fail["onnxruntime-int8-entropy"] = "out of memory: more than 12 GB"
    bench.main(["--networks", "resnet20", "--tools", "onnxruntime-int8", "--output", str(tmp_path)])
    assert [(row["setting"], row["error"]) for row in table(tmp_path)] == [
        ("int8-minmax", ""),
        ("int8-entropy", "out of memory: more than 12 GB"),
        ("int8-percentile", ""),
    ]
    page = (tmp_path / "int8.md").read_text()
    assert "| ONNX Runtime | int8-entropy | out of memory: more than 12 GB | - | - | - | - | - | - | - | 3 |" in page


def test_a_tool_that_is_not_installed_is_a_row_until_it_is(bench, children, tmp_path, monkeypatch):
    monkeypatch.setattr(bench.q.Quantizer, "versions", lambda self: {"openvino": "1"})
    run = ["--networks", "resnet20", "--tools", "nncf-fast", "--output", str(tmp_path)]
    bench.main(run)
    (row,) = table(tmp_path)
    assert row["error"] == "nncf is not installed"
    assert "quantize" not in dict(children.tasks)
    monkeypatch.setattr(bench.q.Quantizer, "versions", lambda self: {"openvino": "1", "nncf": "1"})
    bench.main(run)
    (row,) = table(tmp_path)
    assert row["error"] == ""


def test_nothing_heavy_is_imported_to_list_the_tools():
    code = "import sys, int8; print([m for m in ('torch', 'onnxruntime', 'openvino', 'nncf') if m in sys.modules])"
    where = ROOT / "benchmarks"
    told = subprocess.run([sys.executable, "-c", code], cwd=where, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_photographs_are_for_time_and_memory(bench, children, tmp_path):
    bench.main(
        ["--networks", "resnet50", "--tools", "dlcv-deploy-fast", "dlcv-deploy-methods", "--output", str(tmp_path)]
    )
    assert [(row["setting"], row["images"], row["tests"]) for row in table(tmp_path)] == [
        ("fast", 64, 0),
        ("methods", 64, 0),
        ("fast", 512, 0),
        ("methods", 512, 0),
    ]
    assert "answer" not in dict(children.tasks)
    assert "| dlcv-deploy | fast | 512 | 1.5 | 2.5 | 2.0 | 5 |" in (tmp_path / "int8.md").read_text()


def test_the_page_holds_this_project_against_the_best_peer(bench):
    def row(tool, setting, flips, symmetric=True, network="a"):
        key = {"network": network, "images": 512, "tests": 10_000, "tool": tool, "setting": setting}
        score = {"top1_fp32": 90.0, "top1": 89.9, "loss": 0.1, "interval": [-0.1, 0.3], "flips": flips, "kl": 0.00123}
        cost = {"seconds": 1.0, "cpu_seconds": 2.0, "process_seconds": 3.0, "peak_bytes": 1_234_000_000}
        return {**key, **score, **cost, "versions": {"x": "1"}, "error": "", "symmetric": symmetric, "int8_share": 1.0}

    rows = [
        row("ONNX Runtime", "int8-minmax", 100),
        row("NNCF", "fast", 80, symmetric=False),
        row("dlcv-deploy", "default", 60),
        row("ONNX Runtime", "int8-minmax", 50, network="b"),
        row("dlcv-deploy", "default", 60, network="b"),
    ]
    about = {"commands": ["run"], "machine": "M", "system": "S", "versions": {"x": "2"}}
    page = bench.rows.page(rows, about)
    assert "    run\n\nM. S. x 2 and 1.\n" in page
    cells = "90.00 -> 89.90 | +0.10 [-0.10, +0.30] | 60 | 1.23e-03 | 100.0 % | 1.0 | 2.0 | 1,234"
    assert f"| dlcv-deploy | default | {cells} |" in page
    whole, legal = page.split("## Beside the best that TensorRT takes")
    assert "| a, 512 images | 80 (+0.10): NNCF fast | 60 (+0.10): 0.75 |" in whole
    assert "| mean share | 1 | 0.97 |" in whole
    assert "| a, 512 images | 100 (+0.10): ONNX Runtime int8-minmax | 60 (+0.10): 0.60 |" in legal
    assert "| mean share | 1 | 0.90 |" in legal


def test_divergence_is_of_fp32_from_int8_in_nats(bench):
    one, other = np.log([[0.5, 0.5], [0.9, 0.1]]), np.log([[0.25, 0.75], [0.9, 0.1]])
    want = 0.5 * (0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75))
    assert bench.score.divergence(one + 7, other) == pytest.approx(want, rel=1e-12)


@pytest.fixture
def helper(bench, monkeypatch, tmp_path):
    """Runs one of four tasks of a made-up module in a real process."""
    (tmp_path / "made.py").write_text(
        "import json, os, sys, time\n"
        "task, answer, arguments = sys.argv[1:]\n"
        "print('last words', flush=True)\n"
        "if task == 'grow': held = bytearray(b'x') * 300_000_000\n"
        "if task == 'die': os.abort()\n"
        "if task in ('grow', 'sleep'): time.sleep(60)\n"
        "open(answer, 'w').write(json.dumps({'value': json.loads(arguments)}))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    limits = {"most_bytes": 200_000_000, "timeout_s": 30.0, "module": "made"}
    return lambda task, **more: bench.child.run(task, {"a": 1}, **{**limits, **more})


def test_a_child_answers(helper):
    done = helper("work")
    assert (done.value, done.error) == ({"a": 1}, "")
    assert done.seconds > 0


def test_a_child_that_holds_too_much_is_stopped(helper):
    done = helper("grow")
    assert done.error == "out of memory: more than 0.2 GB"
    assert 200_000_000 < done.peak_bytes < 400_000_000
    assert done.seconds < 30


def test_a_child_that_takes_too_long_is_stopped(helper):
    done = helper("sleep", timeout_s=0.5)
    assert done.error == "still at work after 0.5 s"


def test_a_child_that_dies_says_how(helper):
    assert helper("die").error == "killed by SIGABRT: last words"


def test_everyone_is_given_the_same_images(bench, tmp_path):
    """As this project's calibration makes them from single images, and the peers get them one by one."""
    from dlcv_deploy.parity.crops import canvas, crops, to_input

    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), np.uint8)
    pixels.tofile(tmp_path / "x.bin")
    images = bench.case.Images(tmp_path / "x.bin", 5, 6, "made up")
    pre = Preprocess(4, 6, "resize", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    case = bench.case.Case(tmp_path, "n", "m", "", pre, images, None)
    np.testing.assert_array_equal([images.image(i) for i in range(5)], pixels)
    with pytest.raises(IndexError):
        images.image(5)
    for i, image in enumerate(pixels):
        want = to_input(crops(canvas(image, pre), pre, 1), pre)
        np.testing.assert_array_equal(case.inputs(images, i, i + 1), want)
    assert len({images.digest_of(i) for i in range(5)}) == 5


@pytest.mark.slow
def test_the_quick_run_is_whole(need, tmp_path):
    """Real children, real tools: what is installed here."""
    for capability in ("torch", "onnxruntime", "openvino", "cifar10"):
        need(capability)
    tools = ["dlcv-deploy-fast", "onnxruntime-int8-minmax", "nncf-fast"]
    command = [sys.executable, str(ROOT / "benchmarks" / "int8.py"), "--quick", "--output", str(tmp_path), "--tools"]
    subprocess.run([*command, *tools], check=True, capture_output=True, text=True)
    rows = {row["tool"]: row for row in table(tmp_path)}
    assert len(rows) == 3
    for tool in ("dlcv-deploy", "ONNX Runtime"):
        assert rows[tool]["error"] == ""
        assert rows[tool]["flips"] < 20
        assert rows[tool]["int8_share"] == 1
        assert 50_000_000 < rows[tool]["peak_bytes"] < 2_000_000_000
    assert rows["NNCF"]["error"] in ("", "nncf is not installed")
