"""The routes of the server, and what a client is told when something is wrong.

    POST /predict   predictions of some inputs
    GET  /health    whether it is ready
    GET  /metrics   its figures, for Prometheus
    GET  /          the page to try the model
    GET  /docs      the page of OpenAPI

Every answer that is no success is `{"error": "one sentence"}`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

import orjson
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from electra_dist import __version__
from electra_dist.console import put
from electra_dist.serve.answers import ServedModel
from electra_dist.serve.batching import Batcher, FullError, InputError
from electra_dist.serve.body import RefusedError, read_body, read_items
from electra_dist.serve.counts import Counts
from electra_dist.serve.page import render_page
from electra_dist.serve.schema import input_form, openapi_of_predict
from electra_dist.serve.settings import Settings

#: Of HTTP, for a client that went away before its answer was ready; nobody reads it.
_CLIENT_GONE = 499


def make_app(models: Sequence[ServedModel], settings: Settings) -> FastAPI:
    """The application around copies of one model; each has a thread, which starts here and ends
    with the last answer. `state.batcher` is the queue.
    """
    model = models[0]
    counts = Counts()
    batcher = Batcher(
        [one.predict for one in models],
        settings.batch,
        settings.wait_seconds,
        settings.limits.waiting,
        counts.note_batch,
    )
    counts.show_waiting(lambda: batcher.waiting)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close)

    app = FastAPIOffline(
        redoc_url=None,
        title=f"electra-dist serve: {model.name}",
        summary=f"Predictions of a model for {model.kind}.",
        version=__version__,
        lifespan=lifespan,
    )
    app.state.batcher = batcher
    app.add_middleware(_Counted, counts=counts)
    app.add_exception_handler(RefusedError, _tell_refused)
    app.add_exception_handler(HTTPException, _tell_routing)
    app.add_exception_handler(Exception, _tell_failure)
    _add_routes(app, _Service(model, settings, batcher, counts))
    return app


def _add_routes(app: FastAPI, service: _Service) -> None:
    settings = service.settings
    guarded = []
    if settings.token is not None:
        guarded.append(Depends(_token_check(settings.token)))
    app.add_api_route(
        "/predict",
        service.predict,
        methods=["POST"],
        summary="Predictions of some inputs, in their order",
        dependencies=guarded,
        openapi_extra=openapi_of_predict(service.form, settings.limits.inputs),
        response_class=Response,
    )
    app.add_api_route("/health", service.health, summary="Whether it is ready")
    app.add_api_route(
        "/metrics",
        service.metrics,
        summary="Figures for Prometheus",
        dependencies=guarded,
        response_class=PlainTextResponse,
    )
    app.add_api_route("/", service.page, include_in_schema=False, response_class=HTMLResponse)


class _Service:
    """What the routes do."""

    def __init__(
        self, model: ServedModel, settings: Settings, batcher: Batcher, counts: Counts
    ) -> None:
        self.settings = settings
        self.form = input_form(model.kind, model.fields)
        self._model = model
        self._batcher = batcher
        self._counts = counts
        self._started = time.monotonic()
        self._page = render_page(model, self.form, asks_token=settings.token is not None)

    async def predict(self, request: Request) -> Response:
        """One prediction per input."""
        limits = self.settings.limits
        try:
            async with asyncio.timeout(limits.timeout_seconds):
                body = await read_body(request.stream(), request.headers, limits.bytes)
                items = read_items(body, self._model, self.form, limits)
                predictions = await _while_connected(request, self._batcher.submit(items))
        except TimeoutError as error:
            raise RefusedError(
                504, f"no answer within {limits.timeout_seconds:g} seconds; send fewer inputs"
            ) from error
        except FullError as error:
            headers = {"Retry-After": str(error.seconds)}
            raise RefusedError(503, f"{error}; try again later", headers) from error
        except InputError as error:
            raise RefusedError(422, f"inputs[{error.index}]: {error}") from error
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)
        contents = [prediction.content for prediction in predictions]
        return _json({"predictions": contents, "model": self._model.name})

    async def health(self) -> Response:
        """Ready, and what for; status 503 where the model answers no more."""
        ready = self._batcher.is_alive
        content = {
            "ready": ready,
            "model": self._model.name,
            "task": self._model.kind,
            "uptime_seconds": round(time.monotonic() - self._started, 3),
            "waiting_inputs": self._batcher.waiting,
        }
        return _json(content, 200 if ready else 503)

    async def metrics(self) -> Response:
        """The figures of `Counts`."""
        return Response(self._counts.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def page(self) -> Response:
        """The form."""
        return HTMLResponse(self._page.html, headers={"Content-Security-Policy": self._page.policy})


async def _while_connected(request: Request, future: Future[list[Any]]) -> list[Any]:
    """The result of `future`, which is cancelled when the client goes away or time is up."""
    answer = asyncio.wrap_future(future)
    # after the whole body nothing but a disconnect can come
    goodbye = asyncio.ensure_future(request.receive())
    goodbye.add_done_callback(lambda _: answer.cancel())
    try:
        return await answer
    except asyncio.CancelledError:
        if goodbye.done() and not goodbye.cancelled():
            raise ClientDisconnect from None
        raise
    finally:
        goodbye.cancel()


def _token_check(token: str) -> Any:
    """A dependency that lets through who sends `token`."""
    expected = token.encode()

    async def check(
        found: HTTPAuthorizationCredentials | None = Depends(HTTPBearer(auto_error=False)),  # noqa: B008
    ) -> None:
        given = b""
        if found is not None:
            given = found.credentials.encode()
        if not secrets.compare_digest(given, expected):
            raise RefusedError(
                401,
                "the bearer token is missing or wrong; send the header Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )

    return check


class _Counted:
    """Counts the requests for predictions, by status and time."""

    def __init__(self, app: ASGIApp, counts: Counts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/predict":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            self._counts.note_request(status, time.monotonic() - started)


# --- what a client is told ------------------------------------------------------------------------


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        orjson.dumps(content),
        status_code=status,
        headers=headers,
        media_type="application/json",
    )


def _tell_refused(request: Request, error: Any) -> Response:
    return _json({"error": str(error)}, error.status, error.headers)


def _tell_routing(request: Request, error: Any) -> Response:
    """No such path, or not with this method."""
    sentence = f"{request.method} {request.url.path}: {error.detail}; /docs says what there is"
    return _json({"error": sentence}, error.status_code, error.headers)


def _tell_failure(request: Request, error: Exception) -> Response:
    """A mistake of ours: the traceback goes to the log of the server, never to the client."""
    put("".join(traceback.format_exception(error)).rstrip(), to_error=True)
    return _json({"error": "the server failed; its log says why"}, 500)
