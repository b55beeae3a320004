"""Additions to FastAPI's OpenAPI document: problem responses, API keys, and working examples."""

from __future__ import annotations

import copy
from typing import Any, Final, get_args

from fastapi import FastAPI
from pydantic import BaseModel

from rae_serve.errors import NotFound
from rae_serve.images import MEDIA_TYPES
from rae_serve.manifest import Manifest
from rae_serve.server import problems
from rae_serve.server.catalog import Catalog
from rae_serve.server.problems import Problem
from rae_serve.server.schemas import InferenceRequest

_REFERENCE: Final = "#/components/schemas/{model}"
_PROBLEM_TEXTS: Final = {
    400: "The body is not what its Content-Type says.",
    401: "The request has no API key, or one that the server does not know.",
    404: "There is no such model or attribute.",
    408: "The body took too long to arrive.",
    413: "The body is larger than the limit.",
    415: "The Content-Type of the body is not supported here.",
    422: "The value of a field is not valid.",
    429: "Too many rows wait already; try again after the seconds in Retry-After.",
    503: "The request waited longer than the time limit; try again after the seconds in Retry-After.",
}
BINARY_SCHEMA: Final = {"type": "string", "format": "binary"}
_PROBLEMS_WITH_BODY: Final = (400, 404, 408, 413, 415, 422, 429, 503)

_ADDED: Final = (Problem, InferenceRequest)  # the schemas that `install` adds, with those in them
ResponseDocs = dict[int | str, dict[str, Any]]  # what FastAPI takes as `responses=`


def problem_docs(*statuses: int) -> ResponseDocs:
    """Describe the problem responses of a route, one for each status."""
    schema = {problems.MEDIA_TYPE: {"schema": {"$ref": _REFERENCE.format(model=Problem.__name__)}}}
    return {status: {"description": _PROBLEM_TEXTS[status], "content": schema} for status in statuses}


def file_docs(*formats: str) -> dict[str, Any]:
    """Describe the content of a response that is a file in one of the formats, such as "png"."""
    return {MEDIA_TYPES[name]: {"schema": BINARY_SCHEMA} for name in formats}


def response_docs(description: str, model: type[BaseModel], formats: Any) -> ResponseDocs:
    """Describe all responses of a route that takes a body.

    Args:
        description: What a successful response holds.
        model: The schema of a successful response in JSON.
        formats: The Literal of all formats of a successful response, such as `schemas.PictureFormat`.
    """
    # An animation has the media type of a picture; FastAPI describes JSON by the model.
    files = [name for name in get_args(formats) if name in MEDIA_TYPES and name != "json"]
    return with_problems({"content": file_docs(*files), "model": model, "description": description})


def with_problems(success: dict[str, Any]) -> ResponseDocs:
    """Describe all responses of a route that takes a body, by the description of a successful one."""
    return {200: success, **problem_docs(*_PROBLEMS_WITH_BODY)}


def json_docs(model: type[BaseModel]) -> dict[str, Any]:
    """Describe content in JSON; `model` is one of `_ADDED`, because FastAPI knows a route's own models only."""
    return {MEDIA_TYPES["json"]: {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}}


def install(app: FastAPI, catalog: Catalog) -> None:
    """Add problems, keys and examples to the OpenAPI document of an app; call it after the routes are there.

    The examples are made at every request of the document, because the default model may change.
    """
    plain = app.openapi()  # made here and not on request: it takes a tenth of a second and would block the server

    def openapi() -> dict[str, Any]:
        document = copy.deepcopy(plain)
        for model in _ADDED:
            schema = model.model_json_schema(ref_template=_REFERENCE)
            document["components"]["schemas"] |= {**schema.pop("$defs"), model.__name__: schema}
        if catalog.settings.api_keys:
            _add_keys(document)
            return document  # without examples: they name a model, and anybody may read the document
        try:
            name = catalog.default().name
            manifest = catalog.engine(name).manifest
        except NotFound:  # without the model there are no examples
            return document
        for path, methods in document["paths"].items():
            for operation in methods.values():
                _add_parameter_examples(operation.get("parameters", []), name, manifest)
                _add_body_example(operation, _example_bodies(manifest).get(path))
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation says


def _add_keys(document: dict[str, Any]) -> None:
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}]
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["responses"] |= {str(status): docs for status, docs in problem_docs(401).items()}


def _add_parameter_examples(parameters: list[dict[str, Any]], name: str, manifest: Manifest) -> None:
    digest = manifest.digest
    values = {"name": name, "digest": digest, "version": digest, "seed": 7, "index": 3, "model": name}
    for parameter in parameters:
        if parameter["name"] in values:
            parameter["example"] = values[parameter["name"]]


def _add_body_example(operation: dict[str, Any], example: dict[str, Any] | None) -> None:
    if example is not None:
        operation["requestBody"]["content"]["application/json"]["example"] = example


def _example_bodies(manifest: Manifest) -> dict[str, dict[str, Any]]:
    ends = {"start": {"seed": 7}, "end": {"seed": 7, "index": 1}}
    integer = {"shape": [1], "datatype": "INT64"}
    inference = {"inputs": [{"name": "seed", **integer, "data": [7]}, {"name": "row", **integer, "data": [3]}]}
    marked = {side: [{"seed": seed, "index": row} for row in range(6)] for side, seed in (("has", 7), ("lacks", 8))}
    bodies: dict[str, dict[str, Any]] = {
        "/v1/sample": {"n": 16, "seed": 7},
        "/v1/decode": {"latents": [manifest.latent.mean]},
        "/v2/models/{name}/infer": inference,
        "/v2/models/{name}/versions/{version}/infer": inference,
        "/v1/attributes": marked,
        "/v1/interpolate": {**ends, "steps": 8, "space": "noise", "path": "spherical"},
    }
    if manifest.attributes:
        attribute = next(iter(manifest.attributes))
        bodies["/v1/edit"] = {"point": {"seed": 7}, "attribute": attribute, "strengths": [-1, 0, 1]}
    return bodies
