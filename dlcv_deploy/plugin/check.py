"""The proofs of the plugin that this machine can run, one by one; what cannot be run is said, and never passed."""

from __future__ import annotations

import dataclasses as dc
import platform
import re
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..backends import _cuda, _plugin, optional
from ..backends import get as backend
from ..errors import ArtifactError, DeployError, MissingBackend, SpecError, ToolError
from ..isolate import isolated
from ..log import NativeLog, tensorrt_logger
from ..types import CompileOptions
from .build import DEFAULT_ARCHITECTURES, compile_library, source_sha256
from .cases import complaint, covering
from .host import HostKernels, compile_host
from .library import FILE, OPS, Library, read_library
from .machine import keeps_to_the_model
from .network import DTYPES, differs, feeds, network

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
_TOOLS = {"tensorrt_rtx": "rtx", "tensorrt": "gpu"}
_TIMEOUT_S = 300.0
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_LRN_FIELDS = {"size": "INT32", **dict.fromkeys(("alpha", "beta", "bias", "input_scale", "output_scale"), "FLOAT32")}
_POOL_FIELDS = dict.fromkeys(("kernel_shape", "strides", "pads"), "INT32")
FIELDS = {OPS[0]: _LRN_FIELDS, OPS[1]: {**_LRN_FIELDS, **_POOL_FIELDS}}


@dc.dataclass(frozen=True, slots=True)
class Finding:
    """One proof: its name, ``verdict`` (PASSED, FAILED, NOT_RUN), and what was found, or why it was not run."""

    name: str
    verdict: str
    words: str


@dc.dataclass
class Subject:
    """What is proved: a library, and what the compilers printed here; proofs fill in what later ones need.

    ``refused`` says why the library that was given cannot be read.
    """

    library: Library | None = None
    refused: ArtifactError | None = None
    log: str = ""

    def sound(self) -> Library:
        """The library, for proofs that need one.

        Raises:
            MissingBackend: there is none.
        """
        if self.library is None:
            raise MissingBackend("there is no library to prove this with")
        return self.library


def check_plugin(data: bytes | None = None, name: str = FILE, *, say: Callable[[str], None]) -> list[Finding]:
    """Run every proof of ``CHECKS``.

    Args:
        data: A library's file; None for the one that is compiled here.
        name: What errors call it.
        say: Told the name of each proof before it is run.
    """
    subject, found = Subject(), []
    if data is not None:
        try:
            subject.library = read_library(data, name)
        except ArtifactError as e:
            subject.refused = e
    for title, prove in CHECKS.items():
        say(title)
        try:
            found.append(Finding(title, PASSED, prove(subject)))
        except MissingBackend as e:
            found.append(Finding(title, NOT_RUN, e.what))
        except DeployError as e:
            found.append(Finding(title, FAILED, e.what))
    return found


def compiles(subject: Subject) -> str:
    """A warning is an error, as CMakeLists.txt has it; without a library, this one is proved from here on."""
    wanted = subject.library.architectures if subject.library else DEFAULT_ARCHITECTURES
    try:
        library, subject.log = compile_library(wanted, proving=True)
    except SpecError as e:
        raise MissingBackend(e.what) from e
    if subject.library is None and subject.refused is None:
        subject.library = library
    return f"for the GPU architectures {', '.join(map(str, wanted))}, without a warning"


def described(subject: Subject) -> str:
    """The file is whole, says what it is, is for this processor and from this source."""
    if subject.refused:
        raise subject.refused
    library = subject.sound()
    if library.machine != platform.machine():
        raise ArtifactError(f"it was built for {library.machine}, and this processor is {platform.machine()}")
    if library.source_sha256 != source_sha256():
        raise ArtifactError("it was compiled from another version of the source")
    held = ", ".join(map(str, library.architectures))
    return f"for the GPU architectures {held}, against TensorRT {library.tensorrt}, by CUDA {library.cuda}"


def registers(subject: Subject) -> str:
    """What ptxas says of each kernel: no register is spilled to memory."""
    if not subject.log:
        raise MissingBackend("nothing was compiled")
    used = [int(n) for n in re.findall(r"\bUsed (\d+) registers", subject.log)]
    spilled = [max(map(int, pair)) for pair in _SPILLS.findall(subject.log)]
    if not used or len(used) > len(spilled):
        raise ToolError("ptxas did not say what registers the kernels use")
    if worst := max(spilled):
        count = sum(n > 0 for n in spilled)
        raise ToolError(f"{count} of {len(used)} kernels spill registers, {worst} bytes at most")
    return f"{len(used)} kernels use {max(used)} registers at most, and none spills"


