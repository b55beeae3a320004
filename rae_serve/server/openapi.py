"""What FastAPI's OpenAPI document lacks: the schema of problems, keys, and examples that run as they stand."""

from __future__ import annotations

import copy
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel

from rae_serve.errors import NotFound
from rae_serve.images import MEDIA_TYPES
from rae_serve.manifest import Manifest
from rae_serve.server import problems
from rae_serve.server.catalog import Catalog
from rae_serve.server.problems import Problem

REFERENCE: Final = "#/components/schemas/{model}"
_STATUSES: Final = {
    400: "The body cannot be read as what it is declared to be.",
    401: "There is no key with the request, or none that the server knows.",
    404: "There is no such model, or no such attribute.",
    408: "The body took too long to come.",
    413: "The body is larger than the limit.",
    415: "The body is of a kind that is not taken here.",
    422: "A field does not fit.",
    429: "Too much waits already; Retry-After says when to come back.",
    503: "It waited longer than the time limit; Retry-After says when to come back.",
}
_OF_A_BODY: Final = (400, 404, 408, 413, 415, 422, 429, 503)


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problem details of these statuses."""
    # `install` puts the schema there.
    schema = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _STATUSES[status], "content": schema} for status in statuses}


def binary(*formats: str) -> dict[str, Any]:
    """The media types of these formats, each an opaque file."""
    return {MEDIA_TYPES[name]: {"schema": {"type": "string", "format": "binary"}} for name in formats}


def outcomes(description: str, model: type[BaseModel], *formats: str) -> dict[int | str, dict[str, Any]]:
    """200 as JSON or a file of these formats, and every failure."""
    return {200: {"content": binary(*formats), "model": model, "description": description}, **failures(*_OF_A_BODY)}


def install(app: FastAPI, catalog: Catalog) -> None:
    """Complete the document of the routes an app has now; examples are of the default model, as it is when asked."""
    plain = app.openapi()  # not when asked: it takes a tenth of a second, in which nobody is answered

    def openapi() -> dict[str, Any]:
        document = copy.deepcopy(plain)
        problem = Problem.model_json_schema(ref_template=REFERENCE)
        document["components"]["schemas"] |= {**problem.pop("$defs"), "Problem": problem}
        if catalog.settings.api_keys:
            _of_keys(document)
            return document  # which needs no key, so no example gives away what needs one
        try:
            name = catalog.default()
            manifest = catalog.engine(name).manifest
        except NotFound:  # no model, no example
            return document
        for path, methods in document["paths"].items():
            for operation in methods.values():
                _of_parameters(operation.get("parameters", []), name, manifest)
                _of_body(operation, _bodies(manifest).get(path))
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation says to


def _of_keys(document: dict[str, Any]) -> None:
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}]
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["responses"] |= {str(status): answer for status, answer in failures(401).items()}


def _of_parameters(parameters: list[dict[str, Any]], name: str, manifest: Manifest) -> None:
    values = {"name": name, "digest": manifest.digest, "seed": 7, "index": 3, "model": name}
    for parameter in parameters:
        if parameter["name"] in values:
            parameter["example"] = values[parameter["name"]]


def _of_body(operation: dict[str, Any], example: dict[str, Any] | None) -> None:
    if example is not None:
        operation["requestBody"]["content"]["application/json"]["example"] = example


def _bodies(manifest: Manifest) -> dict[str, dict[str, Any]]:
    ends = {"start": {"seed": 7}, "end": {"seed": 7, "index": 1}}
    bodies: dict[str, dict[str, Any]] = {
        "/v1/sample": {"n": 16, "seed": 7},
        "/v1/decode": {"latents": [manifest.latent.mean]},
        "/v1/interpolate": {**ends, "steps": 8, "space": "noise", "path": "spherical"},
    }
    if manifest.attributes:
        attribute = next(iter(manifest.attributes))
        bodies["/v1/edit"] = {"point": {"seed": 7}, "attribute": attribute, "strengths": [-1, 0, 1]}
    return bodies
