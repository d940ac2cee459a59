"""What can be shown without a GPU of the proofs and the benchmark that need one; nothing here says that they passed."""

import ctypes
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from helpers import host_gpu, host_trt, lrn_sanitized
from test_plugin_gpu import CUDA, clean, sanitized

from dlcv_deploy import backends, race
from dlcv_deploy.backends import _cuda
from dlcv_deploy.errors import ToolError
from dlcv_deploy.latency.values import Latency, Quantile
from dlcv_deploy.plugin import device, gpu, interface, toolchain
from dlcv_deploy.plugin.cases import Case, complaint
from dlcv_deploy.plugin.formats import FORMATS
from dlcv_deploy.plugin.library import Library

HERE = Path(__file__).parent
CASE = Case("fp32 linear", 5, (2, 8, 4, 6))
PROOFS = 85
"""Of test_plugin_gpu.py, those that need a GPU and are not slow."""


@pytest.fixture
def made(host_library):
    return host_gpu.HostGpu(host_library)


@pytest.fixture
def kernels(made):
    return device.DeviceKernels(made.library, made)


@pytest.fixture
def bench(monkeypatch):
    """The benchmark's two modules."""
    monkeypatch.syspath_prepend(str(HERE.parents[1] / "benchmarks"))
    import lrn_engines
    import lrn_on_gpu

    return types.SimpleNamespace(kernels=lrn_on_gpu, engines=lrn_engines)


def no_gpu_here():
    if not _cuda.no_gpu():
        pytest.skip("a GPU is here, so the proofs themselves run")


