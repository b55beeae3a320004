"""What an operator may set, each by an environment variable `RAE_SERVE_…`."""

from __future__ import annotations

import os
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from rae_serve.errors import InvalidInput

PREFIX = "RAE_SERVE_"


class Settings(BaseModel):
    """Every setting with its default; `RAE_SERVE_MAX_IMAGES=64` sets `max_images`."""

    model_config = ConfigDict(frozen=True)

    bundles: str = Field(
        "exported", description="Bundles, or folders of bundles, separated as in PATH; served by folder name."
    )
    default_model: str | None = Field(None, description="Used where a request names none; else the first by name.")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: NonNegativeInt = Field(0, description="Of one graph's run; 0 lets ONNX Runtime choose.")
    workers: PositiveInt = Field(1, description="Processes, each with every model.")
    port: Annotated[int, Field(ge=1, le=65535)] = 3000
    max_images: PositiveInt = Field(1024, description="Of one request.")
    max_batch: PositiveInt = Field(64, description="Rows of one graph run.")
    max_waiting: PositiveInt = Field(65536, description="Rows that may wait for a graph before a request gets 429.")

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
