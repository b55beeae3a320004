"""Routes that generate images from seeds."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Header, Request, Response

from rae_serve import arrays, png
from rae_serve.noise import random_seed
from rae_serve.server import responses, waiting
from rae_serve.server.catalog import Catalog
from rae_serve.server.openapi import ResponseDocs, file_docs, problem_docs, response_docs
from rae_serve.server.schemas import Index, PictureFormat, SampleRequest, SampleResponse, Seed

IfNoneMatch = Annotated[str | None, Header(description="The ETag of an image that the client already has.")]

SAMPLE: Final = "/v1/sample"
IMAGE: Final = "/v1/models/{name}/images/{seed}/{index}.png"
_ONE_MINUTE: Final = "max-age=60"
_FOREVER: Final = "max-age=31536000, immutable"
_IMAGE_DOCS: Final[ResponseDocs] = {
    200: {"content": file_docs("png"), "description": "The image."},
    304: {"description": "The client already has the image."},
    **problem_docs(404, 422, 429, 503),
}


def routes(catalog: Catalog) -> APIRouter:
    """Return the routes `/v1/sample` and `/v1/models/{name}/…/{index}.png`."""
    router = APIRouter(tags=["images"], default_response_class=Response)

    @router.post(SAMPLE, responses=response_docs("The images.", SampleResponse, PictureFormat))
    async def post_sample(sampling: SampleRequest, request: Request) -> Response:
        """Generate images from a seed."""
        return await sample(catalog, sampling, request)

    @router.get(IMAGE, responses=_IMAGE_DOCS)
    async def get_image(
        request: Request, name: str, seed: Seed, index: Index, if_none_match: IfNoneMatch = None
    ) -> Response:
        """Show the image of a seed and a row. Caches keep it for a minute, because the model may be replaced."""
        return await show_image(catalog, request, name, seed, index, if_none_match)

    @router.get("/v1/models/{name}/digests/{digest}/images/{seed}/{index}.png", responses=_IMAGE_DOCS)
    async def get_immutable_image(
        request: Request, name: str, digest: str, seed: Seed, index: Index, if_none_match: IfNoneMatch = None
    ) -> Response:
        """Show the image of a seed and a row. Caches keep it forever, because the address has the model's digest."""
        return await show_image(catalog, request, name, seed, index, if_none_match, digest=digest)

    return router


async def sample(catalog: Catalog, sampling: SampleRequest, request: Request) -> Response:
    """Generate the images that a request to SAMPLE asks for.

    Args:
        catalog: The models.
        sampling: The body of the request.
        request: The request, whose deadline holds.

    Raises:
        RaeServeError: The request cannot be met.
    """
    engine = catalog.engine(sampling.model)
    arrays.at_most("n", sampling.n, catalog.settings.max_images)
    seed = random_seed() if sampling.seed is None else sampling.seed
    pixels = await waiting.result(
        request,
        lambda deadline: engine.submit_sample(
            sampling.n, seed=seed, offset=sampling.offset, temperature=sampling.temperature, deadline=deadline
        ),
    )
    return await responses.sample_response(engine, pixels, sampling.format, seed, sampling.offset)


async def show_image(
    catalog: Catalog,
    request: Request,
    name: str,
    seed: int,
    index: int,
    if_none_match: str | None,
    *,
    digest: str | None = None,
) -> Response:
    """Show the image of a seed and a row, or say that the client has it.

    Args:
        catalog: The models.
        request: The request, whose deadline holds.
        name: The name of the model.
        seed: The seed.
        index: The row of the seed.
        if_none_match: The ETags of images that the client has.
        digest: The digest that the model must have; None accepts the model as it is now.

    Raises:
        RaeServeError: There is no such model, or the request cannot be met.
    """
    engine = catalog.engine(name, digest)
    # A response that needs a key must not be kept in a cache that several users share.
    cache_scope = "private" if catalog.settings.api_keys else "public"
    cache_control = f"{cache_scope}, {_FOREVER if digest else _ONE_MINUTE}"
    # Servers with different libraries make the same pixels, but not the same bytes.
    etag = f'"{engine.manifest.digest[:32]}-{seed}-{index}-{png.REVISION}"'
    headers = {**responses.model_headers(engine, seed), "ETag": etag, "Cache-Control": cache_control}
    if if_none_match is not None and _matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    pixels = await waiting.result(
        request, lambda deadline: engine.submit_sample(1, seed=seed, offset=index, deadline=deadline)
    )
    return Response(await responses.png(pixels[0]), headers=headers, media_type="image/png")


def _matches(if_none_match: str, etag: str) -> bool:
    """Return whether the header lists the ETag, by the weak comparison that RFC 9110 demands for If-None-Match."""
    known = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in known or known == ["*"]
