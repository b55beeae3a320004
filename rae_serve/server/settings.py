"""What an operator may set, each by an environment variable `RAE_SERVE_…`."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
)

from rae_serve.errors import InvalidInput
from rae_serve.sessions import cuda_devices, resolve

PREFIX = "RAE_SERVE_"
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # what may stand after `Bearer`, RFC 6750


def _sendable(key: SecretStr) -> SecretStr:
    if not _BEARER.fullmatch(key.get_secret_value()):
        raise ValueError("a key must be one or more of A–Z a–z 0–9 . _ ~ + / -")
    return key


def _origin(text: str) -> str:
    if not re.fullmatch(r"\*|https?://[^/\s]+", text):
        raise ValueError("an origin must be like https://example.org, or *")
    return text


class Settings(BaseModel):
    """Every setting with its default; `RAE_SERVE_MAX_IMAGES=64` sets `max_images`."""

    model_config = ConfigDict(frozen=True)

    bundles: str = Field(
        "exported", description="Bundles, or folders of bundles, separated as in PATH; served by folder name."
    )
    default_model: str | None = Field(None, description="Used where a request names none; else the first by name.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to run; auto takes CUDA if it is there."
    )
    threads: NonNegativeInt = Field(0, description="Cores that one graph may use; 0: all, shared among the workers.")
    workers: PositiveInt | Literal["auto"] = Field(
        "auto", description="Processes, each with every model on one device; auto: one a GPU, or one."
    )
    port: Annotated[int, Field(ge=1, le=65535)] = 3000
    max_images: PositiveInt = Field(1024, description="Of one request.")
    max_body_bytes: PositiveInt = Field(16 * 1024 * 1024, description="Of one request; more gets 413.")
    max_pixels: PositiveInt = Field(20_000_000, description="Of the pictures sent in one request, together.")
    max_seconds: PositiveFloat = Field(30.0, description="Of one request; what waits longer is dropped, with 503.")
    max_batch: PositiveInt = Field(64, description="Rows of one graph run.")
    max_waiting: PositiveInt = Field(2048, description="Rows that may wait for a graph before a request gets 429.")
    reload_seconds: PositiveFloat = Field(2.0, description="How often the bundles' folders are looked at.")
    access_log: bool = Field(True, description="A JSON line on stderr for every request.")
    api_keys: tuple[Annotated[SecretStr, AfterValidator(_sendable)], ...] | None = Field(
        None, description="Keys, with commas between, one of which every request must send; else none is needed."
    )
    cors_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] | None = Field(
        None, description="Sites, with commas between, whose pages may use the service; else its own alone."
    )

    @field_validator("api_keys", "cors_origins", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    def worker_count(self) -> int:
        """Processes: as many as `workers` says, or one for each GPU that is used."""
        if self.workers != "auto":
            return self.workers
        return max(1, cuda_devices()) if resolve(self.device) == "cuda" else 1

    @classmethod
    def from_environment(cls) -> Self:
        """The settings of this process. Raises InvalidInput, naming the variable, for a value that does not fit."""
        names = {PREFIX + name.upper(): name for name in cls.model_fields}
        given = {names[key]: value for key, value in os.environ.items() if key in names}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            variable = PREFIX + str(first["loc"][0]).upper()
            not_ = "" if first["loc"][0] == "api_keys" else f", not {first['input']!r}"  # a key is never shown
            raise InvalidInput(variable, first["msg"] + not_) from None
