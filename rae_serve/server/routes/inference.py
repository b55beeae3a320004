"""Routes of the Open Inference Protocol, version 2, over REST.

https://github.com/kserve/open-inference-protocol specifies the protocol, and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md its binary data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from importlib.metadata import version as version_of
from typing import Any, Final, NamedTuple

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from rae_serve.bundle import GRAPHS
from rae_serve.engine import Engine
from rae_serve.images import MEDIA_TYPES
from rae_serve.server import openapi, problems, responses, tensors, waiting
from rae_serve.server.catalog import Catalog
from rae_serve.server.content_types import BINARY, content_type, is_json, unsupported
from rae_serve.server.schemas import (
    HEADER_LENGTH,
    HeaderLength,
    InferenceRequest,
    InferenceResponse,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    validate_json,
)
from rae_serve.server.tensors import Array, TensorSpec

_PLATFORM: Final = "onnx_onnxv1"  # the protocol's name for ONNX
_EXTENSIONS: Final = ["binary_tensor_data"]
_RESPONSE_DOCS: Final = openapi.with_problems(
    {
        "content": {BINARY: {"schema": openapi.BINARY_SCHEMA}},
        "model": InferenceResponse,
        "description": "The outputs: JSON, or JSON and then binary data.",
        "headers": {
            HEADER_LENGTH: {
                "schema": {"type": "integer"},
                "description": "The length of the JSON in bytes, if binary data follows it.",
            }
        },
    }
)
_BODY_DOCS: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {**openapi.json_docs(InferenceRequest), BINARY: {"schema": openapi.BINARY_SCHEMA}},
    }
}

Submit = Callable[[Mapping[str, Array], float, float], Future[Array]]  # of inputs, temperature and deadline


class _Model(NamedTuple):
    """A model of the protocol: a graph of a bundle, or its whole generator."""

    engine: Engine
    inputs: tuple[TensorSpec, ...]
    output: TensorSpec
    submit: Submit


def routes(catalog: Catalog) -> APIRouter:
    """Return the routes below `/v2`."""
    router = APIRouter(prefix=problems.INFERENCE_PROTOCOL, tags=["Open Inference Protocol"])
    missing = openapi.problem_docs(404, 422)
    infer_docs: dict[str, Any] = {
        "response_class": Response,
        "responses": _RESPONSE_DOCS,
        "openapi_extra": _BODY_DOCS,
    }

    @router.get("")
    @router.get("/", include_in_schema=False)  # the protocol's text has the one, its OpenAPI document the other
    async def show_server() -> ServerMetadata:
        """Show the name, the version and the extensions of the server."""
        return ServerMetadata(name="rae-serve", version=version_of("rae-serve"), extensions=_EXTENSIONS)

    @router.get("/health/live")
    async def show_live() -> ServerLive:
        """Say that the server runs."""
        return ServerLive(live=True)

    @router.get("/health/ready", responses=openapi.problem_docs(503))
    async def show_ready() -> ServerReady:
        """Say that all models can be used, or answer 503."""
        if not catalog.ready():
            raise HTTPException(503, "not all models can be used yet; the server's log says which are missing")
        return ServerReady(ready=True)

    @router.get("/models/{name}", responses=missing)
    async def show_model(name: str) -> ModelMetadata:
        """Show the inputs and outputs of a model."""
        return _metadata(catalog, name)

    @router.get("/models/{name}/versions/{version}", responses=missing)
    async def show_version(name: str, version: str) -> ModelMetadata:
        """Show the inputs and outputs of a model, if it has this digest."""
        return _metadata(catalog, name, version)

    @router.get("/models/{name}/ready", responses=missing)
    async def show_model_ready(name: str) -> ModelReady:
        """Say that a model can be used, or answer 404."""
        _model(catalog, name)
        return ModelReady(name=name, ready=True)

    @router.get("/models/{name}/versions/{version}/ready", responses=missing)
    async def show_version_ready(name: str, version: str) -> ModelReady:
        """Say that a model with this digest can be used, or answer 404."""
        _model(catalog, name, version)
        return ModelReady(name=name, ready=True)

    @router.post("/models/{name}/infer", **infer_docs)
    async def infer(name: str, request: Request, header_length: HeaderLength = None) -> Response:
        """Run a model."""
        return await _infer(catalog, request, header_length, name)

    @router.post("/models/{name}/versions/{version}/infer", **infer_docs)
    async def infer_version(
        name: str, version: str, request: Request, header_length: HeaderLength = None
    ) -> Response:
        """Run a model, if it has this digest."""
        return await _infer(catalog, request, header_length, name, version)

    return router


def _model(catalog: Catalog, name: str, version: str | None = None) -> _Model:
    """Return the model that a name of the protocol stands for.

    Args:
        catalog: The bundles.
        name: The name of a bundle, which is its generator, or this name with `.prior`, `.decoder` or `.encoder`.
        version: The digest that the bundle must have; None accepts the bundle as it is now.

    Raises:
        NotFound: There is no such model, or it has another digest.
    """
    stem, _, graph = name.rpartition(".")
    # The name of a bundle may itself end in ".decoder".
    if name in catalog.engines or graph not in GRAPHS:
        stem, graph = name, ""
    engine = catalog.engine(stem, version)
    manifest = engine.manifest
    noise = TensorSpec("noise", "FP32", (manifest.noise.dim,))
    latents = TensorSpec("latents", "FP32", (manifest.latent.dim,))
    images = TensorSpec("images", "UINT8", manifest.image.shape)
    match graph:
        case "prior":
            return _Model(engine, (noise,), latents, _of_one(engine.submit_latents))
        case "decoder":
            return _Model(engine, (latents,), images, _of_one(engine.submit_decode))
        case "encoder":
            return _Model(engine, (images,), latents, _of_one(engine.submit_encode))

    def generate(given: Mapping[str, Array], temperature: float, deadline: float) -> Future[Array]:
        return engine.submit_rows(given["seed"], given["row"], temperature=temperature, deadline=deadline)

    return _Model(engine, (TensorSpec("seed", "INT64"), TensorSpec("row", "INT64")), images, generate)


def _of_one(submit: Callable[[Array, float], Future[Array]]) -> Submit:
    """Return the `submit` of a model that takes one input and no temperature."""

    def submit_one(given: Mapping[str, Array], temperature: float, deadline: float) -> Future[Array]:
        (array,) = given.values()
        return submit(array, deadline)

    return submit_one


def _metadata(catalog: Catalog, name: str, version: str | None = None) -> ModelMetadata:
    model = _model(catalog, name, version)
    return ModelMetadata(
        name=name,
        versions=[model.engine.manifest.digest],
        platform=_PLATFORM,
        inputs=[spec.metadata() for spec in model.inputs],
        outputs=[model.output.metadata()],
    )


async def _infer(
    catalog: Catalog, request: Request, header_length: int | None, name: str, version: str | None = None
) -> Response:
    """Run a model on the inputs of a request.

    Args:
        catalog: The bundles.
        request: The request, whose deadline holds.
        header_length: The length of the JSON in the body; None if all of the body is JSON.
        name: The name of the model.
        version: The digest that its bundle must have; None accepts the bundle as it is now.

    Raises:
        RaeServeError: There is no such model, or the request cannot be met.
        RequestValidationError: The JSON is not a request of the protocol.
        HTTPException: The Content-Type is not supported (415).
    """
    model = _model(catalog, name, version)
    media_type = content_type(request.headers)
    # Clients of the protocol often send no Content-Type.
    if media_type not in ("", BINARY) and not is_json(media_type):
        raise HTTPException(415, unsupported(media_type, MEDIA_TYPES["json"], BINARY))
    body = await request.body()

    def read() -> tuple[InferenceRequest, dict[str, Array], bool]:
        head, binary = tensors.split(body, header_length)
        asked = validate_json(InferenceRequest, head)
        given = tensors.read_inputs(asked, binary, model.inputs, catalog.settings.max_images)
        return asked, given, tensors.wants_binary(asked, model.output)

    asked, given, wants_binary = await waiting.in_thread_if_large(len(body), read)
    temperature = asked.parameters.temperature
    array = await waiting.result(request, lambda deadline: model.submit(given, temperature, deadline))

    def write() -> tuple[bytes, bytes]:
        output, binary = tensors.write_output(array, model.output, binary=wants_binary)
        digest = model.engine.manifest.digest
        head = InferenceResponse(model_name=name, model_version=digest, id=asked.id, outputs=[output])
        return head.model_dump_json(exclude_none=True).encode(), binary

    head, binary = await waiting.in_thread_if_large(array.nbytes, write)
    headers = responses.model_headers(model.engine)
    if not wants_binary:
        return Response(head, headers=headers, media_type=MEDIA_TYPES["json"])
    return Response(head + binary, headers={**headers, HEADER_LENGTH: str(len(head))}, media_type=BINARY)
