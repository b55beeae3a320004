"""What an operator may set, each by an environment variable `RAE_SERVE_…`."""

from __future__ import annotations

import os
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from rae_serve.errors import InvalidInput
from rae_serve.sessions import cuda_devices, resolve

PREFIX = "RAE_SERVE_"


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
            raise InvalidInput(variable, f"{first['msg']}, not {first['input']!r}") from None
