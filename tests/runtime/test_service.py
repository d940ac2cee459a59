"""The example service: what it answers, what it refuses, and that requests share the engine's calls."""

import asyncio
import importlib
import io
import json
import socket
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/python/service"


@pytest.fixture(scope="module")
def example():
    """The example's modules, which an application would have beside it."""
    for package in ("fastapi", "prometheus_client", "uvicorn"):
        pytest.importorskip(package)
    sys.path.insert(0, str(EXAMPLE))
    try:
        yield importlib.import_module("app"), importlib.import_module("batching")
    finally:
        sys.path.remove(str(EXAMPLE))
        for name in ("app", "batching"):
            sys.modules.pop(name, None)


class Slow:
    """Stands for an engine: waits until it is let go, and remembers how many rows came at once."""

    def __init__(self):
        self.go, self.rows = threading.Event(), []

    def run(self, rows):
        self.rows.append(len(rows))
        assert self.go.wait(10)
        return rows * 2


def served(batching, slow, scenario, **how):
    async def run():
        how.setdefault("max_rows", 4)
        batcher = batching.Batcher(slow.run, **{"delay_s": 0.0, "queue_rows": 16, **how})
        try:
            return await scenario(batcher)
        finally:
            slow.go.set()
            await batcher.close()

    return asyncio.run(run())


def of(value, rows=1):
    return np.full((rows, 1), value, np.float32)


async def until(true):
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it never came so far")


def test_what_waits_goes_together_and_each_gets_its_own(example):
    slow = Slow()

    async def scenario(batcher):
        tasks = [asyncio.create_task(batcher.infer(of(0)))]
        await until(lambda: slow.rows)
        tasks += [asyncio.create_task(batcher.infer(of(i, rows))) for i, rows in ((1, 2), (2, 1), (3, 2), (4, 1))]
        await until(lambda: batcher.waiting_rows == 6)
        slow.go.set()
        return await asyncio.gather(*tasks)

    found = served(example[1], slow, scenario)
    assert [answer.tolist() for answer in found] == [[[0]], [[2], [2]], [[4]], [[6], [6]], [[8]]]
    assert slow.rows == [1, 3, 3]  # no more than four at once, in the order of arrival


def test_a_request_larger_than_a_batch_goes_alone(example):
    slow = Slow()
    slow.go.set()
    assert len(served(example[1], slow, lambda batcher: batcher.infer(of(1, 9)))) == 9
    assert slow.rows == [9]


def test_too_many_are_refused_and_the_rest_is_answered(example):
    slow = Slow()

    async def scenario(batcher):
        tasks = [asyncio.create_task(batcher.infer(of(0)))]
        await until(lambda: slow.rows)
        tasks += [asyncio.create_task(batcher.infer(of(i))) for i in (1, 2)]
        await until(lambda: batcher.waiting_rows == 2)
        with pytest.raises(example[1].Overloaded):
            await batcher.infer(of(3))
        slow.go.set()
        return await asyncio.gather(*tasks)

    assert [answer.item() for answer in served(example[1], slow, scenario, queue_rows=2)] == [0, 2, 4]


def test_who_has_gone_is_left_out(example):
    slow = Slow()

    async def scenario(batcher):
        first = asyncio.create_task(batcher.infer(of(0)))
        await until(lambda: slow.rows)
        gone, stays = (asyncio.create_task(batcher.infer(of(i))) for i in (1, 2))
        await until(lambda: batcher.waiting_rows == 2)
        gone.cancel()
        slow.go.set()
        return [await first, await stays]

    assert [answer.item() for answer in served(example[1], slow, scenario)] == [0, 4]
    assert slow.rows == [1, 1]


def test_requests_wait_for_others_but_not_for_long(example):
    slow = Slow()
    slow.go.set()

    async def scenario(batcher):
        await asyncio.gather(*(batcher.infer(of(i)) for i in range(4)))
        return await batcher.infer(of(4))

    assert served(example[1], slow, scenario, delay_s=0.05).item() == 8
    assert slow.rows == [4, 1]


