"""An engine in several hands: threads, signals, processes, and what is left when it is closed."""

import dataclasses as dc
import gc
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import bundles, models
from hypothesis import given
from hypothesis import strategies as st

from dlcv_deploy.backends.session import CheckedSession
from dlcv_deploy.errors import SpecError, ToolError
from dlcv_deploy.runtime import Engine
from dlcv_deploy.types import Dim, TensorSpec
from dlcv_deploy.types import Engine as Compiled


class Rows(CheckedSession):
    """Answers each row with the sum of its values, and four more; remembers the sizes of the batches it was given."""

    def __init__(self, batch=bundles.BATCH, answer=None):
        super().__init__(bundles.MANIFEST.inputs, bundles.MANIFEST.outputs, batch, self._sums)
        self.sizes, self.closed, self._answer = [], 0, answer

    def _sums(self, arrays):
        (x,) = arrays
        self.sizes.append(len(x))
        if self._answer is not None:
            return [np.resize(self._answer, (len(x), 5)).astype(np.float32)]
        return [(x.sum((1, 2, 3))[:, None] + np.arange(5)).astype(np.float32)]

    def close(self):
        super().close()
        self.closed += 1


def engine_of(session):
    compiled = Compiled("stub", "CPU", "1", {}, (), session.batch)
    return Engine(bundles.MANIFEST, bundles.LABELS, compiled, session)


# --- batches


