"""The settings of the server, each read from an environment variable `RAE_SERVE_…`."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
)

from rae_serve.errors import InvalidInput
from rae_serve.sessions import Device

_PREFIX = "RAE_SERVE_"
_BEARER_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # what RFC 6750 allows after `Bearer`


def _bearer_token(key: SecretStr) -> SecretStr:
    if not _BEARER_TOKEN.fullmatch(key.get_secret_value()):
        raise ValueError("a key must be one or more of A–Z a–z 0–9 . _ ~ + / -")
    return key


def _origin(text: str) -> str:
    if not re.fullmatch(r"\*|https?://[^/\s]+", text):
        raise ValueError("an origin must be like https://example.org, or *")
    return text


class Settings(BaseModel):
    """The settings with their defaults. `RAE_SERVE_MAX_IMAGES=64` sets `max_images`, and so on."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    bundles: str = "exported"
    """The bundles to serve, and folders of bundles, separated by `:` (on Windows `;`). The name of a bundle's folder
    is the name of its model. Start with one folder that holds every bundle."""

    default_model: str | None = None
    """The model for requests that name none. By default the one that `default.txt` in the folder of bundles names;
    the first start writes this file, with the first model by name. Set it if the folder cannot be written."""

    device: Device = "auto"
    """Where the graphs run. `auto` takes CUDA if it works and else the CPU; with `cuda` no model is served if CUDA
    does not work. Start with `auto`; set `cuda` where a silent CPU would be a fault."""

    threads: NonNegativeInt = 0
    """CPU cores of each worker. Higher: a batch takes less time, but several workers compete for the cores. Start
    with 0: a worker uses all cores for a request that it has alone, and its equal share of them for several."""

    workers: PositiveInt | Literal["auto"] = "auto"
    """Processes; each holds every model on one device. Higher: more requests at once if HTTP and PNG are the
    bottleneck, but more memory and smaller batches. Start with `auto`: per GPU one for each 2 cores and 4 GiB of its
    memory, at most 8 and at least one; without a GPU one for each core, at most 8."""

    port: Annotated[int, Field(ge=1, le=65535)] = 3000
    """The TCP port. Change it if another program uses it."""

    max_images: PositiveInt = 1024
    """The most images that a single request may ask for. Higher: fewer requests for bulk work, but more memory per
    request. Start with the largest number that a client really needs."""

    max_body_bytes: PositiveInt = 16 * 1024 * 1024
    """The largest body of a request, in bytes; a larger one gets 413. Higher: more or larger pictures per request,
    but more memory, since a body is held whole. Start with the default."""

    max_pixels: PositiveInt = 20_000_000
    """The most pixels that the pictures of one request may have together. Higher: larger photographs, but more memory
    and a longer decoding. Start with the default."""

    max_seconds: PositiveFloat = 30.0
    """The longest time for a request, in seconds; what waits longer is dropped with 503. Higher: more requests
    survive a peak of load, but clients wait longer for an error. Start just below the clients' own timeout."""

    max_batch: PositiveInt = 64
    """The most rows in one batch of a graph. Higher: more images per second on a GPU, but more memory, and a small
    request waits longer for the batch before it. Start with 64."""

    max_waiting: PositiveInt = 2048
    """The most rows that may wait for a graph, in all workers together; each worker has an equal share, and a request
    beyond it gets 429. Higher: fewer 429 in a peak of load, but longer waits. Start with the rows that the model
    computes in `max_seconds`."""

    reload_seconds: PositiveFloat = 2.0
    """The seconds between two checks of the bundle folders. Higher: fewer reads of a network disk, but a changed
    bundle is served later. Start with the default."""

    drain_seconds: NonNegativeFloat = 1.0
    """The seconds for which a server goes on accepting connections after SIGTERM, while `/readyz` answers 503 and
    each response closes its connection. Higher: slower load balancers notice in time, but a restart takes longer.
    Start with the default; take 10 in Kubernetes."""

    keep_attributes: bool = False
    """Whether requests may write attributes into the bundles, which all users of the server then see. Turn it on
    where everybody who can reach the server may do so, and the folder of bundles can be written."""

    access_log: bool = True
    """Whether to write a JSON line to stderr for every request. Turn it off if a proxy in front already logs
    requests."""

    api_keys: tuple[Annotated[SecretStr, AfterValidator(_bearer_token)], ...] | None = None
    """Keys, separated by commas; every request must send one of them. By default no key is needed. Set it if
    strangers can reach the server."""

    cors_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] | None = None
    """Origins, separated by commas, whose web pages may use the service from a browser; `*` allows all. By default
    only the server's own page may."""

    @field_validator("api_keys", "cors_origins", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings from the environment variables of this process.

        Raises InvalidInput, naming the variable, if a value is not valid.
        """
        names = {_PREFIX + name.upper(): name for name in cls.model_fields}
        given = {names[key]: value for key, value in os.environ.items() if key in names}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            # A key must never be shown.
            wrong_value = "" if name == "api_keys" else f", not {first['input']!r}"
            raise InvalidInput(_PREFIX + name.upper(), first["msg"] + wrong_value) from None