def test_an_engine_that_fails_is_heard_of_and_the_next_is_served(example):
    def run(rows):
        if rows.item() == 1:
            raise ValueError("broken")
        return rows

    async def scenario():
        batcher = example[1].Batcher(run, max_rows=1, delay_s=0.0, queue_rows=4)
        with pytest.raises(ValueError, match="broken"):
            await batcher.infer(of(1))
        answer = await batcher.infer(of(2))
        await batcher.close()
        with pytest.raises(example[1].Overloaded):
            await batcher.infer(of(3))
        return answer

    assert asyncio.run(scenario()).item() == 2


class Client:
    """Asks a server on this machine."""

    def __init__(self, port):
        self._at = f"http://127.0.0.1:{port}"

    def ask(self, path, body=None):
        """The answer's status and text."""
        try:
            with urllib.request.urlopen(self._at + path, body, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()


@pytest.fixture(scope="module")
def client(example, both):
    import uvicorn

    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        app = example[0].create(example[0].Settings(bundle=str(both), upload_bytes=50_000))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
        thread = threading.Thread(target=server.run, args=([door],))
        thread.start()
        yield Client(door.getsockname()[1])
        server.should_exit = True
        thread.join(30)


def png(seed=0, side=32):
    from PIL import Image

    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("crops", [1, 10])
def test_it_answers_as_the_engine(client, both, crops):
    from dlcv_deploy.runtime import Engine

    status, text = client.ask(f"/classify?top=3&crops={crops}", png())
    assert status == 200
    found = json.loads(text)
    with Engine.load(both) as engine:
        expected = engine.classify(png(), top=3, crops=crops)
    assert found["model"] == "net"
    assert [(guess["index"], guess["label"]) for guess in found["top"]] == [(p.index, p.label) for p in expected]
    assert [guess["probability"] for guess in found["top"]] == pytest.approx([p.probability for p in expected])


@pytest.mark.parametrize(
    ("query", "body", "status", "words"),
    [
        ("", b"", 400, "body is empty"),
        ("", b"no image", 400, "cannot be read"),
        ("", png()[:500], 400, "cannot be read"),
        ("", bytes(60_000), 413, "50000 bytes"),
        ("?top=0", png(), 422, "greater than or equal to 1"),
        ("?crops=5", png(), 422, "'1' or '10'"),
    ],
)
def test_it_says_what_is_wrong(client, query, body, status, words):
    found, text = client.ask(f"/classify{query}", body)
    assert found == status
    assert words in text


def test_health_and_metrics_tell_of_it(client):
    client.ask("/classify", png())
    client.ask("/classify", b"no image")
    health = json.loads(client.ask("/health")[1])
    assert health.items() >= {"status": "ok", "model": "net", "classes": 5}.items()
    told = client.ask("/metrics")[1]
    for line in ('dlcv_requests_total{status="200"}', 'dlcv_requests_total{status="400"}', "dlcv_batch_rows_bucket"):
        assert line in told


def test_a_bundle_that_does_not_run_ends_it_before_it_serves(example, tmp_path):
    from dlcv_deploy.errors import ArtifactError

    async def start():
        app = example[0].create(example[0].Settings(bundle=str(tmp_path / "none.dlcv")))
        async with app.router.lifespan_context(app):
            pytest.fail("it serves")

    with pytest.raises(ArtifactError, match="there is no bundle"):
        asyncio.run(start())


def test_settings_come_from_the_environment(example, monkeypatch):
    monkeypatch.setenv("DLCV_BUNDLE", "a.dlcv")
    monkeypatch.setenv("DLCV_DELAY_MS", "2.5")
    monkeypatch.setenv("DLCV_QUEUE_ROWS", "7")
    settings = example[0].Settings.of_environment()
    assert (settings.bundle, settings.delay_ms, settings.queue_rows, settings.max_rows) == ("a.dlcv", 2.5, 7, 0)
