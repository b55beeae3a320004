"""A client of the HTTP API: `with Client("http://127.0.0.1:3000") as rae: rae.sample(4, seed=7)`.

Images are exactly the pixels of the service, uint8 [N, H, W, C]. `AsyncClient` has the same methods for asyncio. Both
need the extra `client`.
"""

from __future__ import annotations

import base64
import io
import operator
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from rae_serve import extras
from rae_serve.arrays import Latents, Pixels
from rae_serve.errors import RaeServeError
from rae_serve.images import encode
from rae_serve.interpolation import Path, Space

with extras.needed("client"):
    import httpx

Picture = Pixels | bytes  # an image [H, W, C], or the bytes of a picture file
Point = tuple[int, int] | npt.NDArray[np.float32] | bytes  # (seed, row), a latent [latent_dim], or a picture file

_TIMEOUT_S: Final = 60.0


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


class Client:
    """Calls a service over HTTP. Its methods raise ServiceError if the service responds with an error.

    Args:
        address: The address of the service, such as "http://127.0.0.1:3000".
        model: The name of the model to use; None is the service's default model.
        api_key: The key for a service that needs one.
        timeout_s: The longest time without any data from the service, in seconds.
    """

    def __init__(
        self, address: str, *, model: str | None = None, api_key: str | None = None, timeout_s: float = _TIMEOUT_S
    ) -> None:
        self.model = model
        self._http = httpx.Client(base_url=address, headers=_authorization(api_key), timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the service."""
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """List the models of the service: name, digest, shapes and more."""
        models: list[dict[str, Any]] = _checked(self._http.get("/v1/models")).json()["models"]
        return models

    def sample(self, n: int = 1, *, seed: int | None = None, offset: int = 0, temperature: float = 1.0) -> Pixels:
        """Generate images. Row i of seed s is always the same image.

        Args:
            n: How many images.
            seed: The seed of the noise; None draws one.
            offset: The first row of the seed.
            temperature: Factor on the gaussian columns of the noise, from 0 to 10.

        Returns:
            Images, uint8 [n, H, W, C]: rows offset … offset + n − 1.
        """
        return self._array("sample", _sample(self.model, n, seed, offset, temperature))

    def encode(self, pictures: Sequence[Picture]) -> Latents:
        """Encode pictures of any size to latents, float32 [N, latent_dim]."""
        return self._array("encode", _pictures(self.model, pictures))

    def decode(self, latents: npt.ArrayLike) -> Pixels:
        """Decode latents [N, latent_dim] to images, uint8 [N, H, W, C]."""
        return self._array("decode", _decode(self.model, latents))

    def reconstruct(self, pictures: Sequence[Picture]) -> Pixels:
        """Encode pictures of any size, and decode their latents to images, uint8 [N, H, W, C]."""
        return self._array("reconstruct", _pictures(self.model, pictures))

    def interpolate(
        self, start: Point, end: Point, steps: int = 8, *, space: Space = "latent", path: Path = "linear"
    ) -> Pixels:
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
        return self._array("interpolate", _interpolate(self.model, start, end, steps, space, path))

    def edit(self, point: Point, attribute: str, strengths: Sequence[float]) -> Pixels:
        """Generate images of a point with more or less of an attribute.

        Args:
            point: (seed, row), a latent, or a picture file.
            attribute: The name of an attribute of the model.
            strengths: Factors [S] on the attribute's direction, within ±100; negative values take it away.

        Returns:
            Images, uint8 [S, H, W, C].
        """
        return self._array("edit", _edit(self.model, point, attribute, strengths))

    def _array(self, verb: str, body: Mapping[str, Any]) -> npt.NDArray[Any]:
        return _loaded(_checked(self._http.post(f"/v1/{verb}", json=body)))


class AsyncClient:
    """`Client` for asyncio: the same arguments, and the same methods as coroutines."""

    def __init__(
        self, address: str, *, model: str | None = None, api_key: str | None = None, timeout_s: float = _TIMEOUT_S
    ) -> None:
        self.model = model
        self._http = httpx.AsyncClient(base_url=address, headers=_authorization(api_key), timeout=timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections to the service."""
        await self._http.aclose()

    async def models(self) -> list[dict[str, Any]]:
        """See Client.models."""
        models: list[dict[str, Any]] = _checked(await self._http.get("/v1/models")).json()["models"]
        return models

    async def sample(
        self, n: int = 1, *, seed: int | None = None, offset: int = 0, temperature: float = 1.0
    ) -> Pixels:
        """See Client.sample."""
        return await self._array("sample", _sample(self.model, n, seed, offset, temperature))

    async def encode(self, pictures: Sequence[Picture]) -> Latents:
        """See Client.encode."""
        return await self._array("encode", _pictures(self.model, pictures))

    async def decode(self, latents: npt.ArrayLike) -> Pixels:
        """See Client.decode."""
        return await self._array("decode", _decode(self.model, latents))

    async def reconstruct(self, pictures: Sequence[Picture]) -> Pixels:
        """See Client.reconstruct."""
        return await self._array("reconstruct", _pictures(self.model, pictures))

    async def interpolate(
        self, start: Point, end: Point, steps: int = 8, *, space: Space = "latent", path: Path = "linear"
    ) -> Pixels:
        """See Client.interpolate."""
        return await self._array("interpolate", _interpolate(self.model, start, end, steps, space, path))

    async def edit(self, point: Point, attribute: str, strengths: Sequence[float]) -> Pixels:
        """See Client.edit."""
        return await self._array("edit", _edit(self.model, point, attribute, strengths))

    async def _array(self, verb: str, body: Mapping[str, Any]) -> npt.NDArray[Any]:
        return _loaded(_checked(await self._http.post(f"/v1/{verb}", json=body)))


Body = dict[str, Any]


def _authorization(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}


def _sample(model: str | None, n: int, seed: int | None, offset: int, temperature: float) -> Body:
    return {"model": model, "n": n, "seed": seed, "offset": offset, "temperature": temperature, "format": "npy"}


def _pictures(model: str | None, pictures: Sequence[Picture]) -> Body:
    return {"model": model, "images": [_base64(_file(picture)) for picture in pictures], "format": "npy"}


def _decode(model: str | None, latents: npt.ArrayLike) -> Body:
    return {"model": model, "latents": np.asarray(latents).tolist(), "format": "npy"}


def _interpolate(model: str | None, start: Point, end: Point, steps: int, space: Space, path: Path) -> Body:
    ends = {"start": _point(start), "end": _point(end)}
    return {"model": model, **ends, "steps": steps, "space": space, "path": path, "format": "npy"}


def _edit(model: str | None, point: Point, attribute: str, strengths: Sequence[float]) -> Body:
    moves = [float(strength) for strength in strengths]
    return {"model": model, "point": _point(point), "attribute": attribute, "strengths": moves, "format": "npy"}


def _point(point: Point) -> Body:
    match point:
        case (seed, row) if isinstance(point, tuple):
            return {"seed": operator.index(seed), "index": operator.index(row)}
        case bytes():
            return {"image": _base64(point)}
    return {"latent": np.asarray(point).tolist()}


def _file(picture: Picture) -> bytes:
    return picture if isinstance(picture, bytes) else encode(picture)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _checked(response: httpx.Response) -> httpx.Response:
    if response.status_code != 200:
        raise ServiceError(response)
    return response


def _loaded(response: httpx.Response) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(io.BytesIO(response.content), allow_pickle=False)
    return array
