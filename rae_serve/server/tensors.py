"""Tensors of the Open Inference Protocol: read the inputs of a request, and write the outputs of a response."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rae_serve import arrays
from rae_serve.errors import InvalidInput
from rae_serve.server.schemas import HEADER_LENGTH, InferenceRequest, ResponseTensor, TensorMetadata, TensorParameters

Array = npt.NDArray[Any]

_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "FP32": np.dtype("<f4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("u1"),
}


class TensorSpec(NamedTuple):
    """What a model says of one of its inputs or outputs, whose first dimension counts the rows of a batch."""

    name: str
    datatype: str  # a key of _DTYPES
    row_shape: tuple[int, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the elements, little-endian as in the binary form."""
        return _DTYPES[self.datatype]

    def metadata(self) -> TensorMetadata:
        """Return the description that clients see; −1 is a dimension of any size."""
        return TensorMetadata(name=self.name, datatype=self.datatype, shape=[-1, *self.row_shape])


def split(body: bytes, json_bytes: int | None) -> tuple[bytes, bytes]:
    """Split the body of a request into its JSON and the binary data behind it.

    Args:
        body: The whole body.
        json_bytes: The length of the JSON, as the client states it; None if all of the body is JSON.
    """
    if json_bytes is None:
        return body, b""
    if json_bytes > len(body):
        problem = f"must be at most the length of the body, {len(body)}, not {json_bytes}"
        raise InvalidInput(HEADER_LENGTH, problem)
    return body[:json_bytes], body[json_bytes:]


def read_inputs(
    request: InferenceRequest, binary: bytes, specs: Sequence[TensorSpec], max_rows: int
) -> dict[str, Array]:
    """Return the inputs of a request as arrays, by name. Every input has the same number of rows.

    Args:
        request: The JSON of the request.
        binary: The binary data behind the JSON.
        specs: The inputs that the model takes.
        max_rows: The most rows that a request may have.

    Raises:
        InvalidInput: An input is missing, unknown, or not what the model takes.
    """
    by_name = {spec.name: spec for spec in specs}
    _check_names("inputs", [tensor.name for tensor in request.inputs], by_name)
    found: dict[str, Array] = {}
    rows = 0  # of the first input
    start = 0
    for i, tensor in enumerate(request.inputs):
        field, spec = f"inputs.{i}", by_name[tensor.name]
        if tensor.datatype != spec.datatype:
            raise InvalidInput(f"{field}.datatype", f"must be {spec.datatype}, not {tensor.datatype!r}")
        rows = rows or _rows(field, tensor.shape, spec, max_rows)
        if tensor.shape != [rows, *spec.row_shape]:
            problem = f"must be {[rows, *spec.row_shape]}, because every input has the same rows, not {tensor.shape}"
            raise InvalidInput(f"{field}.shape", problem)
        size = tensor.parameters.binary_data_size
        if size is None:
            found[spec.name] = _from_json(f"{field}.data", tensor.data, spec, tensor.shape)
            continue
        if tensor.data is not None:
            raise InvalidInput(f"{field}.data", "must be left out, because binary_data_size is there")
        needed = math.prod(tensor.shape) * spec.dtype.itemsize
        if size != needed:
            problem = f"must be {needed} for {spec.datatype} {tensor.shape}, not {size}"
            raise InvalidInput(f"{field}.parameters.binary_data_size", problem)
        if start + size > len(binary):
            problem = f"has {len(binary)} bytes behind its JSON, which {HEADER_LENGTH} ends; "
            raise InvalidInput("body", f"{problem}{start + size} are needed up to the end of {spec.name!r}")
        # A copy, because an array inside of the body may not be aligned.
        data = binary[start : start + size]
        found[spec.name] = np.frombuffer(data, spec.dtype).reshape(tensor.shape)
        start += size
    if missing := [name for name in by_name if name not in found]:
        raise InvalidInput("inputs", f"must have {' and '.join(missing)}")
    if start != len(binary):
        problem = f"has {len(binary)} bytes behind its JSON, but binary_data_size of the inputs is {start} in all"
        raise InvalidInput("body", problem)
    return found


