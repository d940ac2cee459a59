"""Machine code of NVIDIA GPUs, as cuobjdump prints it: functions, what they use, and the ways through their loops."""

from __future__ import annotations

import dataclasses as dc
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import MissingBackend, ToolError
from .toolchain import cuda_programs

_TIMEOUT_S = 600
_FIX = "pip install 'dlcv-deploy[plugin]', or install NVIDIA's CUDA toolkit and set CUDA_HOME to its folder"
_FUNCTION = re.compile(r"^\s*Function\s*:?\s*(\w+)")
_USED = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
_INSTRUCTION = re.compile(r"^ +/\*([0-9a-f]+)\*/ +(@\S+ +)?([A-Z]\S*) ?([^;\n]*);", re.M)
_ADDRESS = re.compile(r"0x([0-9a-f]+)$")
_BRANCHES, _ENDS = ("BRA", "CALL"), ("EXIT", "RET")  # ptxas leaves loops by CALL.REL.NOINC at times, which is a branch
_WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
_WIDTH = 4  # of a load or store whose name says none


@dc.dataclass(frozen=True, slots=True)
class Instruction:
    """``name`` with all its suffixes; ``target``: the address that a branch goes to, and ``always`` so or not."""

    address: int
    name: str
    always: bool = True
    target: int | None = None

    @property
    def kind(self) -> str:
        """The name without suffixes."""
        return self.name.partition(".")[0]

    @property
    def width(self) -> int:
        """Bytes that a load or a store moves."""
        return next((_WIDTHS[suffix] for suffix in self.name.split(".") if suffix in _WIDTHS), _WIDTH)


@dc.dataclass(frozen=True, slots=True)
class Function:
    """A kernel by its mangled name; ``stack_bytes`` is where spilled registers would lie."""

    name: str
    architecture: int
    registers: int
    stack_bytes: int
    shared_bytes: int
    instructions: tuple[Instruction, ...]


def find_disassembler() -> tuple[Path, Path]:
    """Where cuobjdump is, and nvdisasm, which it calls.

    Raises:
        MissingBackend: one of them is missing.
    """
    found = {name: path for name in ("nvdisasm", "cuobjdump") for path, _ in list(cuda_programs(name))[:1]}
    if missing := [name for name in ("cuobjdump", "nvdisasm") if name not in found]:
        raise MissingBackend(f"no {' and no '.join(missing)}, to read machine code with", fix=_FIX)
    return found["cuobjdump"], found["nvdisasm"]


