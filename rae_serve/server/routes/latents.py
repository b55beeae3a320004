"""Routes that prepare pictures, encode them to latents, and decode latents to images."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from fastapi import APIRouter, Query, Request, Response

from rae_serve import arrays
from rae_serve.arrays import Pixels
from rae_serve.engine import Engine
from rae_serve.errors import InvalidInput
from rae_serve.server import responses, uploads, waiting
from rae_serve.server.catalog import Catalog
from rae_serve.server.openapi import response_docs
from rae_serve.server.schemas import MODEL, DecodeRequest, ImagesResponse, LatentsResponse, PictureFormat

LatentsFormat = Literal["json", "npy"]
ModelName = Annotated[str | None, Query(description=MODEL)]


def routes(catalog: Catalog) -> APIRouter:
    """Return the routes `/v1/prepare`, `/v1/encode`, `/v1/decode` and `/v1/reconstruct`."""
    router = APIRouter(tags=["latents"], default_response_class=Response)

    @router.post(
        "/v1/prepare",
        responses=response_docs("The images.", ImagesResponse, PictureFormat),
        openapi_extra=uploads.BODY_DOCS,
    )
    async def prepare(request: Request, model: ModelName = None, format: PictureFormat = "png") -> Response:
        """Show the images that a model encodes for pictures of any size. Send the pictures as for /v1/encode."""
        engine, pixels, format_ = await _prepare(catalog, request, model, format, get_args(PictureFormat))
        return await responses.images_response(engine, pixels, format_)

    @router.post(
        "/v1/encode",
        responses=response_docs("The latents.", LatentsResponse, LatentsFormat),
        openapi_extra=uploads.BODY_DOCS,
    )
    async def encode(request: Request, model: ModelName = None, format: LatentsFormat = "json") -> Response:
        """Encode pictures to latents. Send one as the body, or several as a form's files or as base64 in JSON."""
        engine, pixels, format_ = await _prepare(catalog, request, model, format, get_args(LatentsFormat))
        latents = await waiting.result(request, lambda deadline: engine.submit_encode(pixels, deadline))
        return await responses.latents_response(engine, latents, format_)

    @router.post("/v1/decode", responses=response_docs("The images.", ImagesResponse, PictureFormat))
    async def decode(decoding: DecodeRequest, request: Request) -> Response:
        """Decode latents to images."""
        engine = catalog.engine(decoding.model)
        arrays.at_most("latents", len(decoding.latents), catalog.settings.max_images, "rows")
        pixels = await waiting.result(request, lambda deadline: engine.submit_decode(decoding.latents, deadline))
        return await responses.images_response(engine, pixels, decoding.format)

    @router.post(
        "/v1/reconstruct",
        responses=response_docs("The images.", ImagesResponse, PictureFormat),
        openapi_extra=uploads.BODY_DOCS,
    )
    async def reconstruct(request: Request, model: ModelName = None, format: PictureFormat = "png") -> Response:
        """Encode pictures and decode them again. Send the pictures as for /v1/encode."""
        engine, pixels, format_ = await _prepare(catalog, request, model, format, get_args(PictureFormat))
        latents = await waiting.result(request, lambda deadline: engine.submit_encode(pixels, deadline))
        again = await waiting.result(request, lambda deadline: engine.submit_decode(latents, deadline))
        return await responses.images_response(engine, again, format_)

    return router


async def _prepare(
    catalog: Catalog, request: Request, model: str | None, format_: str, formats: tuple[str, ...]
) -> tuple[Engine, Pixels, str]:
    """Preprocess the pictures in the body of a request.

    Args:
        catalog: The models.
        request: The request; a JSON body may name the model and the format too, and then takes precedence.
        model: The model in the query, or None for the default model.
        format_: The format in the query.
        formats: The formats that a JSON body may name.

    Returns:
        The engine of the model, its images of the pictures, uint8 [N, H, W, C], and the format of the response.
    """
    settings = catalog.settings
    upload = await uploads.read_upload(request, settings.max_images)
    engine = catalog.engine(upload.model or model)
    if upload.format is not None and upload.format not in formats:
        raise InvalidInput("format", f"must be one of {', '.join(formats)}, not {upload.format!r}")
    pixels = await waiting.in_thread(uploads.preprocess, upload, engine.manifest.image, settings)
    return engine, pixels, upload.format or format_
