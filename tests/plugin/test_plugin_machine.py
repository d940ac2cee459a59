"""The machine code that ships: no register spilled, and exactly the loads and stores of the traffic model."""

import dataclasses as dc
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.plugin import library_bytes

from dlcv_deploy.errors import MissingBackend, ToolError
from dlcv_deploy.plugin import check, machine, sass
from dlcv_deploy.plugin.build import DEFAULT_ARCHITECTURES, build_library
from dlcv_deploy.plugin.check import Subject
from dlcv_deploy.plugin.library import read_library
from dlcv_deploy.plugin.machine import Code, differences, kernel_of, name_of, read_code
from dlcv_deploy.plugin.sass import Instruction
from dlcv_deploy.plugin.traffic import Kernel, kernels

DOCUMENT = Path(__file__).parents[2] / "docs/lrn-plugin.md"


@pytest.fixture(scope="module")
def codes(plugin_library, need):
    need("cuobjdump")
    return read_code(plugin_library)


def test_every_kernel_loads_and_stores_what_the_model_says(codes, plugin_library):
    assert len(codes) == 65 * len(plugin_library.architectures)
    for code in codes:
        kernel, width = code.kernel, code.kernel.load_bytes
        assert code.loads == (width,) * kernel.step, code
        if kernel.pool != 0:
            assert code.stores == (width,) * (kernel.step if kernel.pool is None else 1), code
        assert sum(code.first) <= 2 * kernel.halo * width, code
        assert code.stack_bytes == 0, code
        assert code.registers <= 128, code  # two blocks of 256 threads a multiprocessor
        assert code.shared_bytes == (0 if kernel.pool is None else 2 * kernel.step * 256 * width), code
        assert list(differences(code)) == []


def test_linear_formats_load_every_halo_whole(codes):
    for code in codes:
        if code.kernel.channels == 1:
            assert code.first == (code.kernel.load_bytes,) * (2 * code.kernel.halo)


def document_cells():
    """The document's cells by the first of their row and the head of their column."""
    cells, head = {}, []
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not row:
            head = []
        elif not head:
            head = row
        cells.update({(row[0], name): cell for name, cell in zip(head, row, strict=True)} if row else {})
    return cells


def check_document(codes, library):
    if library.cuda != "13.0":
        pytest.skip(f"the document's numbers are of CUDA 13.0, and this is {library.cuda}")
    document = document_cells()
    for rows in (machine.register_rows(codes), machine.bound_rows(codes)):
        head, *body = rows
        assert len(body) >= 15
        for row in body:
            for name, cell in zip(head, row, strict=True):
                assert document[row[0], name] == cell, (row[0], name)


def test_the_document_has_the_registers(codes, plugin_library):
    check_document(codes, plugin_library)


@pytest.mark.slow
def test_every_architecture(need):
    need("nvcc", "gxx", "cmake", "tensorrt_headers", "cuobjdump")
    library = build_library(DEFAULT_ARCHITECTURES)
    assert machine.keeps_to_the_model(library).startswith("455 kernels load and store what the model says, use ")
    codes = read_code(library)
    check_document(codes, library)
    assert machine.markdown(codes) in DOCUMENT.read_text(encoding="utf-8")


def sound(**changes):
    """The code of a kernel as the model says, but for the changes."""
    kernel = Kernel("fp16 kHWC8", 2)
    code = Code(kernel, 86, 60, 0, 0, 0, (4, 16), (16, 16), (16, 16), 900, 16)
    return dc.replace(code, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"first": (16, 16)}, []),
        ({"stack_bytes": 8}, ["keeps 8 bytes on a stack"]),
        ({"first": (2, 16)}, ["loads 2 + 16 bytes before its loop, not 20 to 2 * 16"]),
        ({"first": (16, 16, 4)}, ["loads 16 + 16 + 4 bytes before its loop, not 20 to 2 * 16"]),
        ({"first": ()}, ["loads 0 bytes before its loop, not 20 to 2 * 16"]),
        ({"loads": (16, 16, 16)}, ["loads 16 + 16 + 16 bytes a step, not 2 * 16"]),
        ({"loads": (8, 8, 8, 8)}, ["loads 8 + 8 + 8 + 8 bytes a step, not 2 * 16"]),
        ({"stores": (16,)}, ["stores 16 bytes a step, not 2 * 16"]),
        ({"roots": 8, "barriers": 1}, ["takes 8 square roots a step, not 16", "has 1 barriers"]),
        ({"kernel": Kernel("fp16 kHWC8", 2, pool=3), "barriers": 1}, ["stores 16 + 16 bytes a step, not 1 * 16"]),
        ({"kernel": Kernel("fp16 kHWC8", 2, pool=0), "barriers": 1}, []),
        ({"kernel": Kernel("fp16 kHWC8", 2, pool=0)}, ["has 0 barriers"]),
    ],
)
def test_differences_in_words(changes, words):
    assert list(differences(sound(**changes))) == words