def read_functions(path: Path) -> list[Function]:
    """All functions in a library's machine code.

    Raises:
        MissingBackend: cuobjdump or nvdisasm, which it calls, is missing.
        ToolError: it cannot read the library.
    """
    cuobjdump, nvdisasm = find_disassembler()
    env = {**os.environ, "PATH": f"{nvdisasm.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    used = dict(parse_used(_printed(cuobjdump, "-res-usage", path, env)))
    return [
        Function(name, architecture, *used[name, architecture], instructions)
        for name, architecture, instructions in parse_functions(_printed(cuobjdump, "-sass", path, env))
    ]


def parse_used(text: str) -> Iterator[tuple[tuple[str, int], tuple[int, int, int]]]:
    """By name and architecture: registers, bytes of stack, bytes of shared memory."""
    name, architecture = "", 0
    for line in text.splitlines():
        if line.startswith("arch = sm_"):
            architecture = int(line.removeprefix("arch = sm_"))
        elif match := _FUNCTION.match(line):
            name = match[1]
        elif match := _USED.search(line):
            registers, stack, shared, local = map(int, match.groups())
            yield (name, architecture), (registers, max(stack, local), shared)


def parse_functions(text: str) -> Iterator[tuple[str, int, tuple[Instruction, ...]]]:
    """Name, architecture and instructions of each function."""
    architecture = 0
    for part in re.split(r"\n(?=\s*code for sm_|\s*Function : )", text):
        if match := re.match(r"\s*code for sm_(\d+)", part):
            architecture = int(match[1])
        elif match := _FUNCTION.match(part):
            yield match[1], architecture, tuple(_instruction(each) for each in _INSTRUCTION.finditer(part))


def _instruction(match: re.Match[str]) -> Instruction:
    address, guard, name, operands = match.groups()
    target, always = None, not guard
    if name.partition(".")[0] in _BRANCHES and (found := _ADDRESS.search(operands.strip())):
        target = int(found[1], 16)
        always = always and operands.strip() == found[0]  # a second predicate may stand before the address
    return Instruction(int(address, 16), name, always, target)


def loops(instructions: Sequence[Instruction]) -> list[tuple[list[Instruction], list[Instruction]]]:
    """The ways to the loops that load from global memory, and once through each, the cheapest first.

    Of all ways the one with the most global loads and stores, and of such the shortest. Loops within count once.
    """
    blocks, after = _flow(instructions)
    order, back = _ordered(after, instructions[0].address)
    after = {start: [one for one in ends if (start, one) not in back] for start, ends in after.items()}
    found: dict[int, list[Instruction]] = {}
    for tail, head in back:
        once = [each for start in _best(blocks, after, order, head, tail) for each in blocks[start]]
        if any(each.kind == "LDG" for each in once) and (head not in found or _cost(once) < _cost(found[head])):
            found[head] = once
    before = {head: _best(blocks, after, order, order[0], head)[:-1] for head in found}
    ways = [([each for start in before[head] for each in blocks[start]], once) for head, once in found.items()]
    return sorted(ways, key=lambda way: _cost(way[1]))


def _flow(instructions: Sequence[Instruction]) -> tuple[dict[int, list[Instruction]], dict[int, list[int]]]:
    """Basic blocks by their first address, and those that each may go on to."""
    starts = {each.target for each in instructions}
    blocks: dict[int, list[Instruction]] = {}
    after: dict[int, list[int]] = {}
    start, ended = instructions[0].address, True
    for each in instructions:
        if ended or each.address in starts:
            if not ended:
                after[start].append(each.address)
            start = each.address
            blocks[start], after[start] = [], []
        blocks[start].append(each)
        ended = each.target is not None or each.kind in _ENDS
        if each.target is not None:
            after[start].append(each.target)
        if ended and not each.always:
            after[start].append(each.address + instructions[1].address - instructions[0].address)
    return blocks, after


def _ordered(after: Mapping[int, Sequence[int]], first: int) -> tuple[list[int], set[tuple[int, int]]]:
    """Blocks so that each stands before those it goes on to, and the edges that go back, from tail to head."""
    done: list[int] = []
    seen, open_, back = {first}, {first}, set()
    stack = [(first, iter(after[first]))]
    while stack:
        start, rest = stack[-1]
        for one in rest:
            if one in open_:
                back.add((start, one))
            elif one not in seen:
                seen.add(one)
                open_.add(one)
                stack.append((one, iter(after[one])))
                break
        else:
            stack.pop()
            open_.remove(start)
            done.append(start)
    return done[::-1], back


def _cost(instructions: Sequence[Instruction]) -> tuple[int, int]:
    return -sum(each.kind in ("LDG", "STG") for each in instructions), len(instructions)


def _best(
    blocks: Mapping[int, Sequence[Instruction]],
    after: Mapping[int, Sequence[int]],
    order: Sequence[int],
    first: int,
    last: int,
) -> list[int]:
    """The blocks of the best way from one to another, both with it; empty where there is none."""
    found = {first: (_cost(blocks[first]), first)}
    for start in order[order.index(first) :]:
        if start not in found or start == last:
            continue
        (accesses, length), _ = found[start]
        for one in after[start]:
            more, longer = _cost(blocks[one])
            cost = accesses + more, length + longer
            if one not in found or cost < found[one][0]:
                found[one] = cost, start
    if last not in found:
        return []
    way = [last]
    while way[-1] != first:
        way.append(found[way[-1]][1])
    return way[::-1]


def _printed(cuobjdump: Path, option: str, path: Path, env: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            [cuobjdump, option, path],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise ToolError(f"{cuobjdump} does not run: {e}", fix=_FIX) from e
    if done.returncode:
        fix = f"it may be older than the nvcc that compiled the library: {_FIX}"
        raise ToolError(f"{cuobjdump} cannot read the machine code", fix=fix, log=done.stdout + done.stderr)
    return done.stdout
