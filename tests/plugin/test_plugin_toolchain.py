"""The compilers are found where they are, too old or broken ones are passed over, and all that is missing is named."""

from pathlib import Path

import pytest
from helpers.tools import CMAKE, GXX, NVCC, VERSION, Bench, headers, script

from dlcv_deploy.errors import MissingBackend, SpecError
from dlcv_deploy.plugin import toolchain


@pytest.fixture
def bench(tmp_path, monkeypatch):
    return Bench(tmp_path, monkeypatch)


def refusal(find):
    with pytest.raises(MissingBackend) as e:
        find()
    return e.value.what


def test_everything_that_is_missing_is_named_at_once(bench):
    with pytest.raises(MissingBackend) as e:
        toolchain.find_toolchain()
    assert e.value.what == (
        "the plugin cannot be compiled here: no nvcc, the CUDA compiler; no g++, the C++ compiler; no cmake; "
        "neither ninja nor make; no TensorRT headers (NvInfer.h)"
    )
    for fix in ("pip install 'dlcv-deploy[plugin]'", "apt install g++", "apt install cmake", "TENSORRT_ROOT"):
        assert fix in e.value.fix


def test_one_that_is_missing_is_named_alone(bench):
    bench.whole()
    (bench.bin / "g++").unlink()
    with pytest.raises(MissingBackend) as e:
        toolchain.find_toolchain()
    assert e.value.what == "the plugin cannot be compiled here: no g++, the C++ compiler"
    assert e.value.fix == "apt install g++, or set CXX to a C++ compiler"


def test_a_whole_toolchain_is_told_to_cmake(bench):
    tools = bench.whole() and toolchain.find_toolchain()
    assert (tools.nvcc.version, tools.cxx_version, tools.headers.version) == ("13.0.88", "12.2.0", "10.14.1")
    assert tools.generator == "Ninja"
    assert tools.definitions() == {
        "CMAKE_MAKE_PROGRAM": str(bench.bin / "ninja"),
        "CMAKE_CUDA_COMPILER": str(bench.bin / "nvcc"),
        "CMAKE_CUDA_HOST_COMPILER": str(bench.bin / "g++"),
        "CMAKE_CXX_COMPILER": str(bench.bin / "g++"),
        "DLCV_TENSORRT_INCLUDE": str(bench.folder / "usr/include"),
    }
    assert tools.environment() == {"LDFLAGS": "-s"}


def test_nvcc_is_looked_for_in_this_order(bench, monkeypatch):
    folder = bench.folder
    wheel = script(folder / "site/nvidia/cu13/bin/nvcc", NVCC)
    script(folder / "site/nvidia/cu12/bin/nvcc", NVCC.replace("13.0", "12.9"))
    assert toolchain.find_nvcc() == toolchain.Nvcc(wheel, "13.0.88", (75, 86, 90, 120), folder / "site/nvidia/cu13")
    for place in ("usr/local/cuda/bin/nvcc", "bin/nvcc", "path/bin/nvcc", "home/bin/nvcc"):
        path = script(folder / place, NVCC)
        monkeypatch.setenv("CUDA_PATH", str(folder / "path"))
        monkeypatch.setenv("CUDA_HOME", str(folder / "home"))
        found = toolchain.find_nvcc()
        assert (found.path, found.home) == (path, None)


def test_the_wheels_say_where_their_libraries_are(bench, monkeypatch):
    bench.whole()
    (bench.bin / "nvcc").unlink()
    home = bench.folder / "site/nvidia/cu13"
    script(home / "bin/nvcc", NVCC)
    tools = toolchain.find_toolchain()
    assert tools.definitions()["CUDAToolkit_ROOT"] == str(home)
    assert tools.definitions()["CUDA_CUDART"] == str(home / "lib/libcudart_static.a")
    assert tools.environment() == {"LDFLAGS": "-s", "NVCC_APPEND_FLAGS": f'-L"{home}/lib"'}
    monkeypatch.setenv("LDFLAGS", "-Lx")
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-O1")
    assert tools.environment() == {"LDFLAGS": "-Lx -s", "NVCC_APPEND_FLAGS": f'-O1 -L"{home}/lib"'}


def test_an_nvcc_that_does_not_serve_is_passed_over(bench, monkeypatch):
    good = script(bench.folder / "usr/local/cuda/bin/nvcc", NVCC)
    old = NVCC.replace("13.0", "11.4")
    for body in (old, "echo broken; exit 1", NVCC.replace("--list-gpu-arch", "--other"), "exec /no/such/program"):
        bench.put("nvcc", body)
        assert toolchain.find_nvcc().path == good
    (bench.bin / "nvcc").chmod(0o644)
    assert toolchain.find_nvcc().path == good
    monkeypatch.setenv("CUDA_HOME", str(bench.folder / "nowhere"))
    assert toolchain.find_nvcc().path == good


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (NVCC.replace("13.0", "11.4"), "is nvcc 11.4.88, older than 11.8"),
        ("echo; echo ' license expired '; exit 1", "does not run: license expired"),
        ("exit 0", "does not run: it printed nothing"),
        (NVCC.replace("--list-gpu-arch", "--other"), "does not say which architectures it knows"),
    ],
)
def test_an_nvcc_that_is_the_only_one_says_why_not(bench, body, what):
    path = bench.put("nvcc", body)
    assert refusal(toolchain.find_nvcc) == f"{path} {what}"