def test_a_library_that_differs_fails_the_check(monkeypatch):
    wrong = [sound(), sound(stack_bytes=8), sound(loads=()), sound(stores=()), sound(registers=99, roots=1)]
    monkeypatch.setattr(machine, "read_code", lambda library: wrong)
    subject = Subject(read_library(library_bytes(), "x"))
    name = "DlcvLRN, fp16 kHWC8, window 5, for sm_86"
    with pytest.raises(ToolError) as caught:
        check.moves(subject)
    assert caught.value.what == (
        f"4 differences from the model in 5 kernels: {name}: keeps 8 bytes on a stack; "
        f"{name}: loads 0 bytes a step, not 2 * 16; {name}: stores 0 bytes a step, not 2 * 16; ..."
    )
    del wrong[1:]
    assert (
        check.moves(subject) == "1 kernels load and store what the model says, use 60 registers at most and spill none"
    )


def test_without_the_tools_it_is_not_run(monkeypatch, tmp_path):
    monkeypatch.setattr(sass, "cuda_programs", lambda name: iter(()))
    with pytest.raises(
        MissingBackend, match=r"no cuobjdump and no nvdisasm, to .*; pip install 'dlcv-deploy\[plugin\]'"
    ):
        check.moves(Subject(read_library(library_bytes(), "x")))
    monkeypatch.setattr(sass, "cuda_programs", lambda name: iter([(tmp_path, None)] * (name == "cuobjdump")))
    with pytest.raises(MissingBackend, match=r"^no nvdisasm, to read machine code with"):
        sass.find_disassembler()


def test_what_is_no_machine_code_is_refused(need):
    need("cuobjdump")
    with pytest.raises(ToolError, match=r"cannot read the machine code|holds other kernels than the model knows: Dlcv"):
        read_code(read_library(library_bytes(), "x"))


def test_a_library_without_one_of_the_kernels_is_refused(monkeypatch):
    monkeypatch.setattr(machine, "read_functions", lambda path: [])
    with pytest.raises(
        ToolError, match=r"other kernels than the model knows: DlcvLRN, fp16 kHWC8, .* for sm_75; .*\.\.\."
    ):
        read_code(read_library(library_bytes(), "x"))


MANGLED = "_ZN4dlcv46_GLOBAL__N__0_13_lrn_kernel_cu_1{}EEvPKNT_6StoredEPS6_NS_3MapEiiiNS_12CoefficientsE"


@pytest.mark.parametrize(
    ("template", "kernel"),
    [
        ("10lrn_kernelINS_6LayoutINS_4Fp32ELi1ELi1ELi4ELb0EEELi2ELb0ELi4E", Kernel("fp32 linear", 2, 4)),
        ("10lrn_kernelINS_6LayoutINS_4Int8ELi8ELi32ELi4ELb0EEELi7ELb1ELi1E", Kernel("int8 kCHW32", 7)),
        ("19lrn_max_pool_kernelINS_6LayoutINS_4Fp16ELi8ELi8ELi2ELb1EEELi3ELb0ELi3E", Kernel("fp16 kHWC8", 3, pool=3)),
        ("19lrn_max_pool_kernelINS_6LayoutINS_4Int8ELi4ELi4ELi4ELb0EEELi7ELb1ELi0E", Kernel("int8 kCHW4", 7, pool=0)),
        ("10lrn_kernelINS_6LayoutINS_4Int8ELi8ELi32ELi2ELb0EEELi7ELb1ELi1E", None),  # steps of two loads
        ("10lrn_kernelINS_6LayoutINS_4Int8ELi4ELi32ELi4ELb0EEELi7ELb1ELi1E", None),  # four channels a load
        ("10lrn_kernelINS_6LayoutINS_4Fp16ELi8ELi8ELi2ELb0EEELi3ELb0ELi1E", None),  # not pixel by pixel
        ("10another_one", None),
    ],
)
def test_kernels_by_their_mangled_names(template, kernel):
    assert kernel_of(MANGLED.format(template)) == kernel


