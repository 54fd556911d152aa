"""The service over HTTP: scores, health, metrics, the model, a change of it, and a page that describes all of it."""

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from recd_dist import __version__
from recd_dist.job.serve_options import ServeConfig
from recd_dist.serve import api_page
from recd_dist.serve.body_columns import Body, RequestColumns, read_body, write_candidates, write_user
from recd_dist.serve.refused import (
    BAD_REQUEST,
    DEADLINE,
    HUNG_UP,
    NOT_ALLOWED,
    NOT_FOUND,
    NOT_READY,
    SCORING_FAILED,
    TOO_LARGE,
    UNSUPPORTED,
    RefusedError,
)
from recd_dist.serve.scorer import HungUpError, Scorer
from recd_dist.serve.service_metrics import ServiceMetrics
from recd_dist.serve.user_rows import UserRows
from recd_dist.serve.waiting_requests import Scored

logger = logging.getLogger(__name__)

_TIMEOUT = "x-timeout-ms"
_MIB = 1 << 20
_RELOAD_BYTES = 1 << 16
_DISCARD_BYTES, _DISCARD_S = 64 * _MIB, 5.0
"""How much of a body that is too long is read and thrown away, and for how many seconds."""
_SCORE_PATH = "/v1/score"


@dataclass(frozen=True)
class Service:
    """What answers requests.

    Attributes:
        scorer: scores them.
        metrics: what is counted.
        config: limits.
        rows: user rows that are kept.
        model: the path that was named, perhaps a link.
        needs_token: whether callers show a token.
    """

    scorer: Scorer
    metrics: ServiceMetrics
    config: ServeConfig
    rows: UserRows
    model: str
    needs_token: bool

    def columns_of(self, body: Body) -> RequestColumns:
        """A request as a worker gets it; the user's row may be one that is kept.

        Raises:
            RefusedError: it is not as it has to be.
        """
        limits = self.config.limits
        candidates, num = write_candidates(body.candidates, limits.candidates, limits.values)
        if body.user is not None:
            return RequestColumns(write_user(body.user, limits.values), candidates, num)
        try:
            user = self.rows.find(str(body.user_key), body.user_version)
        except RefusedError as refused:
            self.metrics.count_user_row("miss" if refused.status == 404 else "other_version")
            raise
        self.metrics.count_user_row("hit")
        return RequestColumns(user, candidates, num)

    async def score(self, request: Request) -> Scored:
        """Scores a request of HTTP.

        Raises:
            RefusedError: there are no scores.
            HungUpError: the client is gone.
        """
        timeout_s, start = _timeout_s(request, self.config.timeout_s), time.monotonic()
        text = await _read(request, round(self.config.limits.body_mib * _MIB), "limits.body_mib", timeout_s)
        body = read_body(text)
        columns = self.columns_of(body)
        left_s = max(timeout_s - (time.monotonic() - start), 0.0)
        scored = await self.scorer.score(columns, left_s, _hung_up(request))
        is_newest = scored.model.identity == self.scorer.model.identity  # rows of the model before are forgotten
        if body.user is not None and body.user_key is not None and is_newest:
            self.rows.keep(body.user_key, body.user_version, columns.user)
        return scored

    async def reload(self, directory: str | None) -> dict[str, Any]:
        """Loads another export.

        Args:
            directory: beside the one that the service was started with, or in a directory there; None: that one anew.

        Raises:
            RefusedError: it lies elsewhere, cannot be loaded, or another one is being loaded.
        """
        if directory is not None:
            root = Path(self.model).absolute().parent
            if "\0" in directory or not Path(directory).resolve().is_relative_to(root.resolve()):
                raise RefusedError(BAD_REQUEST, f"model {directory!r}: lies outside {root}, the only place for models")
        model = await self.scorer.reload(directory or self.model)
        self.rows.clear()
        return model.identity


