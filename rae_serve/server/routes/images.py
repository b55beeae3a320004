"""Images from seeds."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request, Response

from rae_serve.engine import Engine
from rae_serve.errors import InvalidInput, NotFound
from rae_serve.noise import random_seed
from rae_serve.server import responses, waiting
from rae_serve.server.catalog import Catalog
from rae_serve.server.openapi import binary, failures, outcomes
from rae_serve.server.schemas import Index, SampleRequest, SampleResponse, Seed

IfNoneMatch = Annotated[str | None, Header(description="An ETag that the client has.")]

_SHORT_AGE: Final = "max-age=60"
_FOREVER: Final = "max-age=31536000, immutable"
_IMAGE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": binary("png"), "description": "The image."},
    304: {"description": "The client has it already."},
    **failures(404, 422, 429, 503),
}


def routes(catalog: Catalog) -> APIRouter:
    """`/v1/sample`, and every image by its own address."""
    router = APIRouter(tags=["images"], default_response_class=Response)
    # What needs a key is no affair of a cache that others share.
    kept_by = "private" if catalog.settings.api_keys else "public"

    @router.post(
        "/v1/sample",
        responses=outcomes("The images.", SampleResponse, "png", "webp", "jpeg", "npy", "zip"),
    )
    async def sample(sampling: SampleRequest, request: Request) -> Response:
        """Generate images."""
        engine = catalog.engine(sampling.model)
        if sampling.n > catalog.settings.max_images:
            raise InvalidInput("n", f"must be at most {catalog.settings.max_images}, not {sampling.n}")
        seed = random_seed() if sampling.seed is None else sampling.seed
        pixels = await waiting.result(
            request,
            lambda until: engine.submit_sample(
                sampling.n, seed=seed, offset=sampling.offset, temperature=sampling.temperature, deadline=until
            ),
        )
        return await responses.sampled(engine, pixels, sampling.format, seed, sampling.offset)

    @router.get("/v1/models/{name}/images/{seed}/{index}.png", responses=_IMAGE)
    async def show_image(
        request: Request, name: str, seed: Seed, index: Index, if_none_match: IfNoneMatch = None
    ) -> Response:
        """One image by its seed and row."""
        return await _image(request, catalog.engine(name), seed, index, if_none_match, f"{kept_by}, {_SHORT_AGE}")

    @router.get("/v1/models/{name}/digests/{digest}/images/{seed}/{index}.png", responses=_IMAGE)
    async def show_immutable_image(
        request: Request, name: str, digest: str, seed: Seed, index: Index, if_none_match: IfNoneMatch = None
    ) -> Response:
        """The same, for ever: its address holds the model's digest, so it never changes."""
        engine = catalog.engine(name)
        if digest != engine.manifest.digest:
            raise NotFound(f"model {name!r} has the digest {engine.manifest.digest}, not {digest}")
        return await _image(request, engine, seed, index, if_none_match, f"{kept_by}, {_FOREVER}")

    return router


async def _image(
    request: Request, engine: Engine, seed: int, index: int, if_none_match: str | None, cache: str
) -> Response:
    etag = f'"{engine.manifest.digest[:32]}-{seed}-{index}"'
    headers = {**responses.headers(engine, seed), "ETag": etag, "Cache-Control": cache}
    if if_none_match is not None and _matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    pixels = await waiting.result(
        request, lambda until: engine.submit_sample(1, seed=seed, offset=index, deadline=until)
    )
    return Response(await responses.picture(pixels[0]), headers=headers, media_type="image/png")


def _matches(if_none_match: str, etag: str) -> bool:
    """Weak comparison, as RFC 9110 asks of If-None-Match."""
    known = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in known or known == ["*"]
