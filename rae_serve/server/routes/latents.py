"""Pictures to latents and back."""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from fastapi import APIRouter, Query, Request, Response

from rae_serve.arrays import Latents
from rae_serve.engine import Engine
from rae_serve.errors import InvalidInput
from rae_serve.server import responses, uploads, waiting
from rae_serve.server.catalog import Catalog
from rae_serve.server.openapi import outcomes
from rae_serve.server.schemas import MODEL, DecodeRequest, ImagesResponse, LatentsResponse, PictureFormat

CodeFormat = Literal["json", "npy"]
ModelName = Annotated[str | None, Query(description=MODEL)]
_PICTURES: Final = ("png", "webp", "jpeg", "npy", "zip")


def routes(catalog: Catalog) -> APIRouter:
    """`/v1/encode`, `/v1/decode`, `/v1/reconstruct`."""
    router = APIRouter(tags=["latents"], default_response_class=Response)

    @router.post("/v1/encode", responses=outcomes("The latents.", LatentsResponse, "npy"), openapi_extra=uploads.BODY)
    async def encode(request: Request, model: ModelName = None, format: CodeFormat = "json") -> Response:
        """Encode pictures: one as the body, several as a form's files or as base64 in JSON."""
        engine, codes, format_ = await _encoded(catalog, request, model, format, get_args(CodeFormat))
        return await responses.codes(engine, codes, format_)

    @router.post("/v1/decode", responses=outcomes("The images.", ImagesResponse, *_PICTURES))
    async def decode(decoding: DecodeRequest, request: Request) -> Response:
        """Make images of latents."""
        engine = catalog.engine(decoding.model)
        if len(decoding.latents) > catalog.settings.max_images:
            problem = f"must be at most {catalog.settings.max_images} rows, not {len(decoding.latents)}"
            raise InvalidInput("latents", problem)
        pixels = await waiting.result(request, lambda until: engine.submit_decode(decoding.latents, until))
        return await responses.pictures(engine, pixels, decoding.format)

    @router.post(
        "/v1/reconstruct",
        responses=outcomes("The images.", ImagesResponse, *_PICTURES),
        openapi_extra=uploads.BODY,
    )
    async def reconstruct(request: Request, model: ModelName = None, format: PictureFormat = "png") -> Response:
        """Encode pictures, given as to /v1/encode, and decode them again."""
        engine, codes, format_ = await _encoded(catalog, request, model, format, get_args(PictureFormat))
        pixels = await waiting.result(request, lambda until: engine.submit_decode(codes, until))
        return await responses.pictures(engine, pixels, format_)

    return router


async def _encoded(
    catalog: Catalog, request: Request, model: str | None, format_: str, formats: tuple[str, ...]
) -> tuple[Engine, Latents, str]:
    """The engine asked for, the latents of a request's pictures, and the format of its answer."""
    settings = catalog.settings
    upload = await uploads.receive(request, settings.max_images)
    engine = catalog.engine(upload.model or model)
    if upload.format is not None and upload.format not in formats:
        raise InvalidInput("format", f"must be one of {', '.join(formats)}, not {upload.format!r}")
    pixels = await waiting.in_thread(uploads.pixels, upload, engine.manifest.image, settings)
    codes = await waiting.result(request, lambda until: engine.submit_encode(pixels, until))
    return engine, codes, upload.format or format_
