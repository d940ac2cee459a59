"""The kernels' machine code against the traffic model, read from the library: what is checked is what is shipped."""

from __future__ import annotations

import dataclasses as dc
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from ..atomic import write_whole
from ..errors import DeployError, ToolError
from .formats import FORMATS
from .library import FILE, Library, read_library
from .sass import Function, Instruction, loops, read_functions
from .traffic import BATCHES, GPUS, LAYERS, WIDEST, Call, Kernel, issue_us, kernel_for, kernels, memory_us, table

_KERNEL = re.compile(
    r"\d(lrn|lrn_max_pool)_kernelINS_6LayoutINS_4(Fp32|Fp16|Int8)ELi(\d+)ELi(\d+)ELi(\d+)ELb([01])EEE"
    r"Li(\d+)ELb[01]ELi(\d+)EE"
)
_OPS = {None: "DlcvLRN", 0: "DlcvLRNMaxPool, any pool", 3: "DlcvLRNMaxPool, 3x3"}


@dc.dataclass(frozen=True, slots=True)
class Code:
    """One kernel's machine code for one architecture.

    ``first`` are the widths in bytes of the global loads before the loop over steps, ``loads`` and ``stores`` those of
    one step, on the way through it that has the most of them and, of such, the fewest ``instructions``: that of beta
    0.75, with its square ``roots``.
    """

    kernel: Kernel
    architecture: int
    registers: int
    stack_bytes: int
    shared_bytes: int
    barriers: int
    first: tuple[int, ...]
    loads: tuple[int, ...]
    stores: tuple[int, ...]
    instructions: int
    roots: int

    @property
    def name(self) -> str:
        """In words."""
        return f"{name_of(self.kernel)}, for sm_{self.architecture}"


def read_code(library: Library) -> list[Code]:
    """Every kernel in a library, for each architecture that it holds.

    Raises:
        MissingBackend: cuobjdump or nvdisasm is missing.
        ToolError: the machine code cannot be read, or is not that of the kernels that the model knows.
    """
    with TemporaryDirectory(prefix="dlcv-plugin-") as folder:
        path = Path(folder) / FILE
        write_whole(path, library.data)
        functions = read_functions(path)
    codes = [code_of(function) for function in functions]
    found = sorted(code.name for code in codes)
    expected = sorted(f"{name_of(kernel)}, for sm_{one}" for kernel in kernels() for one in library.architectures)
    if found != expected:
        odd = sorted({*found} ^ {*expected}) or ["some twice"]
        raise ToolError(f"the library holds other kernels than the model knows: {_some(odd)}")
    return codes


def code_of(function: Function) -> Code:
    """What matters of a function.

    Raises:
        ToolError: it is none of the kernels that the model knows, or does not loop as they do.
    """
    kernel = kernel_of(function.name)
    if kernel is None:
        raise ToolError(f"the model knows no kernel {function.name}")
    ways = loops(function.instructions)
    counts = {(_widths(step, "LDG"), _widths(step, "STG")) for _, step in ways}
    if len(counts) != 1:
        raise ToolError(f"{name_of(kernel)}, for sm_{function.architecture}, loads in {len(counts)} loops, not in one")
    before, step = ways[0]
    return Code(
        kernel,
        function.architecture,
        function.registers,
        function.stack_bytes,
        function.shared_bytes,
        sum(each.kind == "BAR" for each in function.instructions),
        _widths(before, "LDG"),
        _widths(step, "LDG"),
        _widths(step, "STG"),
        len(step),
        sum(each.name == "MUFU.SQRT" for each in step),
    )


def kernel_of(function: str) -> Kernel | None:
    """The kernel of a mangled name; None where the model knows none like it."""
    match = _KERNEL.search(function)
    if match is None:
        return None
    channels, vector, step, half, last = (int(match[i]) for i in (3, 4, 5, 7, 8))
    layout = match[2].lower().replace("fp", "float"), vector, match[6] == "1"
    for form in FORMATS:
        kernel = Kernel(form, half, last) if match[1] == "lrn" else Kernel(form, half, pool=last)
        known = FORMATS[form].dtype, FORMATS[form].vector, FORMATS[form].pixel_major
        if known == layout and (kernel.channels, kernel.step) == (channels, step):
            return kernel
    return None


