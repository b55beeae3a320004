"""The HTTP API: validate, call an Engine, encode. `docs/http.md` tells its conventions."""

from __future__ import annotations

import base64
from importlib.metadata import version
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, Header, Path, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

from rae_serve import images, problems
from rae_serve.bundle import Manifest
from rae_serve.catalog import Catalog
from rae_serve.engine import MAX_TEMPERATURE, Engine
from rae_serve.errors import InvalidInput, NotFound
from rae_serve.images import MEDIA_TYPES
from rae_serve.noise import MAX_INTEGER, random_seed
from rae_serve.problems import Problem

Seed = Annotated[int, Path(ge=0, le=MAX_INTEGER, description="Of the noise.")]
Index = Annotated[int, Path(ge=0, le=MAX_INTEGER, description="The row of the seed.")]
IfNoneMatch = Annotated[str | None, Header(description="An ETag that the client has.")]

_SHORT_AGE: Final = "public, max-age=60"
_FOREVER: Final = "public, max-age=31536000, immutable"
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {
        "description": description,
        "content": {problems.MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
    }
    for status, description in (
        (400, "The body is no JSON."),
        (404, "There is no such model."),
        (415, "The body is not declared as JSON."),
        (422, "A field does not fit."),
        (429, "Too much waits already; Retry-After says when to come back."),
    )
}
_PICTURES: Final[dict[str, Any]] = {
    media_type: {"schema": {"type": "string", "format": "binary"}}
    for name, media_type in MEDIA_TYPES.items()
    if name != "json"
}


class SampleRequest(BaseModel):
    """Rows offset … offset + n − 1 of a seed, as images."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"n": 16, "seed": 7, "format": "png"}]})

    model: str | None = Field(None, description="A model's name; the default model where it is left out.")
    n: int = Field(1, ge=1, strict=True, description="How many images.")
    offset: int = Field(0, ge=0, le=MAX_INTEGER, strict=True, description="The first row.")
    seed: int | None = Field(None, ge=0, le=MAX_INTEGER, strict=True, description="Drawn where it is left out.")
    temperature: float = Field(
        1.0,
        ge=0.0,
        le=MAX_TEMPERATURE,
        strict=True,
        allow_inf_nan=False,
        description="A factor on the noise.",
    )
    format: Literal["png", "webp", "jpeg", "npy", "zip", "json"] = Field(
        "png",
        description="png, webp (lossless), jpeg: one picture, for n > 1 a grid of ⌈√n⌉ columns; npy: uint8 "
        "[n, H, W, C]; zip: a PNG for each; json: base64 PNGs.",
    )


class SampleResponse(BaseModel):
    """The answer in JSON."""

    model: str
    digest: str
    seed: int
    offset: int
    images: list[str] = Field(description="PNG files, base64.")


class ModelSummary(BaseModel):
    """A model in the list."""

    name: str
    digest: str
    kind: str
    default: bool = Field(description="Whether it is used where a request names none.")
    shape: tuple[int, int, int] = Field(description="Height, width and channels of its images.")
    latent_dim: int
    noise_dim: int


class ModelList(BaseModel):
    """All models."""

    models: list[ModelSummary]


class ModelDetail(BaseModel):
    """A model and its manifest."""

    name: str
    manifest: Manifest


def create_app(catalog: Catalog) -> FastAPI:
    """The API over the models of a catalog."""
    app = FastAPI(
        title="rae-serve",
        version=version("rae-serve"),
        description="Images from regularised auto-encoders. Row i of seed s is one image, always.",
    )
    problems.install(app)

    @app.get("/", include_in_schema=False)
    def root() -> Response:
        return RedirectResponse("/docs")

    @app.get("/v1/models", tags=["models"])
    def list_models() -> ModelList:
        """The models, and what goes in and out of each."""
        return ModelList(models=[_summary(catalog, name) for name in catalog.names()])

    @app.get("/v1/models/{name}", tags=["models"], responses=_only(404, 422))
    def show_model(name: str) -> ModelDetail:
        """One model's whole manifest."""
        return ModelDetail(name=name, manifest=catalog.engine(name).manifest)

    @app.post(
        "/v1/sample",
        tags=["images"],
        response_class=Response,
        responses={
            200: {"content": _PICTURES, "model": SampleResponse, "description": "The images."},
            **_PROBLEMS,
        },
    )
    def sample(request: SampleRequest) -> Response:
        """Generate images."""
        engine = catalog.engine(request.model)
        if request.n > catalog.settings.max_images:
            raise InvalidInput("n", f"must be at most {catalog.settings.max_images}, not {request.n}")
        seed = random_seed() if request.seed is None else request.seed
        pixels = engine.sample(request.n, seed=seed, offset=request.offset, temperature=request.temperature)
        body = _encoded(pixels, request.format, engine, seed, request.offset)
        return Response(body, headers=_headers(engine, seed), media_type=MEDIA_TYPES[request.format])

    image: dict[int | str, dict[str, Any]] = {
        200: {"content": {"image/png": _PICTURES["image/png"]}, "description": "The image."},
        304: {"description": "The client has it already."},
    }

    @app.get(
        "/v1/models/{name}/images/{seed}/{index}.png",
        tags=["images"],
        response_class=Response,
        responses={**image, **_only(404, 422, 429)},
    )
    def show_image(name: str, seed: Seed, index: Index, if_none_match: IfNoneMatch = None) -> Response:
        """One image by its seed and row."""
        return _image(catalog.engine(name), seed, index, if_none_match, _SHORT_AGE)

    @app.get(
        "/v1/models/{name}/digests/{digest}/images/{seed}/{index}.png",
        tags=["images"],
        response_class=Response,
        responses={**image, **_only(404, 422, 429)},
    )
    def show_immutable_image(
        name: str, digest: str, seed: Seed, index: Index, if_none_match: IfNoneMatch = None
    ) -> Response:
        """The same, for ever: its address holds the model's digest, so it never changes."""
        engine = catalog.engine(name)
        if digest != engine.manifest.digest:
            raise NotFound(f"model {name!r} has the digest {engine.manifest.digest}, not {digest}")
        return _image(engine, seed, index, if_none_match, _FOREVER)

    return app