def moves(subject: Subject) -> str:
    """The library's machine code spills nothing, and loads and stores what the traffic model says."""
    library = subject.sound()
    try:
        return keeps_to_the_model(library)
    except MissingBackend as e:
        raise MissingBackend(f"{e.what}; {e.fix}") from e


def computes_here(subject: Subject) -> str:
    """The kernels' own source, compiled for this processor and run thread by thread, against float64."""
    with tempfile.TemporaryDirectory(prefix="dlcv-host-") as folder:
        kernels = HostKernels(compile_host(Path(folder) / "liblrn_host.so"))
        cases = list(covering())
        for seed, case in enumerate(cases):
            x = case.drawn(seed)
            if wrong := complaint(case, x, case.run(kernels, x)):
                raise ToolError(wrong)
    return f"{len(cases)} cases: windows of 1 to 15, 1 to 257 channels, every type and layout, with and without a pool"


def loads(subject: Subject, tool: str) -> str:
    """The library goes into the plugin registry in a child process and brings both creators with their fields."""
    if not (version := optional.version_of(tool)):
        raise MissingBackend(optional.absent(tool, _TOOLS[tool]).no_compile)
    data = subject.sound().data
    answer = isolated(f"{__name__}:load_in", {"module": tool}, {FILE: data}, what=tool, timeout_s=_TIMEOUT_S)
    found = answer.value["fields"]
    if found != FIELDS:
        raise ToolError(f"the plugins' fields are {found}, and should be {FIELDS}")
    return f"{tool} {version} registered {' and '.join(found)} with their fields"


def load_in(request: Mapping[str, Any], files: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """In the child process: register the library; returns the fields and their types, by plugin."""
    name = request["module"]
    trt = optional.module(name, extra=_TOOLS[name])
    log = NativeLog(name)
    logger = tensorrt_logger(trt, log)
    runtime = trt.Runtime(logger)  # the first object tells the registry whom to log to
    _plugin.register(trt, name, files[FILE], log)
    creators = [one for one in trt.get_plugin_registry().all_creators if one.name in OPS]
    fields = {one.name: {field.name: field.type.name for field in one.field_names} for one in creators}
    del runtime
    return {"fields": fields}, {}


def builds(subject: Subject, tool: str) -> str:
    """A small AlexNet-like graph with both nodes is compiled in every type; each node becomes a plugin layer."""
    optional.check_compiles(tool, backend(tool).ability())
    library, sizes = subject.sound(), []
    for dtype in DTYPES:
        engine = backend(tool).compile(network(dtype), CompileOptions(plugin=library.data, timeout_s=_TIMEOUT_S))
        sizes.append(f"{dtype} {sum(map(len, engine.files.values())) - len(library.data):,} bytes")
    return f"engines with both plugin layers: {', '.join(sizes)}"


def computes(subject: Subject) -> str:
    """On the GPU that is here, engines with the plugin give what the float64 reference gives."""
    if reason := _cuda.no_gpu():
        raise MissingBackend(reason)
    tools = [tool for tool in _TOOLS if not backend(tool).ability().no_run]
    if not tools:
        raise MissingBackend("neither TensorRT for RTX nor TensorRT can run here; dlcv-deploy doctor says why")
    made, options = backend(tools[0]), CompileOptions(sm=_sm(tools[0]), plugin=subject.sound().data)
    for dtype in DTYPES:
        with made.load(made.compile(network(dtype), options)) as session:
            wrong = differs(session.run(feeds()), dtype)
        if wrong:
            raise ToolError(f"with {tools[0]}, {wrong}")
    return f"{tools[0]} gives the reference's values in {', '.join(DTYPES)}"


def _sm(tool: str) -> tuple[int, ...]:
    """TensorRT compiles for the GPU that is here; TensorRT for RTX is told."""
    return (_cuda.capability(),) if tool == "tensorrt_rtx" else ()


CHECKS: dict[str, Callable[[Subject], str]] = {
    "nvcc compiles the source, a warning being an error": compiles,
    "the library says what it is": described,
    "the kernels, on this processor, give what float64 gives": computes_here,
    "no kernel spills registers": registers,
    "the machine code moves what the model says": moves,
    "TensorRT for RTX loads it": partial(loads, tool="tensorrt_rtx"),
    "TensorRT loads it": partial(loads, tool="tensorrt"),
    "TensorRT for RTX builds engines with it": partial(builds, tool="tensorrt_rtx"),
    "TensorRT builds engines with it": partial(builds, tool="tensorrt"),
    "a GPU computes what the reference computes": computes,
}
"""Every proof by its name; each returns what it found, or raises: MissingBackend where it cannot be run here."""