def test_kernels_have_names_of_their_own():
    assert len({name_of(kernel) for kernel in kernels()}) == 65


LISTING = """
\tcode for sm_86
\t\tFunction : first
\t.headerflags\t@"EF_CUDA_SM86"
        /*0000*/                   LDG.E.U16.CONSTANT R0, [R2.64] ;           /* 0x00 */
                                                                              /* 0x01 */
        /*0010*/              @!P0 BRA 0x50 ;                                 /* 0x00 */
        /*0020*/                   LDG.E.128.CONSTANT R4, [R2.64] ;           /* 0x00 */
        /*0030*/                   FADD R1, R1, R2 ;                          /* 0x00 */
        /*0040*/                   BRA 0x60 ;                                 /* 0x00 */
        /*0050*/                   LDG.E R4, [R2.64+0x4] ;                    /* 0x00 */
        /*0060*/                   BRA P6, 0x90 ;                             /* 0x00 */
        /*0070*/              @P1  FADD R1, R1, R2 ;                          /* 0x00 */
        /*0080*/                   STG.E.64 [R2.64], R4 ;                     /* 0x00 */
        /*0090*/                   MUFU.SQRT R1, R1 ;                         /* 0x00 */
        /*00a0*/               @P2 CALL.REL.NOINC 0xc0 ;                      /* 0x00 */
        /*00b0*/                   BRA 0x10 ;                                 /* 0x00 */
        /*00c0*/                   EXIT ;                                     /* 0x00 */
        /*00d0*/                   BRA 0xd0;                                  /* 0x00 */

\t\tFunction : second
        /*0000*/                   EXIT ;                                     /* 0x00 */

\tcode for sm_90
\t\tFunction : first
        /*0000*/                   EXIT ;                                     /* 0x00 */
"""
USED = """
Fatbin elf code:
================
arch = sm_86

Resource usage:
 Common:
  GLOBAL:0
 Function first:
  REG:127 STACK:0 SHARED:16384 LOCAL:0 CONSTANT[0]:480 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function second:
  REG:9 STACK:8 SHARED:0 LOCAL:0 CONSTANT[0]:480 TEXTURE:0 SURFACE:0 SAMPLER:0
arch = sm_90
 Function first:
  REG:8 STACK:0 SHARED:0 LOCAL:4 CONSTANT[0]:480 TEXTURE:0 SURFACE:0 SAMPLER:0
"""


def test_what_cuobjdump_prints():
    found = list(sass.parse_functions(LISTING))
    assert [(name, architecture, len(code)) for name, architecture, code in found] == [
        ("first", 86, 14),
        ("second", 86, 1),
        ("first", 90, 1),
    ]
    code = found[0][2]
    assert code[1] == Instruction(16, "BRA", False, 0x50)
    assert code[4] == Instruction(64, "BRA", True, 0x60)
    assert code[6] == Instruction(96, "BRA", False, 0x90)
    assert [each.width for each in code if each.kind in ("LDG", "STG")] == [2, 16, 4, 8]
    assert dict(sass.parse_used(USED)) == {
        ("first", 86): (127, 0, 16384),
        ("second", 86): (9, 8, 0),
        ("first", 90): (8, 4, 0),
    }


def test_the_way_through_a_loop_has_the_most_accesses_and_is_the_shortest():
    (_, _, code), *_ = sass.parse_functions(LISTING)
    ((before, once),) = sass.loops(code)
    assert [each.address for each in before] == [0]
    assert [each.address for each in once] == [0x10, 0x50, 0x60, 0x70, 0x80, 0x90, 0xA0, 0xB0]


def test_the_table_as_a_program(tmp_path):
    run = [sys.executable, "-m", "dlcv_deploy.plugin.machine"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "usage: python -m dlcv_deploy.plugin.machine LIBRARY\n"
    done = subprocess.run([*run, tmp_path / "none.so"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(r"none.so cannot be read: No such file", done.stderr)