def wants_binary(request: InferenceRequest, spec: TensorSpec) -> bool:
    """Return whether the client wants the output of a model, which has only one, as binary data.

    Raises InvalidInput if the client asks for another output.
    """
    _check_names("outputs", [output.name for output in request.outputs], [spec.name])
    wanted = request.outputs[0].parameters.binary_data if request.outputs else None
    return request.parameters.binary_data_output if wanted is None else wanted


def write_output(array: Array, spec: TensorSpec, *, binary: bool) -> tuple[ResponseTensor, bytes]:
    """Return an output for the JSON of a response, and the binary data to be put behind the JSON.

    Args:
        array: The output, [N, …].
        spec: Its description.
        binary: Whether the numbers become binary data, or are in the JSON.

    Raises:
        InvalidInput: The numbers are not finite, and JSON cannot hold them.
    """
    tensor = ResponseTensor(name=spec.name, datatype=spec.datatype, shape=list(array.shape))
    if binary:
        data = array.astype(spec.dtype, copy=False).tobytes()
        tensor.parameters = TensorParameters(binary_data_size=len(data))
        return tensor, data
    if not np.isfinite(array).all():
        problem = f"give {spec.name} that are not finite, which JSON cannot hold; ask for binary_data"
        raise InvalidInput("inputs", problem)
    is_float = array.dtype.kind == "f"
    tensor.data = list(chain.from_iterable(arrays.decimals(array))) if is_float else array.ravel().tolist()
    return tensor, b""


def _check_names(field: str, names: Sequence[str], known: Mapping[str, TensorSpec] | Sequence[str]) -> None:
    for i, name in enumerate(names):
        if name not in known:
            raise InvalidInput(f"{field}.{i}.name", f"must be {' or '.join(known)}, not {name!r}")
        if name in names[:i]:
            raise InvalidInput(f"{field}.{i}.name", f"is {name!r}, which stands there already")


def _rows(field: str, shape: Sequence[int], spec: TensorSpec, max_rows: int) -> int:
    """Return the rows of a shape. Raise InvalidInput if the shape does not fit the input."""
    if not shape or tuple(shape[1:]) != spec.row_shape or not shape[0]:
        needed = arrays.shape_text(spec.row_shape)
        raise InvalidInput(f"{field}.shape", f"must be {needed} with at least one row, not {list(shape)}")
    arrays.at_most(f"{field}.shape.0", shape[0], max_rows, "rows")
    return shape[0]


def _from_json(field: str, data: Any, spec: TensorSpec, shape: Sequence[int]) -> Array:
    """Return the `data` of an input, which may be flat or nested like its shape, as an array of this shape."""
    if data is None:
        raise InvalidInput(field, "is missing; put the numbers here, or send them as binary data")
    numbers = _flat(data, shape)
    if numbers is None:
        problem = f"must be an array of {math.prod(shape)} numbers, flat or nested as the shape {list(shape)}"
        raise InvalidInput(field, problem)
    if spec.dtype.kind == "f":
        return _floats(field, numbers, spec.dtype).reshape(shape)
    return _integers(field, numbers, spec.dtype).reshape(shape)


def _flat(data: Any, shape: Sequence[int]) -> list[Any] | None:
    """Return the elements in row-major order, or None if their number or their nesting is wrong."""
    nested = isinstance(data, list) and bool(data) and isinstance(data[0], list)
    level = [data]
    for size in shape if nested else [math.prod(shape)]:
        if not all(isinstance(part, list) and len(part) == size for part in level):
            return None
        level = list(chain.from_iterable(level))
    return level


def _floats(field: str, numbers: list[Any], dtype: np.dtype[Any]) -> Array:
    try:
        if {int, float}.issuperset(map(type, numbers)):
            with np.errstate(over="ignore"):  # the engine refuses what is too large
                return np.array(numbers, dtype)
    except OverflowError:  # from an integer beyond the largest float
        pass
    raise InvalidInput(field, "must be numbers that a float can hold")


def _integers(field: str, numbers: list[Any], dtype: np.dtype[Any]) -> Array:
    limits = np.iinfo(dtype)
    if {int}.issuperset(map(type, numbers)) and min(numbers) >= limits.min and max(numbers) <= limits.max:
        return np.array(numbers, dtype)
    raise InvalidInput(field, f"must be integers from {limits.min} to {limits.max}")
