"""A client of the HTTP API: `with Client("http://127.0.0.1:3000") as rae: rae.sample(4, seed=7)`.

Images are exactly the pixels of the service, uint8 [N, H, W, C]. `AsyncClient` has the same methods, as coroutines.
Both need the extra `client`.
"""

from __future__ import annotations

import base64
import io
import operator
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from rae_serve import extras
from rae_serve.arrays import Pixels
from rae_serve.errors import RaeServeError
from rae_serve.images import encode
from rae_serve.interpolation import Path, Space

with extras.needed("client"):
    import httpx

Picture = Pixels | bytes  # an image [H, W, C], or the bytes of a picture file
Point = tuple[int, int] | npt.NDArray[np.float32] | bytes  # (seed, row), a latent [latent_dim], or a picture file

Array = TypeVar("Array")


class ServiceError(RaeServeError):
    """The service responded with an error.

    `status` is the HTTP status. `retry_after_s` is when to try again, or None if the response does not say.
    """

    def __init__(self, response: httpx.Response) -> None:
        try:
            detail = str(response.json()["detail"])
        except (ValueError, KeyError, TypeError):
            detail = response.text[:200] or response.reason_phrase
        super().__init__(f"{response.status_code}: {detail}")
        self.status = response.status_code
        after = response.headers.get("retry-after", "")
        self.retry_after_s = int(after) if after.isdigit() else None


class _Api(ABC, Generic[Array]):
    """The methods that Client and AsyncClient share. They return arrays, or coroutines that return arrays."""

    _http_class: type[httpx.Client] | type[httpx.AsyncClient]

    def __init__(
        self, address: str, *, model: str | None = None, api_key: str | None = None, timeout_s: float = 60.0
    ) -> None:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self.model = model
        self._http = self._http_class(base_url=address, headers=headers, timeout=timeout_s)

    @abstractmethod
    def _post(self, verb: str, **fields: Any) -> Array:
        """Send a request for an array to `/v1/{verb}`, and return the array."""

    def sample(self, n: int = 1, *, seed: int | None = None, offset: int = 0, temperature: float = 1.0) -> Array:
        """Generate images. Row i of seed s is always the same image.

        Args:
            n: How many images.
            seed: The seed of the noise. With None the service draws one; `draw` returns it too.
            offset: The first row of the seed.
            temperature: Factor on the gaussian columns of the noise, from 0 to 10.

        Returns:
            Images, uint8 [n, H, W, C]: rows offset … offset + n − 1.
        """
        return self._post("sample", n=n, seed=seed, offset=offset, temperature=temperature)

    def prepare(self, pictures: Sequence[Picture]) -> Array:
        """Return the images that the model encodes for pictures of any size, uint8 [N, H, W, C]."""
        return self._post("prepare", images=[_base64_file(picture) for picture in pictures])

    def encode(self, pictures: Sequence[Picture]) -> Array:
        """Encode pictures of any size to latents, float32 [N, latent_dim]."""
        return self._post("encode", images=[_base64_file(picture) for picture in pictures])

    def decode(self, latents: npt.ArrayLike) -> Array:
        """Decode latents [N, latent_dim] to images, uint8 [N, H, W, C]."""
        return self._post("decode", latents=np.asarray(latents).tolist())

    def reconstruct(self, pictures: Sequence[Picture]) -> Array:
        """Encode pictures of any size, and decode their latents to images, uint8 [N, H, W, C]."""
        return self._post("reconstruct", images=[_base64_file(picture) for picture in pictures])

    def interpolate(
        self, start: Point, end: Point, steps: int = 8, *, space: Space = "latent", path: Path = "linear"
    ) -> Array:
        """Generate images between two points.

        Args:
            start: The first point: (seed, row), a latent, or a picture file.
            end: The last point.
            steps: How many images, both ends included.
            space: "latent" interpolates latents, "noise" the noise of two (seed, row) points.
            path: "linear" is a straight line, "spherical" an arc.

        Returns:
            Images, uint8 [steps, H, W, C].
        """
        ends = {"start": _point(start), "end": _point(end)}
        return self._post("interpolate", **ends, steps=steps, space=space, path=path)

    def edit(self, point: Point, attribute: str, strengths: Sequence[float]) -> Array:
        """Generate images of a point with more or less of an attribute.

        Args:
            point: (seed, row), a latent, or a picture file.
            attribute: The name of an attribute of the model.
            strengths: Factors [S] on the attribute's direction, within ±100; negative values take it away.

        Returns:
            Images, uint8 [S, H, W, C].
        """
        moves = [float(strength) for strength in strengths]
        return self._post("edit", point=_point(point), attribute=attribute, strengths=moves)


