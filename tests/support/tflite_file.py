"""A small TensorFlow Lite file, written with Google's flatbuffers: layers one after the other, weights as constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt

CODES = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 4, "DEQUANTIZE": 6, "FULLY_CONNECTED": 9, "LOG": 73, "BROADCAST_TO": 130}
_TYPES = {np.dtype(np.float32): 0, np.dtype(np.int32): 2, np.dtype(np.int8): 9, np.dtype(np.int64): 4}


@dataclass(frozen=True)
class Layer:
    """One operator; ``values`` are its constants behind the computed input."""

    name: str
    values: tuple[npt.NDArray[Any] | None, ...] = ()  # None: an optional input that is absent
    scale: npt.NDArray[np.float32] | None = None  # of the first value, if it is int8
    zero: npt.NDArray[np.int64] | None = None
    channel: int = 0  # axis of the scales
    expanded: bool = False  # the first value passes through DEQUANTIZE


class _Writer:
    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1 << 16)
        self.tensors: list[int] = []
        self.buffers: list[int] = [self.table(1)]  # by convention the first buffer is empty
        self.operators: list[int] = []

    def table(self, slots: int, **fields: tuple[str, int]) -> int:
        """``f<slot>=(kind, value)``; ``offset`` for vectors and tables."""
        self.builder.StartObject(slots)
        for name, (kind, value) in fields.items():
            slot = int(name[1:])
            if kind == "offset":
                self.builder.PrependUOffsetTRelativeSlot(slot, value, 0)
            else:
                getattr(self.builder, f"Prepend{kind}Slot")(slot, value, 0)
        return int(self.builder.EndObject())

    def vector(self, values: npt.ArrayLike, dtype: str) -> int:
        return int(self.builder.CreateNumpyVector(np.asarray(values, dtype)))

    def offsets(self, tables: Sequence[int]) -> int:
        self.builder.StartVector(4, len(tables), 4)
        for table in reversed(tables):
            self.builder.PrependUOffsetTRelative(table)
        return int(self.builder.EndVector())

    def tensor(self, value: npt.NDArray[Any] | None = None, layer: Layer | None = None) -> int:
        """Add a tensor, computed without ``value``; returns its index."""
        fields: dict[str, tuple[str, int]] = {}
        if value is not None:
            content = self.vector(np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8), "uint8")
            self.buffers.append(self.table(1, f0=("offset", content)))
            fields["f2"] = ("Uint32", len(self.buffers) - 1)
            fields["f0"] = ("offset", self.vector(value.shape, "int32"))
            fields["f1"] = ("Int8", _TYPES[value.dtype])
        if layer is not None and layer.scale is not None:
            zero = np.zeros(layer.scale.shape) if layer.zero is None else layer.zero
            quantisation = self.table(
                7,
                f2=("offset", self.vector(layer.scale, "float32")),
                f3=("offset", self.vector(zero, "int64")),
                f6=("Int32", layer.channel),
            )
            fields["f4"] = ("offset", quantisation)
        self.tensors.append(self.table(8, **fields))
        return len(self.tensors) - 1

    def operator(self, name: str, inputs: Sequence[int], output: int) -> None:
        before, after = self.vector(inputs, "int32"), self.vector([output], "int32")
        index = list(CODES).index(name)
        self.operators.append(self.table(5, f0=("Uint32", index), f1=("offset", before), f2=("offset", after)))


def tflite_file(layers: Sequence[Layer]) -> bytes:
    """The file's bytes."""
    writer = _Writer()
    current = writer.tensor()
    for layer in layers:
        inputs = [current]
        for position, value in enumerate(layer.values):
            index = -1 if value is None else writer.tensor(value, layer if position == 0 else None)
            if layer.expanded and position == 0:
                expanded = writer.tensor()
                writer.operator("DEQUANTIZE", [index], expanded)
                index = expanded
            inputs.append(index)
        current = writer.tensor()
        writer.operator(layer.name, inputs, current)
    codes = [
        writer.table(4, f0=("Int8", min(code, 127)), f3=("Int32", code))
        if code > 9
        else writer.table(4, f0=("Int8", code))
        for code in CODES.values()
    ]
    tensors, operators = writer.offsets(writer.tensors), writer.offsets(writer.operators)
    graph = writer.table(5, f0=("offset", tensors), f3=("offset", operators))
    graphs, buffers, all_codes = writer.offsets([graph]), writer.offsets(writer.buffers), writer.offsets(codes)
    model = writer.table(8, f0=("Uint32", 3), f1=("offset", all_codes), f2=("offset", graphs), f4=("offset", buffers))
    writer.builder.Finish(model, file_identifier=b"TFL3")
    return bytes(writer.builder.Output())
