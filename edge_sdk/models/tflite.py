"""Weights out of a TensorFlow Lite file: the constants of its operators, int8 ones dequantised; nothing is executed.

A file is a FlatBuffer: little-endian tables, each with a table of the offsets of its fields. The field numbers are from
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import CheckpointError

Constant = npt.NDArray[np.float32]

_IDENTIFIER = b"TFL3"  # bytes 4 to 8
_OPERATORS = {3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 6: "DEQUANTIZE", 9: "FULLY_CONNECTED"}
_FLOAT32, _INT32, _INT8 = 0, 2, 9
_DTYPES: dict[int, str] = {_FLOAT32: "<f4", _INT32: "<i4", _INT8: "<i1"}


@dataclass(frozen=True)
class Operator:
    """One operator of the graph."""

    name: str  # a name of the schema's BuiltinOperator; "" for those that hold no weights of a layer
    constants: tuple[Constant | None, ...]  # by input; None where it is computed, absent or of another type


class _Table:
    """One table of the FlatBuffer; absent fields read as ``None`` or empty."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.fields = at - _int(data, at)  # the table of offsets
        self.size = _number("<H", data, self.fields)

    def _offset(self, field: int) -> int | None:
        slot = 4 + 2 * field
        relative = _number("<H", self.data, self.fields + slot) if slot < self.size else 0
        return self.at + relative if relative else None

    def integer(self, field: int, kind: str = "<i", default: int = 0) -> int:
        offset = self._offset(field)
        return default if offset is None else _number(kind, self.data, offset)

    def table(self, field: int) -> _Table | None:
        offset = self._offset(field)
        return None if offset is None else _Table(self.data, offset + _unsigned(self.data, offset))

    def tables(self, field: int) -> list[_Table]:
        start, count = self._vector(field)
        places = range(start, start + 4 * count, 4)
        return [_Table(self.data, place + _unsigned(self.data, place)) for place in places]

    def array(self, field: int, dtype: str) -> npt.NDArray[np.generic]:
        start, count = self._vector(field)
        return np.frombuffer(self.data, dtype, count, start) if count else np.zeros(0, dtype)

    def _vector(self, field: int) -> tuple[int, int]:
        """Place of the first element, and their number."""
        offset = self._offset(field)
        if offset is None:
            return 0, 0
        start = offset + _unsigned(self.data, offset)
        return start + 4, _unsigned(self.data, start)


def _number(kind: str, data: bytes, at: int) -> int:
    if at < 0:
        raise ValueError(f"offset {at} is before the file")
    value: int = struct.unpack_from(kind, data, at)[0]
    return value


def _int(data: bytes, at: int) -> int:
    return _number("<i", data, at)


def _unsigned(data: bytes, at: int) -> int:
    return _number("<I", data, at)


def read_operators(content: bytes) -> tuple[Operator, ...]:
    """The operators of the first graph of a file, in the order in which they run.

    Parameters
    ----------
    content : bytes
        The whole file.

    Returns
    -------
    tuple of Operator
        Weights as float32 in TensorFlow's layout: ``CONV_2D`` [O, H, W, I], ``DEPTHWISE_CONV_2D`` [1, H, W, C],
        ``FULLY_CONNECTED`` [O, I]. int8 weights are dequantised, per tensor or per channel.

    Raises
    ------
    CheckpointError
        Not a TensorFlow Lite file, or a damaged one.
    """
    if content[4:8] != _IDENTIFIER:
        raise CheckpointError("not a TensorFlow Lite file: it lacks the mark TFL3; give the original file")
    try:
        return _operators(_Table(content, _unsigned(content, 0)))
    except (struct.error, ValueError, IndexError, KeyError, RecursionError) as error:
        raise CheckpointError(
            f"damaged TensorFlow Lite file ({type(error).__name__}: {error}); download it anew"
        ) from None


def _operators(model: _Table) -> tuple[Operator, ...]:
    graph = model.tables(2)[0]
    # codes below 127 stood in a byte before the field of four bytes was added
    codes = [max(code.integer(0, "<b"), code.integer(3)) for code in model.tables(1)]
    buffers, tensors = model.tables(4), graph.tables(0)
    constants: dict[int, Constant | None] = {}
    found = []
    for operator in graph.tables(3):
        name = _OPERATORS.get(codes[operator.integer(0, "<I")], "")
        inputs = [int(index) for index in operator.array(1, "<i4")]
        for index in inputs:
            if index >= 0 and index not in constants:
                constants[index] = _constant(tensors[index], buffers)
        values = tuple(constants[index] if index >= 0 else None for index in inputs)
        if name == "DEQUANTIZE":  # its output is the same weight in float32
            constants[int(operator.array(2, "<i4")[0])] = values[0]
        found.append(Operator(name, values))
    return tuple(found)


def _constant(tensor: _Table, buffers: list[_Table]) -> Constant | None:
    kind = tensor.integer(1, "<b")
    raw = buffers[tensor.integer(2, "<I")].array(0, "<u1")
    if not raw.size or kind not in _DTYPES:
        return None
    values = np.frombuffer(raw.tobytes(), _DTYPES[kind]).reshape(tensor.array(0, "<i4").astype(int))
    quantisation = tensor.table(4)
    if kind != _INT8 or quantisation is None:
        return values.astype(np.float32)
    scale = quantisation.array(2, "<f4").astype(np.float32)
    zero = quantisation.array(3, "<i8").astype(np.float32)
    if scale.size > 1:  # of each channel
        shape = [1] * values.ndim
        shape[quantisation.integer(6)] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    dequantised: Constant = ((values.astype(np.float32) - zero) * scale).astype(np.float32)
    return dequantised
