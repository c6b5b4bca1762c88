"""The HTTP side of the reward server."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from laser.core.errors import ConfigError, DataError, LaserError
from laser.core.state import pack_state, unpack_state
from laser.data.conversations import brief, kind_of
from laser.integrations.server.access import App, Guard
from laser.integrations.server.metrics import metrics_of, render
from laser.integrations.server.samples import RequestError, make_prompt, read_request, reply
from laser.integrations.server.worker import Worker

PATHS = ("/", "/get_reward", "/slime", "/score")
_ARRIVAL = 120  # seconds that a request may take to arrive
_STATE_BODY = 2**30  # bytes of a state


def make_app(worker: Worker, *, token: str | None, max_body: int) -> App:
    """The ASGI application.

    Args:
        worker: Answers the requests.
        token: What requests must carry; None: they must come from this machine.
        max_body: Most bytes of a request.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    requests: Counter[int] = Counter()

    def answered(value: Any, status: int = 200) -> Response:
        requests[status] += 1
        body = json.dumps(value, allow_nan=False).encode()
        return Response(body, status, media_type="application/json")

    async def score(request: Request) -> Response:
        format, samples = read_request(_parsed(await _body(request, max_body)))
        results = await worker.score(samples)
        if not await request.is_disconnected():
            for _, row in results:
                row.delivered = True  # another request with the same response is another sample
        return answered(reply(format, [scored for scored, _ in results]))

    async def feedback(request: Request) -> Response:
        body = _object(await _body(request, max_body))
        value, step = body.get("value"), _whole(body, "step")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise RequestError(f"value is {brief(value)}; send a number from 0 to 1")
        if step is None and body.get("prompt") is None:
            raise RequestError("the feedback names neither a prompt nor a step; send one of them, or both")
        prompt = None if body.get("prompt") is None else make_prompt("prompt", body["prompt"])
        number = await worker.call(lambda ledger, now: ledger.feedback(prompt, step, float(value)))
        return answered({"groups": number})

    async def learn(request: Request) -> Response:
        body = _object(await _body(request, max_body))
        step, groups = _whole(body, "step"), body.get("groups")
        if groups is not None and not (isinstance(groups, list) and all(isinstance(one, str) for one in groups)):
            raise RequestError(f"groups is {kind_of(groups)}; send a list of names, or none for all of the step")
        metrics = await worker.call(lambda ledger, now: ledger.learn(step, groups))
        return answered({"metrics": {name: value for name, value in metrics.items() if math.isfinite(value)}})

    async def read_state() -> Response:
        state = await worker.call(lambda ledger, now: ledger.state_dict())
        requests[200] += 1
        return Response(pack_state(state), media_type="application/octet-stream")

    async def write_state(request: Request) -> Response:
        state = unpack_state(await _body(request, _STATE_BODY, kind=None))
        await worker.call(lambda ledger, now: ledger.load_state_dict(state, now))
        return answered({"restored": True})

    async def health() -> Response:
        since = worker.busy_since
        busy = 0.0 if since is None else round(time.monotonic() - since, 3)
        return answered({"status": "ok", "waiting": worker.num_waiting, "busy_seconds": busy})

    async def metrics() -> Response:
        requests[200] += 1
        return Response(render(metrics_of(worker, requests)), media_type="text/plain; version=0.0.4")

    for path in PATHS:
        app.add_api_route(path, score, methods=["POST"])
    app.add_api_route("/feedback", feedback, methods=["POST"])
    app.add_api_route("/learn", learn, methods=["POST"])
    app.add_api_route("/state", read_state, methods=["GET"])
    app.add_api_route("/state", write_state, methods=["PUT"])
    app.add_api_route("/healthz", health, methods=["GET"])
    app.add_api_route("/metrics", metrics, methods=["GET"])
    _answer_errors(app, answered)
    return Guard(app, token)


def _answer_errors(app: FastAPI, answered: Callable[[Any, int], Response]) -> None:
    """Turn errors into JSON with one sentence."""

    async def refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestError)
        return answered({"error": str(error)}, error.status)

    async def failed(_request: Request, error: Exception) -> Response:
        return answered({"error": str(error)}, 409 if isinstance(error, ConfigError | DataError) else 503)

    async def unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        places = f"POST {', '.join(PATHS)}, /feedback, /learn; GET /state, /healthz, /metrics; PUT /state"
        return answered({"error": f"{request.method} {request.url.path} is not known; use {places}"}, error.status_code)

    app.add_exception_handler(RequestError, refused)
    app.add_exception_handler(LaserError, failed)
    app.add_exception_handler(HTTPException, unknown)


async def _body(request: Request, longest: int, kind: str | None = "application/json") -> bytes:
    """The body of a request.

    Raises:
        RequestError: It is too long or too slow, or not of the kind.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind is not None and given != kind:
        raise RequestError(f"the content type is {given or 'missing'}; send {kind}", 415)
    parts, size = [], 0
    try:
        async with asyncio.timeout(_ARRIVAL):
            async for part in request.stream():
                size += len(part)
                if size > longest:
                    raise RequestError(f"the request is longer than {longest} bytes; send fewer samples at once", 413)
                parts.append(part)
    except TimeoutError as error:
        raise RequestError(f"the request did not arrive within {_ARRIVAL} seconds; send it again", 408) from error
    return b"".join(parts)


def _parsed(body: bytes) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError(f"the request is not JSON ({reason}); send one JSON object") from error


def _object(body: bytes) -> Mapping[str, Any]:
    value = _parsed(body)
    if not isinstance(value, Mapping):
        raise RequestError(f"the request is {kind_of(value)}; send a JSON object")
    return value


def _whole(body: Mapping[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RequestError(f"{name} is {brief(value)}; send a whole number from 0")
    return value
