"""The LRN plugin's library in TensorRT's hands: whom it serves, how it gets into the registry, what it became."""

from __future__ import annotations

import dataclasses as dc
import importlib.util
import os
import platform
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ..digest import sha256
from ..errors import ArtifactError, ToolError
from ..log import NativeLog
from ..plugin.library import FILE, OPS, Library, check_serves, read_library
from ..types import Engine, PluginNeed
from .blame import explained
from .session import file_of

if TYPE_CHECKING:
    import tensorrt  # type: ignore[import-untyped, import-not-found, unused-ignore]

    from ._trt import Trt

VERSION, NAMESPACE = "1", ""
"""Of the plugins in ``OPS``."""
_PARSER_ASKS_FOR = "libtensorrt_rtx.so"
_OPTIONAL = re.compile(r"Attribute (input|output)_scale not found in plugin node")
_registered: dict[str, str] = {}
"""The digest of the library that is in each TensorRT's registry, by the module's name."""
_one_at_a_time = threading.Lock()


def served(data: bytes, *, major: int | None, sm: Sequence[int]) -> Library:
    """A library that serves this TensorRT, these GPU architectures and this processor.

    Args:
        data: The library's file.
        major: TensorRT's major version; None where any will do.
        sm: The architectures, as (86, 89).

    Raises:
        ArtifactError: It is damaged, or was built for others.
    """
    library = read_library(data, FILE)
    check_serves(library, major=major, sm=sm)
    if library.machine != platform.machine():
        raise ArtifactError(
            f"the plugin's library was built for {library.machine}, and this processor is {platform.machine()}",
            fix="build it on this machine: dlcv-deploy plugin build",
        )
    return library


def calling(engine: Engine, library: Library) -> Engine:
    """An engine that was compiled with a library: it carries it, and says that it needs it."""
    need = PluginNeed(FILE, library.sha256, library.tensorrt, library.architectures, OPS)
    return dc.replace(engine, files={**engine.files, FILE: library.data}, plugin=need)


def of_engine(engine: Engine, *, major: int | None, sm: int) -> bytes:
    """The library that an engine needs, checked; empty where it needs none.

    Raises:
        ArtifactError: It is missing, is another one than the engine was compiled with, or does not serve here.
    """
    if engine.plugin is None:
        return b""
    data = file_of(engine, engine.plugin.file)
    if sha256(data) != engine.plugin.sha256:
        raise ArtifactError(
            f"{engine.plugin.file} is not the library that the {engine.backend} engine was compiled with",
            fix="build it again",
        )
    served(data, major=major, sm=(sm,))
    return data


def register(trt: Trt, tool: str, data: bytes, log: NativeLog) -> None:
    """Load a library into TensorRT's registry, once in a process.

    It stays there: TensorRT keeps creators by their names, and engines that use them may come and go.

    Raises:
        ArtifactError: Another library of the same plugins is there, loaded by this function.
        ToolError: Somebody else registered a plugin of the same name; TensorRT cannot load the library, or found
            other plugins in it than it should have.
    """
    key, digest = trt.__name__, sha256(data)
    with _one_at_a_time:
        if _registered.get(key) == digest:
            return
        if key in _registered:
            raise ArtifactError(
                f"another build of the LRN plugin is loaded in this process already (SHA-256 {_registered[key][:12]}, "
                f"and this one is {digest[:12]}), and {tool} holds one plugin of a name",
                fix="load engines with different plugin libraries in processes of their own, or build them with one",
            )
        registry: tensorrt.IPluginRegistry = trt.get_plugin_registry()
        before = _creators(registry)
        if taken := [name for name in OPS if any(name == there for there, *_ in before)]:
            raise ToolError(
                f"{tool} has a plugin named {taken[0]} already, which is not of this library",
                fix="do not load other libraries with a plugin of that name into this process",
            )
        handle = registry.load_library(_path(data))
        if handle is None:
            words = log.take_errors()
            said = explained(tool, words.splitlines()[-1] if words else "", words)
            why = f": {said.what}" if words else ", and does not say why"
            raise ToolError(
                f"{tool} cannot load the LRN plugin's library{why}", fix="dlcv-deploy plugin check", log=words
            )
        found = _creators(registry) - before
        if found != {(name, VERSION, NAMESPACE) for name in OPS}:
            registry.deregister_library(handle)
            told = ", ".join(f"{name} (version {version})" for name, version, _ in sorted(found)) or "no plugin"
            raise ToolError(
                f"the LRN plugin's library brought {told} and not {' and '.join(OPS)} (version {VERSION})",
                fix="build it again: dlcv-deploy plugin build",
            )
        _registered[key] = digest


def _creators(registry: tensorrt.IPluginRegistry) -> set[tuple[str, str, str]]:
    found: set[tuple[str, str, str]] = set()
    for creator in registry.all_creators:
        found.add((creator.name, creator.plugin_version, creator.plugin_namespace))
    return found


def _path(data: bytes) -> str:
    """A name under which the loader finds these bytes, which are in memory alone.

    The descriptor stays open: the loader knows libraries by name, and would take another one of the same number for it.
    """
    descriptor = os.memfd_create(FILE)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    return f"/proc/self/fd/{descriptor}"


def check_layers(trt: Trt, tool: str, network: tensorrt.INetworkDefinition, nodes: int, log: NativeLog) -> None:
    """Refuse a network in which a plugin node became anything else than a plugin layer.

    Args:
        trt: The module.
        tool: Its name in errors.
        network: As the parser filled it.
        nodes: The plugin nodes in the graph that it was parsed from.
        log: Its warnings lose those about attributes that only INT8 has.

    Raises:
        ToolError: There are more or fewer plugin layers than nodes.
    """
    layers = (network.get_layer(i) for i in range(network.num_layers))
    count = sum(layer.type == trt.LayerType.PLUGIN_V3 for layer in layers)
    if count != nodes:
        raise ToolError(
            f"{tool} made {count} plugin layers of {nodes} plugin nodes",
            fix="build with --lrn native, and report this",
            log=log.take_errors(),
        )
    log.warnings[:] = [text for text in log.warnings if not _OPTIONAL.search(text)]


def nodes(onnx: bytes) -> int:
    """How many nodes of a graph the plugin computes."""
    from onnx import load_model_from_string

    return sum(node.op_type in OPS for node in load_model_from_string(onnx).graph.node)


@contextmanager
def parser_path() -> Iterator[dict[str, str]]:
    """The environment in which TensorRT for RTX's parser can import plugins.

    It opens its library as ``libtensorrt_rtx.so``, the wheel has ``libtensorrt_rtx.so.1`` alone, and the process ends
    there where it finds nothing (1.7.1). So a folder with that name in it comes first on the loader's path.

    Raises:
        ToolError: No temporary folder can be made.
    """
    library = _rtx_library()
    if library is None:
        yield {}
        return
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(TemporaryDirectory(prefix="dlcv-", ignore_cleanup_errors=True))
            Path(folder, _PARSER_ASKS_FOR).symlink_to(library)
        except OSError as e:
            raise ToolError(
                f"no temporary folder can be made: {e}", fix="set TMPDIR to a folder that you may write to"
            ) from e
        rest = os.environ.get("LD_LIBRARY_PATH", "")
        yield {"LD_LIBRARY_PATH": f"{folder}:{rest}" if rest else folder}


def _rtx_library() -> Path | None:
    """TensorRT for RTX's library in its wheel; None where it was installed in another way, under all its names."""
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    found = [path for folder in folders for path in sorted(Path(folder).glob(f"{_PARSER_ASKS_FOR}.*"))]
    return found[0] if found else None