def test_a_program_for_another_processor_does_not_run(bench):
    path = bench.put("nvcc", "")
    path.write_bytes(b"\x7fELF\x02\x01\x01\x00 for something else")
    assert refusal(toolchain.find_nvcc) == f"{path} does not run: Exec format error"


def test_a_silent_program_is_not_waited_for(bench, monkeypatch):
    monkeypatch.setattr(toolchain, "_ASK_TIMEOUT_S", 0.2)
    path = bench.put("nvcc", "exec /bin/sleep 60")
    assert refusal(toolchain.find_nvcc) == f"{path} does not run: it was silent for 0.2 s"


def test_cxx_chooses_the_compiler(bench, monkeypatch):
    bench.put("g++", GXX)
    other = bench.put("c++-13", GXX.replace("12.2.0", "13.1.0"))
    assert toolchain.find_cxx() == (bench.bin / "g++", "12.2.0")
    monkeypatch.setenv("CXX", "c++-13")
    assert toolchain.find_cxx() == (other, "13.1.0")
    monkeypatch.setenv("CXX", "clang++")
    assert refusal(toolchain.find_cxx) == "CXX names 'clang++', which is no program on PATH"


def test_a_newer_cmake_beside_python_is_taken(bench):
    old = bench.put("cmake", CMAKE.replace("3.25", "3.16"))
    assert refusal(toolchain.find_cmake) == f"{old} is cmake 3.16.1, older than 3.20"
    new = script(bench.folder / "python/cmake", CMAKE)
    assert toolchain.find_cmake() == new
    old.unlink()
    assert toolchain.find_cmake() == new


def test_make_serves_where_ninja_is_missing(bench):
    bench.whole()
    (bench.bin / "ninja").unlink()
    bench.put("make", "exit 1")
    tools = toolchain.find_toolchain()
    assert (tools.maker, tools.generator) == (bench.bin / "make", "Unix Makefiles")
    beside = script(bench.folder / "python/ninja", "exit 1")
    assert toolchain.find_maker() == beside


def test_headers_are_looked_for_in_this_order(bench, monkeypatch):
    assert refusal(toolchain.find_headers) == "no TensorRT headers (NvInfer.h)"
    system = headers(bench.folder / "usr/include")
    assert toolchain.find_headers() == toolchain.Headers(system, "10.14.1")
    sdk = headers(bench.folder / "sdk/include", VERSION.replace("ENTERPRISE 10", "ENTERPRISE 11"))
    monkeypatch.setenv("TENSORRT_ROOT", str(bench.folder / "sdk"))
    assert toolchain.find_headers() == toolchain.Headers(sdk, "11.14.1")
    own = headers(bench.folder / "own", VERSION.replace("14", "8"))
    monkeypatch.setenv("DLCV_TENSORRT_INCLUDE", str(own))
    assert toolchain.find_headers() == toolchain.Headers(own, "10.8.1")


def test_a_variable_that_points_nowhere_is_an_error(bench, monkeypatch):
    headers(bench.folder / "usr/include")
    nowhere = bench.folder / "nowhere"
    monkeypatch.setenv("TENSORRT_ROOT", str(nowhere))
    assert refusal(toolchain.find_headers) == (
        f"TENSORRT_ROOT is {nowhere}, but {nowhere}/include holds no TensorRT headers"
    )
    monkeypatch.setenv("DLCV_TENSORRT_INCLUDE", str(nowhere))
    assert refusal(toolchain.find_headers) == (
        f"DLCV_TENSORRT_INCLUDE is {nowhere}, but {nowhere} holds no TensorRT headers"
    )


@pytest.mark.parametrize("version", ["", "#define NV_TENSORRT_MAJOR 10\n", VERSION.replace("ENTERPRISE 10", "X 10")])
def test_headers_without_a_version_are_none(bench, version):
    headers(bench.folder / "usr/include", version)
    assert refusal(toolchain.find_headers) == "no TensorRT headers (NvInfer.h)"


def test_headers_that_point_at_each_other_are_none(bench):
    loop = VERSION.replace("ENTERPRISE 10", "ENTERPRISE NV_TENSORRT_MAJOR")
    headers(bench.folder / "usr/include", loop)
    assert refusal(toolchain.find_headers) == "no TensorRT headers (NvInfer.h)"


def test_architectures_that_nvcc_does_not_know_are_refused():
    nvcc = toolchain.Nvcc(Path("nvcc"), "13.0.88", (75, 86, 120))
    toolchain.check_architectures(nvcc, (75, 120))
    with pytest.raises(SpecError) as e:
        toolchain.check_architectures(nvcc, (37, 75, 50))
    assert e.value.what == "nvcc 13.0.88 does not compile for the architecture 37, 50"
    assert e.value.fix == "use some of 75,86,120"
    with pytest.raises(SpecError, match="no GPU architecture was asked for"):
        toolchain.check_architectures(nvcc, ())


def test_the_real_ones_are_found(need):
    need("nvcc", "gxx", "cmake", "tensorrt_headers")
    tools = toolchain.find_toolchain()
    assert {75, 80, 86, 89, 90} <= set(tools.nvcc.architectures)
    assert tools.headers.version.split(".")[0] in ("10", "11")