def differences(code: Code) -> Iterator[str]:
    """Where a kernel spills registers, or loads and stores something else than the model says, in words.

    Before its loop a kernel may load less than the model counts: of the first load ptxas leaves out the channels that
    no window reaches. The kernel for pools of any window has copies of its store.
    """
    kernel, width = code.kernel, code.kernel.load_bytes
    reached = kernel.half * width // kernel.channels + kernel.halo * width
    if code.stack_bytes:
        yield f"keeps {code.stack_bytes} bytes on a stack"
    if not reached <= sum(code.first) <= 2 * kernel.halo * width or max(code.first) > width:
        yield f"loads {_sum(code.first)} bytes before its loop, not {reached} to {2 * kernel.halo} * {width}"
    if code.loads != (width,) * kernel.step:
        yield f"loads {_sum(code.loads)} bytes a step, not {kernel.step} * {width}"
    stores = kernel.step if kernel.pool is None else 1 if kernel.pool else len(code.stores)
    if not stores or code.stores != (width,) * stores:
        yield f"stores {_sum(code.stores)} bytes a step, not {stores} * {width}"
    if code.roots != kernel.answers:
        yield f"takes {code.roots} square roots a step, not {kernel.answers}"
    if code.barriers != (kernel.pool is not None):
        yield f"has {code.barriers} barriers"


def keeps_to_the_model(library: Library) -> str:
    """What was found, in words, for ``plugin check``.

    Raises:
        MissingBackend: cuobjdump or nvdisasm is missing.
        ToolError: a kernel spills registers, or does not load and store what the model says.
    """
    codes = read_code(library)
    if wrong := [f"{code.name}: {words}" for code in codes for words in differences(code)]:
        raise ToolError(f"{len(wrong)} differences from the model in {len(codes)} kernels: {_some(wrong)}")
    most = max(code.registers for code in codes)
    return f"{len(codes)} kernels load and store what the model says, use {most} registers at most and spill none"


def name_of(kernel: Kernel) -> str:
    """A kernel in words."""
    window = f"window {2 * kernel.half + 1}" if kernel.half < WIDEST else "any window"
    pixels = ", 4 pixels" if kernel.pixels == 4 else ""
    return f"{_OPS[kernel.pool]}, {kernel.form}, {window}{pixels}"


def _widths(instructions: Iterable[Instruction], kind: str) -> tuple[int, ...]:
    return tuple(each.width for each in instructions if each.kind == kind)


def _sum(widths: Sequence[int]) -> str:
    return " + ".join(map(str, widths)) or "0"


def _some(texts: Sequence[str]) -> str:
    return "; ".join([*texts[:3], *(["..."] if len(texts) > 3 else [])])


def register_rows(codes: Sequence[Code]) -> Iterator[Sequence[str]]:
    """Kernels of window 5: what a thread loads and stores a step, shared memory, and registers by architecture."""
    architectures = sorted({code.architecture for code in codes})
    registers = (f"registers, sm_{one}" for one in architectures)
    yield ["kernel", "loads a step", "stores a step", "shared bytes", *registers]
    for kernel in kernels():
        of = {code.architecture: code for code in codes if code.kernel == kernel}
        code = of[architectures[0]]
        if kernel.half == 2 or kernel.pool == 0:
            stores = kernel.step if kernel.pool is None else 1
            counts = (f"{count} * {kernel.load_bytes} bytes" for count in (len(code.loads), stores))
            registers = (str(of[one].registers) for one in architectures)
            yield [name_of(kernel), *counts, str(code.shared_bytes), *registers]


def bound_rows(codes: Sequence[Code]) -> Iterator[Sequence[str]]:
    """At the larger batch: instructions an element, and the time to issue them over the time to move the bytes."""
    of = {(code.kernel, code.architecture): code for code in codes}
    gpus = [gpu for gpu in GPUS if any(code.architecture == gpu.architecture for code in codes)]
    columns = [f"{what}, {gpu.name}" for what in ("instructions", "issue / memory") for gpu in gpus]
    yield ["layer and format", *columns]
    for name, (shape, pool) in LAYERS.items():
        for form in FORMATS:
            call = Call(form, (BATCHES[-1], *shape), pool=pool)
            kernel = kernel_for(call)
            counts = [of[kernel, gpu.architecture].instructions for gpu in gpus]
            shares = [issue_us(call, gpu, n) / memory_us(call, gpu) for gpu, n in zip(gpus, counts, strict=True)]
            yield [
                f"{name}, {form}",
                *(f"{count / kernel.answers:.1f}" for count in counts),
                *(f"{share:.2f}" for share in shares),
            ]


def markdown(codes: Sequence[Code]) -> str:
    """Both tables."""
    return f"{table(register_rows(codes))}\n\n{table(bound_rows(codes))}"


def _main(names: Sequence[str]) -> None:
    if len(names) != 1:
        sys.exit("usage: python -m dlcv_deploy.plugin.machine LIBRARY")
    try:
        data = Path(names[0]).read_bytes()
        codes = read_code(read_library(data, names[0]))
    except OSError as e:
        sys.exit(f"{names[0]} cannot be read: {e.strerror}")
    except DeployError as e:
        sys.exit(f"{e}")
    click.echo(markdown(codes))
    sys.exit("\n".join(f"{code.name}: {words}" for code in codes for words in differences(code)) or 0)


if __name__ == "__main__":
    _main(sys.argv[1:])