class Client(_Api[npt.NDArray[Any]]):
    """Calls a service over HTTP. Its methods raise ServiceError if the service responds with an error.

    Args:
        address: The address of the service, such as "http://127.0.0.1:3000".
        model: The name of the model to use; None is the service's default model.
        api_key: The key for a service that needs one.
        timeout_s: The longest time without any data from the service, in seconds.
    """

    _http_class = httpx.Client
    _http: httpx.Client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the service."""
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """List the models of the service: name, digest, shapes and more."""
        return _models(self._http.get("/v1/models"))

    def attributes(self) -> dict[str, dict[str, Any]]:
        """Return the attributes of the model that `edit` takes, by name, as its manifest describes them."""
        model = self.model or _default(self._http.get("/v1/models"))
        return _attributes(self._http.get(_address(model)))

    def draw(self, n: int = 1, *, temperature: float = 1.0) -> tuple[npt.NDArray[Any], int]:
        """Let the service draw a seed; return images as `sample` does, and the seed that makes them again."""
        return _seeded(self._request("sample", n=n, temperature=temperature))

    def _post(self, verb: str, **fields: Any) -> npt.NDArray[Any]:
        return _array(self._request(verb, **fields))

    def _request(self, verb: str, **fields: Any) -> httpx.Response:
        return self._http.post(f"/v1/{verb}", json={"model": self.model, **fields, "format": "npy"})


class AsyncClient(_Api[Coroutine[Any, Any, npt.NDArray[Any]]]):
    """`Client` for asyncio: the same arguments, and the same methods as coroutines."""

    _http_class = httpx.AsyncClient
    _http: httpx.AsyncClient

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections to the service."""
        await self._http.aclose()

    async def models(self) -> list[dict[str, Any]]:
        """List the models of the service: name, digest, shapes and more."""
        return _models(await self._http.get("/v1/models"))

    async def attributes(self) -> dict[str, dict[str, Any]]:
        """Return the attributes of the model that `edit` takes, by name, as its manifest describes them."""
        model = self.model or _default(await self._http.get("/v1/models"))
        return _attributes(await self._http.get(_address(model)))

    async def draw(self, n: int = 1, *, temperature: float = 1.0) -> tuple[npt.NDArray[Any], int]:
        """Let the service draw a seed; return images as `sample` does, and the seed that makes them again."""
        return _seeded(await self._request("sample", n=n, temperature=temperature))

    async def _post(self, verb: str, **fields: Any) -> npt.NDArray[Any]:
        return _array(await self._request(verb, **fields))

    async def _request(self, verb: str, **fields: Any) -> httpx.Response:
        return await self._http.post(f"/v1/{verb}", json={"model": self.model, **fields, "format": "npy"})


def _point(point: Point) -> dict[str, Any]:
    match point:
        case (seed, row) if isinstance(point, tuple):
            return {"seed": operator.index(seed), "index": operator.index(row)}
        case bytes():
            return {"image": _base64_file(point)}
    return {"latent": np.asarray(point).tolist()}


def _base64_file(picture: Picture) -> str:
    """Return a picture file in base64; an image becomes a PNG file."""
    return base64.b64encode(picture if isinstance(picture, bytes) else encode(picture)).decode()


def _models(response: httpx.Response) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = _checked(response).json()["models"]
    return models


def _default(response: httpx.Response) -> str:
    return str(_checked(response).json()["default"])


def _address(model: str) -> str:
    return f"/v1/models/{quote(model, safe='')}"


def _attributes(response: httpx.Response) -> dict[str, dict[str, Any]]:
    attributes: dict[str, dict[str, Any]] = _checked(response).json()["manifest"]["attributes"]
    return attributes


def _seeded(response: httpx.Response) -> tuple[npt.NDArray[Any], int]:
    return _array(response), int(response.headers["rae-seed"])


def _array(response: httpx.Response) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(io.BytesIO(_checked(response).content), allow_pickle=False)
    return array


def _checked(response: httpx.Response) -> httpx.Response:
    if response.status_code != 200:
        raise ServiceError(response)
    return response
