"""The one form of every error response: problem details, RFC 9457 (https://www.rfc-editor.org/rfc/rfc9457)."""

from __future__ import annotations

import http
import json
import logging
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rae_serve.errors import Expired, InvalidInput, NotFound, Overloaded
from rae_serve.server.content_types import content_type, is_json, unsupported

MEDIA_TYPE: Final = "application/problem+json"
# Below this address, an error is also what the Open Inference Protocol says.
INFERENCE_PROTOCOL: Final = "/v2"
REQUEST_ID: Final = "rae_serve.id"  # a key of the ASGI scope
log = logging.getLogger(__name__)
_KNOWN: Final = (InvalidInput, NotFound, Overloaded, Expired)  # what a route may raise


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    field: str
    problem: str


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = "about:blank"
    title: str = Field(description="The name of the status.")
    status: int
    detail: str = Field(description="What is wrong, and what to do.")
    errors: list[FieldProblem] = []
    error: str | None = Field(
        None, description=f"Below {INFERENCE_PROTOCOL} only: the detail, where clients of that protocol look for it."
    )


class _ProblemResponse(Response):
    """A problem, which has the field `error` too if the request is one of the Open Inference Protocol."""

    media_type = MEDIA_TYPE

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None) -> None:
        super().__init__(_json(problem), problem.status, headers)
        self.problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _of_inference_protocol(scope):
            self.body = _json(self.problem.model_copy(update={"error": self.problem.detail}))
            self.headers["Content-Length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def _of_inference_protocol(scope: Scope) -> bool:
    return f"{scope['path']}/".startswith(f"{INFERENCE_PROTOCOL}/")


def _json(problem: Problem) -> bytes:
    return problem.model_dump_json(exclude_defaults=True).encode()


def response(
    status: int,
    detail: str,
    errors: list[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem as an HTTP response.

    Args:
        status: The HTTP status, 400 or more.
        detail: A sentence for the person who reads the response.
        errors: The fields of the request that are wrong; none by default.
        headers: More headers of the response; none by default.
    """
    problem = Problem(title=http.HTTPStatus(status).phrase, status=status, detail=detail, errors=errors or [])
    return _ProblemResponse(problem, headers)


def expired_response() -> Response:
    """Return the response to a request that waited longer than the time limit."""
    return response(503, str(Expired()), headers={"Retry-After": "1"})


def install(app: FastAPI) -> None:
    """Make the app respond to every exception of its routes with problem details."""

    async def problem(request: Request, error: Exception) -> Response:
        return of(request, error)

    for kind in (*_KNOWN, Exception):
        app.add_exception_handler(kind, problem)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        return _validation_response(request, error)

    @app.exception_handler(HTTPException)
    async def http_exception(request: Request, error: HTTPException) -> Response:
        return response(error.status_code, _clear_detail(request.scope, str(error.detail)), headers=error.headers)


def of(request: Request, error: Exception) -> Response:
    """Return the response to an exception that a route raised."""
    match error:
        case InvalidInput():
            return response(422, str(error), [FieldProblem(field=error.field, problem=error.problem)])
        case NotFound():
            return response(404, str(error))
        case Overloaded():
            return response(429, str(error), headers={"Retry-After": str(error.retry_after_s)})
        case Expired():
            return expired_response()
    facts = {"id": request.scope.get(REQUEST_ID)}
    where = (request.method, request.url.path)
    log.error("unexpected error at %s %s", *where, exc_info=error, extra={"facts": facts})
    return response(500, "an error inside the server; the server's log has the details")


def _validation_response(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return response(400, f"the body is not JSON: {first['ctx']['error']}")
    media_type = content_type(request.headers)
    no_body = first["type"] == "missing" and not media_type
    if first["loc"] == ("body",) and not is_json(media_type) and not no_body:
        return response(415, unsupported(media_type, "application/json"))
    errors = [
        FieldProblem(field=".".join(map(str, e["loc"][1:])) or "body", problem=_sentence(e)) for e in error.errors()
    ]
    return response(422, "; ".join(f"{e.field}: {e.problem}" for e in errors), errors)


def _sentence(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "is not a field of this request"
    message = str(error["msg"])
    given = "" if error["type"] == "missing" else f", not {_short(error['input'])}"
    return message[0].lower() + message[1:] + given


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


class ProblemMiddleware:
    """ASGI middleware that turns an error response of any other form, such as BentoML's, into problem details."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        foreign: dict[str, Any] = {}

        async def send_problem(message: Message) -> None:
            if foreign:
                foreign["body"] += message.get("body", b"")
                if not message.get("more_body"):
                    detail = _clear_detail(scope, _detail_of(foreign["body"]))
                    await response(foreign["status"], detail, headers=foreign["headers"])(scope, receive, send)
                return
            if message["type"] == "http.response.start" and message["status"] >= 400:
                headers = {key.lower().decode(): value.decode("latin-1") for key, value in message["headers"]}
                if headers.get("content-type") != MEDIA_TYPE:
                    kept = {name: headers[name] for name in ("allow", "retry-after") if name in headers}
                    foreign.update(status=message["status"], body=b"", headers=kept)
                    return
            await send(message)

        await self.app(scope, receive, send_problem)


def _clear_detail(scope: Scope, detail: str) -> str:
    """Return a detail that says more, if the framework's own says too little."""
    match detail:
        case "Not Found" if _of_inference_protocol(scope):
            address = f"GET {INFERENCE_PROTOCOL}"
            return f"there is nothing at {scope['path']}; {address} lists the extensions that this server has"
        case "Not Found":
            return f"there is nothing at {scope['path']}; /docs lists the addresses"
        case "Method Not Allowed":
            return f"{scope['path']} does not take {scope['method']}"
        case "There was an error parsing the body":  # FastAPI's, for text that is not UTF-8 or is nested too deeply
            return "the body cannot be read as JSON"
    return detail


def _detail_of(body: bytes) -> str:
    """Return the message in the body of an error response of BentoML or Starlette."""
    text = body.decode("utf-8", "replace").strip()
    try:
        document = json.loads(text)
    except ValueError:
        return text
    if isinstance(document, list) and document:
        document = document[0]
    if not isinstance(document, dict):
        return text
    if isinstance(fields := document.get("detail"), list):  # from BentoML's validation
        return "; ".join(f"{'.'.join(map(str, field['loc']))}: {field['msg']}" for field in fields)
    return str(document.get("error") or document.get("detail") or text)
