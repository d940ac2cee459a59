"""A classification service: POST an image to /classify; /health and /metrics (Prometheus) say how it is.

    pip install 'dlcv-deploy[openvino,service]'
    DLCV_BUNDLE=resnet20-int8.dlcv uvicorn --factory app:create --app-dir examples/python/service
    curl --data-binary @cat.jpg 'http://localhost:8000/classify?top=3'

Settings are environment variables; ``Settings`` has them with their defaults.
"""

from __future__ import annotations

import asyncio
import dataclasses as dc
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Literal

import prometheus_client as prometheus
from batching import Array, Batcher, Overloaded
from fastapi import FastAPI, HTTPException, Query, Request, Response

from dlcv_deploy.errors import DeployError
from dlcv_deploy.runtime import Engine

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


@dc.dataclass(frozen=True)
class Settings:
    """How to serve: the variable ``DLCV_BUNDLE`` sets ``bundle``, and so on."""

    bundle: str = ""
    backend: str = ""
    max_rows: int = 0
    """Inputs in one call of the engine, at the most; 0 for the largest batch that it takes."""
    delay_ms: float = 1.0
    """How long the first request of a batch waits for others."""
    queue_rows: int = 512
    """Inputs that may wait before requests are refused with 503."""
    upload_bytes: int = 20_000_000
    """The largest image file; larger ones are refused with 413."""

    @classmethod
    def of_environment(cls) -> Settings:
        """Those that are set, the rest by default."""
        names = {field.name: f"DLCV_{field.name.upper()}" for field in dc.fields(cls)}
        set_ = {name: os.environ[variable] for name, variable in names.items() if variable in os.environ}
        return cls(**{name: type(getattr(cls, name))(text) for name, text in set_.items()})


class Metrics:
    """What /metrics tells, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        own = {"registry": self.registry}
        self.requests = prometheus.Counter("dlcv_requests_total", "Answers by status", ["status"], **own)
        self.seconds = prometheus.Histogram("dlcv_request_seconds", "From request to answer", buckets=_SECONDS, **own)
        self.engine = prometheus.Histogram("dlcv_engine_seconds", "One call of the engine", buckets=_SECONDS, **own)
        self.queue = prometheus.Histogram("dlcv_queue_seconds", "Waiting for the engine", buckets=_SECONDS, **own)
        self.rows = prometheus.Histogram("dlcv_batch_rows", "Inputs in one call of the engine", buckets=_ROWS, **own)
        self.waiting = prometheus.Gauge("dlcv_waiting_rows", "Inputs that wait for the engine", **own)

    def ran(self, rows: int, took: float, waited: float) -> None:
        """One call of the engine."""
        self.rows.observe(rows)
        self.engine.observe(took)
        self.queue.observe(waited)


class Service:
    """An engine with what brings images to it."""

    def __init__(self, engine: Engine, settings: Settings, metrics: Metrics) -> None:
        self.engine, self.settings = engine, settings
        self.decoders = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")
        self.batcher = Batcher(
            self._logits,
            max_rows=settings.max_rows or engine.batch.hi,
            delay_s=settings.delay_ms / 1e3,
            queue_rows=settings.queue_rows,
            observe=metrics.ran,
        )
        metrics.waiting.set_function(lambda: self.batcher.waiting_rows)

    def _logits(self, rows: Array) -> Array:
        logits: Array = self.engine.run(rows)[self.engine.outputs[0].name]
        return logits

    async def classify(self, image: bytes, top: int, crops: int) -> list[dict[str, object]]:
        """The most probable classes of an image file's content."""
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(self.decoders, lambda: self.engine.preprocess(image, crops=crops))
        logits = await self.batcher.infer(rows)
        return [dc.asdict(guess) for guess in self.engine.predictions(logits, top=top, crops=crops)[0]]

    async def close(self) -> None:
        """Answer what waits, then let the engine go."""
        await self.batcher.close()
        self.decoders.shutdown()
        self.engine.close()


async def _body(request: Request, limit_bytes: int) -> bytes:
    """The request's body, given up as soon as it is too large."""
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit_bytes:
            raise HTTPException(413, f"the image has more than {limit_bytes} bytes")
        pieces.append(piece)
    if not size:
        raise HTTPException(400, "the request's body is empty; send an image file: curl --data-binary @FILE")
    return b"".join(pieces)


def create(settings: Settings | None = None) -> FastAPI:
    """The application; a bundle that does not run here ends it before it serves."""
    settings = settings or Settings.of_environment()
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = Engine.load(settings.bundle, backend=settings.backend or None)
        app.state.service = Service(engine, settings, metrics)
        try:
            yield
        finally:
            await app.state.service.close()

    app = FastAPI(title="dlcv-deploy", lifespan=lifespan)

    @app.middleware("http")
    async def measured(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.url.path != "/classify":
            return await answer(request)
        start, status = time.perf_counter(), 500
        try:
            response = await answer(request)
            status = response.status_code
        finally:
            metrics.requests.labels(status=str(status)).inc()
            metrics.seconds.observe(time.perf_counter() - start)
        return response

    @app.post("/classify")
    async def classify(
        request: Request, top: Annotated[int, Query(ge=1)] = 5, crops: Literal["1", "10"] = "1"
    ) -> dict[str, object]:
        """The most probable classes of the image in the body, a JPEG or PNG file."""
        service: Service = app.state.service
        body = await _body(request, settings.upload_bytes)
        try:
            return {"model": service.engine.model, "top": await service.classify(body, top, int(crops))}
        except Overloaded as e:
            raise HTTPException(503, "too many requests wait", headers={"Retry-After": "1"}) from e
        except DeployError as e:
            raise HTTPException(400 if e.exit_code in (2, 5) else 500, e.what) from e

    @app.get("/health")
    async def health() -> dict[str, object]:
        """What is served; an answer means that it is."""
        engine: Engine = app.state.service.engine
        return {
            "status": "ok",
            "model": engine.model,
            "precision": engine.precision,
            "backend": engine.backend,
            "classes": len(engine.labels),
            "waiting_rows": app.state.service.batcher.waiting_rows,
        }

    @app.get("/metrics")
    async def prometheus_metrics() -> Response:
        """Counters and histograms in Prometheus's text format."""
        return Response(prometheus.generate_latest(metrics.registry), media_type=prometheus.CONTENT_TYPE_LATEST)

    return app
