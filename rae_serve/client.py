"""A client of the HTTP API: `with Client("http://127.0.0.1:3000") as rae: rae.sample(4, seed=7)`.

Pixels come as the service made them, uint8 [N, H, W, C]. `AsyncClient` has the same verbs, to be awaited.
"""

from __future__ import annotations

import base64
import io
import operator
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import httpx
import numpy as np
import numpy.typing as npt

from rae_serve.arrays import Latents, Pixels
from rae_serve.errors import RaeServeError
from rae_serve.images import encode
from rae_serve.interpolation import Path, Space

Picture = Pixels | bytes  # [H, W, C], or a picture file
Point = tuple[int, int] | npt.NDArray[np.float32] | bytes  # (seed, row), a latent [D], or a picture file

_TIMEOUT_S: Final = 60.0


class ServiceError(RaeServeError):
    """The service's answer was an error: `status`, what was wrong, and `retry_after_s` where it says when."""

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
    """The verbs of the service at an address, each of the model `model`, or of the service's default.

    `api_key` is sent along, to a service that asks for one.
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
        """Close the connections."""
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """The models' names, digests and shapes."""
        models: list[dict[str, Any]] = _checked(self._http.get("/v1/models")).json()["models"]
        return models

    def sample(self, n: int = 1, *, seed: int | None = None, offset: int = 0, temperature: float = 1.0) -> Pixels:
        """Rows offset … offset + n − 1 of a seed, uint8 [n, H, W, C]; of a drawn seed, where there is none."""
        return self._array("sample", _sample(self.model, n, seed, offset, temperature))

    def encode(self, pictures: Sequence[Picture]) -> Latents:
        """Latents, float32 [N, latent_dim], of pictures of any size."""
        return self._array("encode", _pictures(self.model, pictures))

    def decode(self, latents: npt.ArrayLike) -> Pixels:
        """Images, uint8 [N, H, W, C], of latents [N, latent_dim]."""
        return self._array("decode", _decode(self.model, latents))

    def reconstruct(self, pictures: Sequence[Picture]) -> Pixels:
        """Pictures encoded and decoded again, uint8 [N, H, W, C]."""
        return self._array("reconstruct", _pictures(self.model, pictures))

    def interpolate(
        self, start: Point, end: Point, steps: int = 8, *, space: Space = "latent", path: Path = "linear"
    ) -> Pixels:
        """Images on the way between two points, uint8 [steps, H, W, C]."""
        return self._array("interpolate", _interpolate(self.model, start, end, steps, space, path))

    def edit(self, point: Point, attribute: str, strengths: Sequence[float]) -> Pixels:
        """Images of a point moved along an attribute, uint8 [S, H, W, C]."""
        return self._array("edit", _edit(self.model, point, attribute, strengths))

    def _array(self, verb: str, body: Mapping[str, Any]) -> npt.NDArray[Any]:
        return _loaded(_checked(self._http.post(f"/v1/{verb}", json=body)))


class AsyncClient:
    """`Client`, for asyncio."""

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
        """Close the connections."""
        await self._http.aclose()

    async def models(self) -> list[dict[str, Any]]:
        """As of Client."""
        models: list[dict[str, Any]] = _checked(await self._http.get("/v1/models")).json()["models"]
        return models

    async def sample(
        self, n: int = 1, *, seed: int | None = None, offset: int = 0, temperature: float = 1.0
    ) -> Pixels:
        """As of Client."""
        return await self._array("sample", _sample(self.model, n, seed, offset, temperature))

    async def encode(self, pictures: Sequence[Picture]) -> Latents:
        """As of Client."""
        return await self._array("encode", _pictures(self.model, pictures))

    async def decode(self, latents: npt.ArrayLike) -> Pixels:
        """As of Client."""
        return await self._array("decode", _decode(self.model, latents))

    async def reconstruct(self, pictures: Sequence[Picture]) -> Pixels:
        """As of Client."""
        return await self._array("reconstruct", _pictures(self.model, pictures))

    async def interpolate(
        self, start: Point, end: Point, steps: int = 8, *, space: Space = "latent", path: Path = "linear"
    ) -> Pixels:
        """As of Client."""
        return await self._array("interpolate", _interpolate(self.model, start, end, steps, space, path))

    async def edit(self, point: Point, attribute: str, strengths: Sequence[float]) -> Pixels:
        """As of Client."""
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