def _only(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _PROBLEMS[status] for status in statuses}


def _summary(catalog: Catalog, name: str) -> ModelSummary:
    manifest = catalog.engine(name).manifest
    return ModelSummary(
        name=name,
        digest=manifest.digest,
        kind=manifest.model.kind,
        default=name == catalog.default(),
        shape=manifest.image.shape,
        latent_dim=manifest.latent.dim,
        noise_dim=manifest.noise.dim,
    )


def _headers(engine: Engine, seed: int) -> dict[str, str]:
    return {
        "RAE-Seed": str(seed),
        "RAE-Model": engine.bundle.name,
        "RAE-Digest": engine.manifest.digest,
    }


def _encoded(pixels: images.Pixels, format_: str, engine: Engine, seed: int, offset: int) -> bytes:
    match format_:
        case "npy":
            return images.encode_npy(pixels)
        case "zip":
            return images.encode_zip(pixels, [f"{seed}-{offset + i:06d}.png" for i in range(len(pixels))])
        case "json":
            answer = SampleResponse(
                model=engine.bundle.name,
                digest=engine.manifest.digest,
                seed=seed,
                offset=offset,
                images=[base64.b64encode(images.encode(image)).decode() for image in pixels],
            )
            return answer.model_dump_json().encode()
        case "png" | "webp" | "jpeg":
            return images.encode(images.grid(pixels), format_)
    raise AssertionError(format_)


def _image(engine: Engine, seed: int, index: int, if_none_match: str | None, cache: str) -> Response:
    etag = f'"{engine.manifest.digest[:32]}-{seed}-{index}"'
    headers = {**_headers(engine, seed), "ETag": etag, "Cache-Control": cache}
    if if_none_match is not None and _matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    pixels = engine.sample(1, seed=seed, offset=index)
    return Response(images.encode(pixels[0]), headers=headers, media_type="image/png")


def _matches(if_none_match: str, etag: str) -> bool:
    """Weak comparison, as RFC 9110 asks of If-None-Match."""
    known = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in known or known == ["*"]
