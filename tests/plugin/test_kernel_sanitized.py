"""The kernels under AddressSanitizer and UBSan: every buffer, shared memory too, is as large as it must be."""

import os
import subprocess
import sys
import textwrap

import pytest

from dlcv_deploy.plugin import host
from dlcv_deploy.plugin.toolchain import find_cxx

SCRIPT = textwrap.dedent("""
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from dlcv_deploy.plugin import cases
    from dlcv_deploy.plugin import host

    kernels = host.HostKernels(Path(sys.argv[1]))
    count = 0
    for seed, case in enumerate(cases.covering()):
        if case.size not in (1, 5, 9, 15) or case.shape[2] * case.shape[3] > 30 * 30:
            continue
        x = case.drawn(seed)
        said = cases.complaint(case, x, case.run(kernels, x, order=seed % 3, multiprocessors=seed % 200))
        assert not said, said
        count += 1
    print(count, "cases")
""")


@pytest.fixture(scope="module")
def sanitized(need, tmp_path_factory):
    """The library, and what must be loaded before it."""
    need("gxx")
    runtime = subprocess.run(
        [find_cxx()[0], "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not os.path.isabs(runtime):
        pytest.skip("the C++ compiler came without AddressSanitizer (libasan.so)")
    folder = tmp_path_factory.mktemp("sanitized")
    return host.compile_host(folder / "liblrn_host.so", ["-O1", *host.SANITIZED]), runtime


def run(sanitized, script):
    library, runtime = sanitized
    return subprocess.run(
        [sys.executable, "-c", script, str(library), os.path.join(os.path.dirname(__file__), "..")],
        env={**os.environ, "LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_nothing_is_read_or_written_out_of_bounds(sanitized):
    done = run(sanitized, SCRIPT)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr
    assert "runtime error" not in done.stderr
    assert int(done.stdout.split()[0]) > 150


def test_the_sanitizer_is_at_work(sanitized):
    """One channel less than the kernel is told of is one plane too little."""
    script = SCRIPT.replace(
        "kernels = ", "host.to_memory = lambda x, *_, whole=host.to_memory: whole(x[:, 1:], *_)\nkernels = "
    )
    done = run(sanitized, script)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