@given(st.integers(0, 40), st.integers(1, 9), st.integers(0, 9))
def test_any_batch_is_cut_to_what_the_engine_takes(rows, lo, more):
    session = Rows(Dim(lo, lo, lo + more))
    x = np.arange(rows * 192, dtype=np.float32).reshape(rows, 3, 8, 8) / 1000
    found = engine_of(session).run(x)["y"]
    np.testing.assert_array_equal(found, x.sum((1, 2, 3))[:, None] + np.arange(5, dtype=np.float32))
    assert all(lo <= size <= lo + more for size in session.sizes)
    assert len(session.sizes) == max(1, -(-rows // (lo + more)))


@given(st.integers(0, 30), st.sampled_from([1, 10]), st.integers(1, 25))
def test_any_number_of_images_is_answered_a_batch_at_a_time(count, crops, hi):
    session = Rows(Dim(1, 1, hi))
    read, seen = [], []
    session._infer = lambda arrays: [seen.append(len(read)), np.zeros((len(arrays[0]), 5), np.float32)][1:]

    def images():
        for i in range(count):
            read.append(i)
            yield np.zeros((10, 10, 3), np.uint8)

    assert len(engine_of(session).classify(images(), crops=crops)) == count
    at_a_time = max(1, hi // crops)
    assert max(seen, default=0) == count
    assert all(n % at_a_time == 0 or n == count for n in seen)  # nothing is read ahead


def test_equals_stand_in_the_order_of_the_classes():
    image = np.zeros((10, 10, 3), np.uint8)
    for crops in (1, 10):
        engine = engine_of(Rows(answer=[1, 3, 3, 1, 3]))
        assert [p.index for p in engine.classify(image, crops=crops)] == [1, 2, 4, 0, 3]
    far = engine_of(Rows(answer=[0, -2000, -1000, 1000, -3000])).classify(image)
    assert [p.index for p in far] == [3, 0, 2, 1, 4]  # though four probabilities are zero
    assert [p.probability for p in far] == [1, 0, 0, 0, 0]


def test_equals_stand_in_the_order_of_many_classes():
    compiled = Compiled("stub", "CPU", "1", {})
    manifest = dc.replace(bundles.MANIFEST, outputs=(TensorSpec("y", (200,)),))
    engine = Engine(manifest, tuple(map(str, range(200))), compiled, Rows())
    logits = np.random.default_rng(0).integers(0, 3, (30, 200)).astype(np.float32)
    for row, found in zip(logits, engine.predictions(logits, top=200), strict=True):
        assert [p.index for p in found] == sorted(range(200), key=lambda i: (-row[i], i))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_not_finite_is_none(value):
    images = [np.zeros((10, 10, 3), np.uint8)] * 11
    x = engine_of(Rows()).preprocess(images[0])
    session = Rows()
    session._infer = lambda arrays: [np.where(len(session.sizes) == 1, value, 1) * np.ones((len(arrays[0]), 5))]
    engine = engine_of(session)
    assert engine.run(x)["y"].shape == (1, 5)
    session.sizes.append(8)
    with pytest.raises(ToolError, match=r"answer to image number 0 is not finite\n.*validate"):
        engine.classify(images)


# --- threads


def test_many_threads_are_answered_right(cpu_bundle):
    x = models.images(24)
    image = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    with Engine.load(cpu_bundle, streams=2) as engine, ThreadPoolExecutor(8) as pool:
        expected, best = engine.run(x)["y"], engine.classify(image, crops=10)
        for rows, found in [(i % 24 + 1, pool.submit(engine.run, x[: i % 24 + 1])) for i in range(200)]:
            np.testing.assert_allclose(found.result()["y"], expected[:rows], rtol=1e-4, atol=1e-5)
        for found in [pool.submit(engine.classify, image, crops=10) for _ in range(40)]:
            assert [p.index for p in found.result()] == [p.index for p in best]


def test_threads_may_load_at_once(both):
    """In a new process, where nothing is imported yet."""
    code = f"""
import threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from dlcv_deploy.runtime import Engine
start = threading.Barrier(6)
def load(i):
    start.wait()
    with Engine.load({str(both)!r}, backend=("openvino", "onnxruntime")[i % 2]) as engine:
        return engine.classify(np.zeros((9, 9, 3), np.uint8))[0].label
with ThreadPoolExecutor(6) as pool:
    print(len(set(pool.map(load, range(6)))))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_closing_while_others_run(cpu_bundle):
    """Each call is answered or refused; none crashes."""
    x = models.images(8)
    for _ in range(5):
        engine = Engine.load(cpu_bundle)
        expected = engine.run(x)["y"]
        refused = []

        def work(engine=engine, expected=expected, refused=refused):
            try:
                while True:
                    np.testing.assert_allclose(engine.run(x)["y"], expected, rtol=1e-4, atol=1e-5)
            except SpecError as e:
                refused.append(str(e))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        engine.close()
        for thread in threads:
            thread.join(60)
        assert refused == ["the engine is closed\n  fix: load it again"] * 4


class Held(Rows):
    """Waits in the middle of a call."""

    def __init__(self):
        super().__init__()
        self.entered, self.go = threading.Event(), threading.Event()

    def _sums(self, arrays):
        self.entered.set()
        assert self.go.wait(60)
        return super()._sums(arrays)


def test_the_last_call_that_runs_frees_what_was_closed():
    session = Held()
    engine = engine_of(session)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(engine.run, models.images(2))
        assert session.entered.wait(60)
        engine.close()
        assert session.closed == 0
        with pytest.raises(SpecError, match="closed"):
            engine.run(models.images(2))
        session.go.set()
        assert running.result()["y"].shape == (2, 5)
    assert session.closed == 1
    engine.close()
    assert session.closed == 1


def test_a_signal_may_close_the_engine_in_the_middle_of_a_call():
    """As a service's handler for SIGTERM does; it must not wait for the call that it stands in."""
    engine = engine_of(session := Rows())
    sums = session._infer
    session._infer = lambda arrays: [os.kill(os.getpid(), signal.SIGUSR1), *sums(arrays)][1:]
    before = signal.signal(signal.SIGUSR1, lambda *_: engine.close())
    try:
        assert engine.run(models.images(2))["y"].shape == (2, 5)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert session.closed == 1
    with pytest.raises(SpecError, match="closed"):
        engine.run(models.images(2))


def test_a_call_that_fails_is_over():
    engine = engine_of(session := Rows())
    with pytest.raises(SpecError, match="float64"):
        engine.run(np.zeros((1, 3, 8, 8)))
    engine.close()
    assert session.closed == 1


def test_what_is_closed_says_so(cpu_bundle):
    with Engine.load(cpu_bundle) as engine:
        pass
    image = np.zeros((9, 9, 3), np.uint8)
    for call in (
        lambda: engine.run(models.images(1)),
        lambda: engine.classify(image),
        lambda: engine.classify([image]),
    ):
        with pytest.raises(SpecError, match=r"the engine is closed\n  fix: load it again"):
            call()
    assert engine.preprocess(image).shape == (1, 3, 8, 8)  # which needs no engine


def test_an_engine_that_is_forgotten_is_freed():
    engine = engine_of(session := Rows())
    del engine
    gc.collect()
    assert session.closed == 1


# --- processes and disks

COUNT = """
import resource, sys
import numpy as np
from dlcv_deploy.runtime import Engine

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

path, backend, warm, count = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
x = np.zeros((5, 3, 8, 8), np.float32)
for i in range(warm + count):
    if i == warm:
        before = resident()
    with Engine.load(path, backend=backend) as engine:
        engine.run(x)
print((resident() - before) // count)
"""


def grown_bytes(path, backend, warm, count):
    """By how much a load, a run and an unload let the process grow."""
    command = [sys.executable, "-c", COUNT, str(path), backend, str(warm), str(count)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_tens_of_loads_leave_little(both, backend):
    assert grown_bytes(both, backend, 10, 25) < 100_000


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_thousand_loads_leave_nothing(both, backend):
    assert grown_bytes(both, backend, 100, 1000) < 4_000


def test_processes_may_load_at_once(both):
    code = f"""
import numpy as np
from dlcv_deploy.runtime import Engine
with Engine.load({str(both)!r}) as engine:
    print(engine.classify(np.full((9, 9, 3), 200, np.uint8))[0])
"""
    command = [sys.executable, "-W", "error", "-c", code]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(3)]
    said = [process.communicate(timeout=120)[0] for process in running]
    assert said == [said[0]] * 3
    assert said[0].startswith("Prediction(index=")


def test_a_bundle_is_read_and_no_more(both, tmp_path, compiled):
    """Nothing is written into it; so a disk may be read-only."""
    path = bundles.bundle(tmp_path / "b.dlcv", compiled("openvino"), compiled("onnxruntime"))
    folders = [path, *(p for p in path.rglob("*") if p.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in (path, *path.rglob("*"))}
    try:
        for backend in ("openvino", "onnxruntime"):
            with Engine.load(path, backend=backend) as engine:
                assert engine.run(models.images(2))["y"].shape == (2, 5)
        assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in (path, *path.rglob("*"))} == before
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_what_was_checked_is_what_is_loaded(compiled, tmp_path, monkeypatch):
    """The bundle may be replaced, or altered, right after the check."""
    from dlcv_deploy.runtime import engine as module

    path = bundles.bundle(tmp_path / "b.dlcv", compiled("openvino"))
    check = module.check

    def checked(*args):
        found = check(*args)
        for file in path.rglob("*.*"):
            if file.is_file():
                file.write_bytes(b"other")
        return found

    monkeypatch.setattr(module, "check", checked)
    x = models.images(3)
    with Engine.load(path) as loaded:
        expected = models.reference(models.net(), {"x": x})["y"]
        np.testing.assert_allclose(loaded.run(x)["y"], expected, rtol=1e-4, atol=1e-5)
        assert loaded.labels == bundles.LABELS


def test_an_answer_is_a_value(both):
    with Engine.load(both) as engine:
        best, *_ = engine.classify(np.zeros((9, 9, 3), np.uint8))
    assert dc.asdict(best).keys() == {"index", "label", "probability"}
    with pytest.raises(dc.FrozenInstanceError):
        best.index = 1