def application(service: Service) -> FastAPI:
    """The application that answers HTTP."""
    app = FastAPI(
        title="recd serve",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.add_exception_handler(RefusedError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_address)
    app.add_exception_handler(Exception, _refuse)  # a bug, whose traceback uvicorn logs
    app.mount(api_page.SWAGGER, StaticFiles(directory=api_page.swagger_files()))
    _add_scoring(app, service)
    _add_model(app, service)
    _add_state(app, service)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(api_page.page(service.needs_token), media_type="text/html")

    @app.get("/openapi.json", include_in_schema=False)
    async def description() -> Response:
        return _json(_openapi(app, service))

    return app


def _add_scoring(app: FastAPI, service: Service) -> None:
    @app.post(_SCORE_PATH, summary="Score the candidates of a user", response_model=None, tags=["scores"])
    async def score(request: Request) -> Response:
        """Scores of each task for each candidate, in their order. A request is one user row and its candidates."""
        start, status = time.monotonic(), 200
        try:
            scored = await service.score(request)
            service.metrics.count_stages(scored.queue_s, scored.compute_s)
            return Response(write_scores(scored), media_type="application/json")
        except RefusedError as refused:
            status = refused.status
            return _refuse(request, refused)
        except HungUpError:
            status = HUNG_UP
            return Response(status_code=HUNG_UP)
        finally:
            service.metrics.count_request("http", status, time.monotonic() - start)


def _add_model(app: FastAPI, service: Service) -> None:
    @app.get("/v1/model", summary="The model that scores", response_model=None, tags=["model"])
    async def model() -> Response:
        """What the export says of itself, the features of a request, and a request that scores."""
        loaded = service.scorer.model
        return _json({**loaded.to_json(), "directory": service.scorer.directory, "workers": service.scorer.pids})

    @app.get("/v1/sample", summary="A request that scores", response_model=None, tags=["scores"])
    async def sample() -> Response:
        """The export's own request, to be sent to /v1/score as it is."""
        return _json(service.scorer.model.sample)

    @app.post("/v1/reload", summary="Load another export", response_model=None, tags=["model"])
    async def reload(request: Request) -> Response:
        """Loads the export anew, or the one in `model`; no request is lost, and a broken one leaves the old one."""
        text = await _read(request, _RELOAD_BYTES, "of a reload", service.config.timeout_s)
        if text and "json" not in request.headers.get("content-type", ""):
            raise RefusedError(UNSUPPORTED, "send the header Content-Type: application/json")
        return _json({"model": await service.reload(_directory(text))})


def _add_state(app: FastAPI, service: Service) -> None:
    @app.head("/health/live", include_in_schema=False)
    @app.get("/health/live", summary="Whether the service runs", response_model=None, tags=["state"])
    async def live() -> Response:
        return _json({"live": True})

    @app.head("/health/ready", include_in_schema=False)
    @app.get("/health/ready", summary="Whether it takes requests", response_model=None, tags=["state"])
    async def ready() -> Response:
        """200 while a worker has the model and the service does not end, else 503."""
        scorer = service.scorer
        if scorer.is_draining or scorer.num_ready == 0:
            reason = "the service ends" if scorer.is_draining else "no worker has the model yet"
            raise RefusedError(NOT_READY, reason, retry_after_s=1)
        return _json({"ready": True, "workers": scorer.num_ready, "model": scorer.model.identity})

    @app.get("/metrics", summary="Metrics for Prometheus", response_model=None, tags=["state"])
    async def metrics() -> Response:
        return Response(service.metrics.to_text(), media_type="text/plain; version=0.0.4")


def write_scores(scored: Scored) -> bytes:
    """The body of an answer."""
    columns = zip(scored.model.tasks, np.ascontiguousarray(scored.scores.T), strict=True)
    answer = {"scores": dict(columns), "model": scored.model.identity}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


async def _read(request: Request, most: int, option: str, timeout_s: float) -> bytes:
    """The body, as far as it is not too long."""
    if (packed := request.headers.get("content-encoding", "identity")) != "identity":
        raise RefusedError(UNSUPPORTED, f"Content-Encoding {packed[:40]}: send the body as it is, without this header")
    too_large = RefusedError(TOO_LARGE, f"the body has more than {most:,} bytes ({option}); send several requests")
    pieces, size = [], int(request.headers.get("content-length") or 0)
    if size > most:
        await _discard(request)
        raise too_large
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for piece in request.stream():
                size += len(piece)
                if size > most:
                    await _discard(request)
                    raise too_large
                pieces.append(piece)
    except TimeoutError as error:
        raise RefusedError(DEADLINE, f"the body has not come within {timeout_s:g} s") from error
    except ClientDisconnect as error:
        raise HungUpError from error
    return b"".join(pieces)


async def _discard(request: Request) -> None:
    """Reads the rest of a body that is too long: a client that is hung up on while it sends never sees the answer."""
    left, has_more = _DISCARD_BYTES, "expect" not in request.headers  # who expects 100 asks before it sends
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while has_more and left > 0:
                message = await request.receive()
                left -= len(message.get("body", b""))
                has_more = message.get("more_body", False)


async def _hung_up(request: Request) -> None:
    """Returns when the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _timeout_s(request: Request, most_s: float) -> float:
    text = request.headers.get(_TIMEOUT)
    if text is None:
        return most_s
    try:
        asked_s = float(text) / 1000
    except ValueError:
        asked_s = 0.0
    if not 0 < asked_s < float("inf"):
        raise RefusedError(BAD_REQUEST, f"header X-Timeout-Ms '{text[:40]}': has to be milliseconds, such as 250")
    return min(asked_s, most_s)


def _directory(text: bytes) -> str | None:
    """The directory that the body of a reload names."""
    if not text:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RefusedError(BAD_REQUEST, f"the body is no JSON: {error}") from error
    if not isinstance(value, dict) or set(value) - {"model"} or not isinstance(value.get("model", ""), str):
        raise RefusedError(BAD_REQUEST, 'the body has to be empty or {"model": DIR}')
    return value.get("model")


def _refuse(_request: Request, error: Exception) -> Response:
    bug = RefusedError(SCORING_FAILED, f"the service could not answer ({error!r}); its log says more")
    refused = error if isinstance(error, RefusedError) else bug
    return _json(refused.to_json(), refused.status, refused.headers)


def _refuse_address(request: Request, error: Exception) -> Response:
    """There is nothing at an address, or not for this method."""
    if not isinstance(error, HTTPException) or error.status_code not in (404, 405):
        return _refuse(request, error)
    where = f"{request.method} {request.url.path[:100]}"
    if error.status_code == 404:
        refused = RefusedError(NOT_FOUND, f"{where}: there is nothing at this address; /docs shows what there is")
    else:
        refused = RefusedError(
            NOT_ALLOWED, f"{where}: this address takes {(error.headers or {}).get('Allow', 'others')}"
        )
    return _json(refused.to_json(), refused.status, dict(error.headers or {}))


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")


def _openapi(app: FastAPI, service: Service) -> dict[str, Any]:
    """The description, with the features of the model that scores now."""
    model = service.scorer.model
    described = get_openapi(
        title=f"{model.name}, step {model.step}", version=model.version, openapi_version="3.0.3", routes=app.routes
    )
    error = {"content": {"application/json": {"schema": api_page.ERROR_SCHEMA}}}
    for path in described["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {"description": "what is wrong, and what helps", **error}
    score = described["paths"][_SCORE_PATH]["post"]
    score["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": api_page.request_schema(model)}},
    }
    score["responses"]["200"]["content"] = {"application/json": {"schema": api_page.answer_schema(model)}}
    score["parameters"] = [
        {
            "name": "X-Timeout-Ms",
            "in": "header",
            "schema": {"type": "number"},
            "description": "milliseconds after which the request is given up",
        }
    ]
    described["paths"]["/v1/reload"]["post"]["requestBody"] = {
        "content": {"application/json": {"schema": {"type": "object", "properties": {"model": {"type": "string"}}}}}
    }
    if service.needs_token:
        described["components"] = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
        described["security"] = [{"token": []}]
    return described