def test_the_proofs_are_collected_and_skipped_with_the_reason():
    no_gpu_here()
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-m", "gpu and not slow"]
    env = {name: value for name, value in os.environ.items() if name != "DLCV_REQUIRE"}
    done = subprocess.run(
        [*command, HERE / "test_plugin_gpu.py"],
        cwd=HERE.parents[1],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(rf"^{PROOFS} skipped", done.stdout, re.M), done.stdout
    reasons = {line.split(": ", 1)[1] for line in done.stdout.splitlines() if line.startswith("SKIPPED")}
    assert reasons == {f"needs gpu: {_cuda.no_gpu()}"}


def test_the_library_itself_says_what_is_wrong(plugin_library, made, tmp_path):
    """The one that is shipped, in memory that is no GPU's: up to the launch, and the launch's error."""
    no_gpu_here()
    path = tmp_path / "libdlcv_lrn.so"
    path.write_bytes(plugin_library.data)
    real = device.DeviceKernels(interface.load(path), made)
    numbers = (ctypes.c_float * 5)(1e-4, 0.75, 1, 0, 0)
    assert real.library.dlcv_problem(4, numbers, None, 0) == b"size must be odd: an even window has no centre"
    assert Case("fp32 linear", 4, (1, 8, 4, 4)).run(real, np.zeros((1, 8, 4, 4), np.float32)) is None
    with pytest.raises(ToolError, match=r"CUDA error (35 \(cudaErrorInsufficientDriver\)|100 \(cudaErrorNoDevice\))"):
        CASE.run(real, CASE.drawn())
    assert made.left == 0


@pytest.mark.parametrize("code", [701, 4242])
def test_a_launch_that_fails_is_said(host_library, code):
    broken = host_gpu.HostGpu(host_library, launch_error=code)
    words = {701: "CUDA error 701 (cudaErrorLaunchOutOfResources)", 4242: "CUDA error 4242 (see driver_types.h)"}
    with pytest.raises(ToolError, match=re.escape(words[code])):
        CASE.run(device.DeviceKernels(broken.library, broken), CASE.drawn())
    assert broken.left == 0


@pytest.mark.parametrize("offset", [0, 1, 2, 3])
def test_an_offset_is_one_of_addresses(made, offset):
    """Of both tensors, so that four pixels at once would be read and written where that is not allowed."""
    found = []

    def spied(x, y, *rest):
        found.extend((x % 16, y % 16))
        return made.library.dlcv_lrn(x, y, *rest)

    CASE.run(device.DeviceKernels(types.SimpleNamespace(dlcv_lrn=spied), made), CASE.drawn(), offset=offset)
    assert found == [4 * offset, 4 * offset]


@pytest.mark.parametrize("place", [-1, CASE.drawn().nbytes], ids=["before", "behind"])
def test_what_is_written_around_the_answer_is_found(made, place):
    def careless(x, y, *rest):
        code = made.library.dlcv_lrn(x, y, *rest)
        made.fill(y + place, 1, 1, rest[-1])
        return code

    with pytest.raises(ToolError, match="dlcv_lrn wrote outside its tensor"):
        CASE.run(device.DeviceKernels(types.SimpleNamespace(dlcv_lrn=careless), made), CASE.drawn())
    assert not complaint(CASE, CASE.drawn(), CASE.run(device.DeviceKernels(made.library, made), CASE.drawn()))


def test_the_make_believe_gpu_is_as_slow_as_a_real_one(kernels, made):
    """What is not waited for has not happened, and what a stream still needs cannot be given back."""
    (stream,) = made.streams(1)
    placed = kernels.place(CASE.drawn(), CASE.format, interface.Operator(**CASE.attributes))
    placed.send(stream)
    placed.launch(stream)
    with pytest.raises(AssertionError, match="given back while a stream is at work"):
        made.free(made.malloc(1))
    placed.close()
    start, end = made.event(), made.event()
    made.record(start, stream)
    with pytest.raises(AssertionError, match="has not happened"):
        made.elapsed_ms(start, end)
    memory, host = made.malloc(8), made.pinned(8)
    made.to_host(host, memory, stream)
    made.fill(memory, 1, 8, stream)
    assert np.all(host == 0x5A)
    with pytest.raises(AssertionError):
        made.fill(memory, 0, 9, stream)


def test_the_driver_is_called_by_its_header(need):
    """Every name and argument, in order."""
    need("nvcc")
    folders = (toolchain.find_nvcc().path.resolve().parents[1], CUDA)
    header = next((path for folder in folders if (path := folder / "include/cuda.h").is_file()), None)
    if header is None:
        pytest.skip("the CUDA toolkit here has no cuda.h")
    text, kinds = header.read_text(), {"int": ctypes.c_int, "size_t": ctypes.c_size_t, "unsigned char": ctypes.c_ubyte}
    kinds |= {"CUdeviceptr": ctypes.c_uint64, "CUdevice": ctypes.c_int, "CUdevice_attribute": ctypes.c_int}
    handles = {"CUcontext": ctypes.c_void_p, "CUstream": ctypes.c_void_p, "char *": ctypes.c_char_p}
    for name, signature in gpu._SIGNATURES.items():
        (given,) = set(re.findall(rf"\b{name}\(([^()]*)\);", text))
        words = [re.sub(r"\s*\w+$", "", word.strip()).strip() for word in given.split(",")]
        wanted = [{**kinds, **handles}.get(word) or (ctypes.c_void_p if word.endswith("*") else None) for word in words]
        assert list(signature) == wanted, (name, words)


def test_cudas_numbers():
    driver, runtime = (pytest.importorskip(f"cuda.bindings.{name}") for name in ("driver", "runtime"))
    kinds = driver.CUdevice_attribute
    assert kinds.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT == gpu._MULTIPROCESSORS
    assert kinds.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE == gpu._L2_BYTES
    assert {code: runtime.cudaError_t(code).name for code in device._ERRORS} == device._ERRORS


def test_a_gpu_by_its_driver(need, made, monkeypatch, tmp_path):
    need("gxx")
    library, compiler = tmp_path / "libcuda.so.1", toolchain.find_cxx()[0]
    source = HERE.parent / "helpers/libcuda.c"
    subprocess.run([compiler, "-x", "c", "-shared", "-fPIC", "-Werror", "-Wall", source, "-o", library], check=True)
    smi = tmp_path / "nvidia-smi"
    smi.write_text(
        '#!/bin/sh\necho "$1" > "$0.asked"\necho "Quadro, 575.1, 1500 MHz, [N/A], 2000 MHz, 9000 MHz, 70 W"\n'
    )
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(_cuda, "DRIVER", str(library))
    monkeypatch.setattr(_cuda, "device", lambda: made)
    monkeypatch.setattr(_cuda, "capability", lambda: 89)
    monkeypatch.setattr(made, "address", lambda handle: 0x1122334455667788)
    one = gpu.Gpu()
    assert (one.multiprocessors, one.l2_bytes) == (1016, 1038)
    about = one.about()
    assert about["nvidia_smi"] == {
        "name": "Quadro",
        "driver_version": "575.1",
        "clocks.sm": "1500 MHz",
        "clocks.mem": None,
        "clocks.max.sm": "2000 MHz",
        "clocks.max.mem": "9000 MHz",
        "power.draw": "70 W",
    }
    assert (tmp_path / "nvidia-smi.asked").read_text() == "--id=0000:03:00.0\n"
    assert (about["name"], about["capability"], about["cuda_of_driver"]) == ("GPU 3", 8.9, "13.2")
    a, b = np.arange(100, dtype=np.uint8), np.zeros(100, np.uint8)
    one.copy(b.ctypes.data, a.ctypes.data, 100, one.streams(2)[1])
    assert np.array_equal(a, b)
    one.fill(b.ctypes.data, 200, 99, one.streams(1)[0])
    assert np.array_equal(b, [200] * 99 + [99])
    monkeypatch.setattr(made, "address", lambda handle: 0)
    with pytest.raises(ToolError, match="cuMemsetD8Async gave CUDA error 400"):
        one.fill(b.ctypes.data, 0, 1, None)


def test_no_nvidia_smi_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(gpu.asked("0000:01:00.0").values()) == {None}
    smi = tmp_path / "nvidia-smi"
    for does in ("echo a, b", "exit 9"):
        smi.write_text(f"#!/bin/sh\n{does}\n")
        smi.chmod(0o755)
        assert set(gpu.asked("0000:01:00.0").values()) == {None}


def test_what_the_sanitizer_watches_is_right(kernels, made):
    assert lrn_sanitized.watched(kernels) == ""
    assert made.left == 0
    assert {(case.form, case.size) for case in lrn_sanitized.cases()} >= {(form, 15) for form in FORMATS}
    with pytest.raises(AssertionError):
        lrn_sanitized.past_the_end(kernels)


def test_what_the_sanitizer_watches_is_judged(made):
    real = made.library.dlcv_lrn
    wrong = types.SimpleNamespace(dlcv_lrn=lambda x, y, form, shape, size, *rest: real(x, y, form, shape, 3, *rest))
    assert "wrong, at" in lrn_sanitized.watched(device.DeviceKernels(wrong, made))


SANITIZER = """#!{python}
import subprocess, sys
assert sys.argv[1:5] == ["--tool", sys.argv[2], "--error-exitcode", "86"]
rest = sys.argv[5:]
if sys.argv[2] == "memcheck":
    assert rest[:2] == ["--padding", "1024"]
    rest = rest[2:]
interpreter, driver, library, *words = rest
subprocess.run([interpreter, "-c", f"import runpy; runpy.run_path({{driver!r}})"], check=True)
print("=========", "{summary}", library, words)
sys.exit({code})
"""


@pytest.mark.parametrize(
    ("tool", "summary", "code", "is_clean"),
    [
        ("memcheck", "ERROR SUMMARY: 0 errors", 0, True),
        ("racecheck", "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", 0, True),
        ("racecheck", "RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)", 0, False),
        ("memcheck", "ERROR SUMMARY: 3 errors", 86, False),
        ("initcheck", "ERROR SUMMARY: 0 errors", 1, False),
        ("synccheck", "Target application terminated before first instrumented API call", 0, False),
    ],
)
def test_how_the_sanitizer_is_called_and_read(tmp_path, tool, summary, code, is_clean):
    fake = tmp_path / "compute-sanitizer"
    fake.write_text(SANITIZER.format(python=sys.executable, summary=summary, code=code))
    fake.chmod(0o755)
    found = sanitized(tool, "the library", "--word", executable=str(fake))
    assert f"{summary} the library ['--word']" in found[1], found
    assert found[0] == code
    assert clean(*found) == is_clean


FLUSH = 1 << 16
MAPS = {"small": (5, 4, 6), "odd": (40, 5, 7)}


def test_the_benchmarks_figures_are_exact(bench, kernels, made):
    """On the make-believe GPU's clock."""
    watch = bench.kernels.Stopwatch(made, runs=4, warmup=1, flush_bytes=FLUSH)
    found = bench.kernels.measured(kernels, watch, maps=MAPS, batches=(1, 3))
    watch.close()
    assert made.left == 0
    assert found["method"] == {"runs": 4, "warmup": 1, "flush_bytes": FLUSH}
    assert found["copy"]["gb_per_s"] == 1.0  # PS_A_BYTE
    assert found["copy"]["median_us_before"] == found["copy"]["median_us_after"] == 2 * FLUSH / 1e3
    rows = found["kernels"]
    assert len(rows) == 2 * len(FORMATS) * len(MAPS) * 2
    for row in rows:
        us = 1 + 2 * row["bytes"] / 1e3  # LAUNCH_PS, SLOWNESS
        assert row["wrong"] == ""
        assert row["median_us"] == row["p90_us"] == row["least_us"] == pytest.approx(us, rel=1e-12)
        assert row["share"] == row["gb_per_s"] == pytest.approx(row["bytes"] / us / 1e3, rel=1e-12)
        assert row["copy_median_us"] == pytest.approx(row["bytes"] // 2 * 2 / 1e3, rel=1e-12)
    first = next(r for r in rows if (r["op"], r["format"], r["map"]) == ("DlcvLRNMaxPool", "fp16 kHWC8", "odd"))
    assert first["shape"] == (1, 40, 5, 7)
    assert first["bytes"] == 40 * 2 * (5 * 7 + 2 * 3)
    assert json.loads(json.dumps(found)) | {"kernels": 0} == found | {"kernels": 0}


def test_the_statistics_are_of_the_timed_runs_alone(bench, made, monkeypatch):
    spent = iter([9.0, 9.0, 4.0, 1.0, 3.0, 2.0, 5.0])
    monkeypatch.setattr(made, "elapsed_ms", lambda start, end: next(spent))
    order = []
    for name in ("fill", "record", "wait"):
        monkeypatch.setattr(made, name, lambda *given, name=name: order.append(name))
    watch = bench.kernels.Stopwatch(made, runs=5, warmup=2, flush_bytes=16)
    assert watch.us({"it": lambda: order.append("it")}) == {"it": (4000.0, 1000.0, 3000.0, 2000.0, 5000.0)}
    assert order == ["fill", "record", "it", "record", "wait"] * 7


def test_nothing_wrong_is_timed(bench, made):
    real = made.library.dlcv_lrn
    wrong = types.SimpleNamespace(dlcv_lrn=lambda x, y, form, shape, size, *rest: real(x, y, form, shape, 3, *rest))
    watch = bench.kernels.Stopwatch(made, runs=1, warmup=0, flush_bytes=FLUSH)
    rows = bench.kernels.kernel_rows(device.DeviceKernels(wrong, made), watch, {"small": (9, 4, 6)}, (1,))
    assert {(bool(row.wrong), row.median_us) for row in rows} == {(True, None)}
    x = np.ones((3, 4, 2, 2), np.float32)
    answer = np.arange(48, dtype=np.float32).reshape(x.shape)
    operator = interface.Operator(5, 1e-4, 0.75, 1.0)
    assert bench.kernels.wrong(answer, x, FORMATS["fp32 linear"], operator) == "equal images have other answers"


def test_every_row_fits_the_buffers_that_are_copied(bench):
    most = max(
        2 * c * h * w * max(bench.kernels.BATCHES) * FORMATS["fp32 linear"].itemsize
        for c, h, w in bench.kernels.MAPS.values()
    )
    assert most // 2 <= bench.kernels.FLUSH_BYTES


def test_the_benchmark_without_a_gpu_is_one_sentence(bench):
    no_gpu_here()
    with pytest.raises(SystemExit, match=r"^lrn_on_gpu times an NVIDIA GPU, and there is none to time here: no NVIDIA"):
        bench.kernels.main([])


def test_the_benchmark_from_end_to_end(bench, made, monkeypatch, tmp_path, capsys):
    library = Library(b"nothing", "10.14.1", (89,), "13.0", "0" * 64)
    monkeypatch.setattr(_cuda, "no_gpu", lambda: "")
    monkeypatch.setattr(_cuda, "no_binding", lambda: "")
    for name, value in {"Gpu": lambda: made, "load": lambda path: made.library, "MAPS": MAPS}.items():
        monkeypatch.setattr(bench.kernels, name, value)
    monkeypatch.setattr(bench.kernels, "FLUSH_BYTES", FLUSH)
    monkeypatch.setattr(bench.kernels, "BATCHES", (1,))
    monkeypatch.setattr(bench.kernels, "library_at", lambda path: library)
    monkeypatch.setattr(bench.engines, "TARGETS", ("host_trt",))
    monkeypatch.setattr(
        backends, "get", lambda name: types.SimpleNamespace(ability=lambda: host_trt.Ability("1", "", "no GPU"))
    )
    output = tmp_path / "found.json"
    bench.kernels.main(["--output", str(output), "--runs", "2"])
    found = json.loads(output.read_text())
    assert set(found) == {
        "schema", "gpu", "gpu_after", "library", "method", "copy", "kernels", "engines", "not_run"
    }  # fmt: skip
    assert found["gpu"]["name"] == "a GPU that is not there"
    assert found["library"]["sha256"] == library.sha256
    assert found["not_run"] == [{"what": "host_trt", "why": "no GPU"}]
    printed = capsys.readouterr().out
    assert "a GPU that is not there: a copy moves 1 GB/s (read and written)" in printed
    assert "| DlcvLRN | fp32 linear | small | 1 | 2.9 | 2.9 | 0 | 33 % | 1.0 |" in printed
    assert printed.endswith("not run: host_trt: no GPU\n")


@pytest.fixture
def pretend(monkeypatch, bench):
    monkeypatch.setattr(bench.engines, "TARGETS", ("host_trt",))
    for module in (race, bench.engines):
        monkeypatch.setattr(module, "BATCHES", (1,))
    monkeypatch.setattr(backends, "get", lambda name, get=backends.get: host_trt if name == "host_trt" else get(name))

    def times(native, plugin, pixels):
        rows = []
        for name, session in (("native", native), ("plugin", plugin)):
            for batch in (1,):
                session.run({session.inputs[0].name: pixels[:batch]})
                points = tuple(Quantile(p, ms, ms, ms) for p, ms in ((50, 2.0), (90, 3.0), (99, 4.0)))
                rows.append(Latency(name, batch, 7, 1.0, points, 5.0))
        return tuple(rows)

    monkeypatch.setattr(bench.engines, "times", times)


def test_engines_are_compared_and_timed(need, bench, pretend, host_library, monkeypatch):
    need("torch", "onnxruntime")
    data, tolerances = host_library.read_bytes(), []

    def compared(*given, check=bench.engines.check_alike):
        tolerances.append(given[-1])
        check(*given)

    monkeypatch.setattr(bench.engines, "check_alike", compared)
    found = bench.engines.engines(data, runs=1, networks={"alexnet-cifar10": None})
    assert found["not_run"] == []
    assert tolerances == [race.ALIKE[precision] for precision in ("fp32", "fp16", "int8")]
    rows = found["engines"]
    assert [(row["precision"], row["batch"], row["lrn"]) for row in rows] == [
        (precision, batch, lrn)
        for precision in ("fp32", "fp16", "int8")
        for batch in (1,)
        for lrn in ("native", "plugin")
    ]
    about = {
        "network": "alexnet-cifar10",
        "weights": "trained",
        "precision": "fp32",
        "target": "host_trt",
        "lrn": "native",
        "batch": 1,
    }
    figures = {"calls": 7, "p50_ms": 2.0, "p90_ms": 3.0, "compute_p50_ms": 1.0, "compute_p90_ms": 1.0}
    assert rows[0] == about | figures


def test_an_engine_that_answers_otherwise_has_no_times(bench, pretend, monkeypatch):
    def differs(*given, **more):
        raise ToolError("the answers differ")

    monkeypatch.setattr(bench.engines, "raced", differs)
    found = bench.engines.engines(b"", runs=1, networks={"alexnet": "random"})
    assert found["engines"] == []
    assert found["not_run"][2] == {"what": "alexnet in int8 by host_trt", "why": "the answers differ"}


def test_engines_take_turns_and_half_the_calls_are_not_counted(bench):
    calls = []

    def session(name, spent):
        return types.SimpleNamespace(
            run_timed=lambda feeds: calls.append(name) or types.SimpleNamespace(compute_ms=next(spent))
        )

    sessions = {"native": session("native", iter([9, 9, 1, 2])), "plugin": session("plugin", iter([8, 8, 3, 4]))}
    assert bench.engines.compute_ms(sessions, {}, 2) == {"native": (1, 2), "plugin": (3, 4)}
    assert calls == ["native", "plugin", "plugin", "native", "native", "plugin", "plugin", "native"]


@pytest.mark.gpu
def test_the_benchmark_runs_here(bench, tmp_path, monkeypatch, need):
    """The one test of this file that needs a GPU; none has run it yet."""
    need("nvcc", "gxx", "cmake", "tensorrt_headers")
    monkeypatch.setattr(bench.kernels, "MAPS", {"AlexNet norm2": (256, 27, 27)})
    output = tmp_path / "found.json"
    bench.kernels.main(["--output", str(output), "--runs", "20", "--kernels-only"])
    found = json.loads(output.read_text())
    assert all(row["wrong"] == "" and 0 < row["share"] < 2 for row in found["kernels"])
