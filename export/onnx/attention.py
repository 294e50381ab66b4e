"""Fuses each attention layer to one node for CPUs, which does not write the scores of all token pairs to memory.

The exporter turns ``scaled_dot_product_attention`` into twenty nodes that copy the keys three times and pass the
``[B, heads, N, N]`` scores through memory four times. ONNX Runtime's ``MultiHeadAttention`` (1.19 and later) computes
them in tiles. TensorRT has no such node, so only the artefact for CPUs has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

DOMAIN = "com.microsoft"
_SPLIT_HEADS = [2, 0, 3, 1, 4]  # [B, N, 3, heads, d] → [3, B, heads, N, d]


@dataclass(frozen=True)
class _Attention:
    """The nodes that are replaced."""

    joined: str  # queries, keys and values side by side [B, N, 3 D]
    output: str  # [B, N, D]
    heads: int
    scale: float
    kept: tuple[str, str] | None  # names of the first and last token whose queries are read; None: all
    last: onnx.NodeProto


def fuse_attention(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """A copy with equal outputs in which each self-attention with one joint projection is one node, and their number.

    Parameters
    ----------
    model
        fp32 or quantised; attention of another form than ``models.layers.ast_encoder.Attention`` stays unchanged.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    found = {a.output: a for a in _Finder(graph).find()}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        attention = found.get(node.output[0])
        nodes.extend([node] if attention is None else _fused(attention))
    if found:
        _replace(graph, nodes)
        result.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return result, len(found)


def _fused(attention: _Attention) -> list[onnx.NodeProto]:
    path = attention.last.name.rpartition("/")[0] or attention.output
    parts = [f"{path}/{name}" for name in ("queries", "keys", "values")]
    nodes = [helper.make_node("Split", [attention.joined], parts, name=f"{path}/split", axis=-1, num_outputs=3)]
    if attention.kept is not None:
        axis = f"{path}/tokens"
        chosen = f"{path}/chosen"
        nodes += [
            helper.make_node("Constant", [], [axis], name=axis, value_ints=[1]),
            helper.make_node("Slice", [parts[0], *attention.kept, axis], [chosen], name=chosen),
        ]
        parts[0] = chosen
    return [
        *nodes,
        helper.make_node(
            "MultiHeadAttention", parts, [attention.output], name=f"{path}/attention", domain=DOMAIN,
            num_heads=attention.heads, scale=attention.scale,
        ),
    ]  # fmt: skip


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Replace the nodes, and drop those that no node or output reads."""
    outputs = {o.name for o in graph.output}
    kept: list[onnx.NodeProto] = []
    needed = set(outputs)
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    tensors = [t for t in graph.initializer if t.name in needed]
    made = {name for node in kept for name in node.output}
    values = [v for v in graph.value_info if v.name in made]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(tensors)
    graph.value_info.extend(values)


@dataclass
class _Finder:
    """Follows the chain from each softmax back to the projection and forward to the merged heads."""

    graph: onnx.GraphProto
    makers: dict[str, onnx.NodeProto] = field(init=False)
    readers: dict[str, list[onnx.NodeProto]] = field(init=False)
    constants: dict[str, TensorProto] = field(init=False)

    def __post_init__(self) -> None:
        self.makers = {output: node for node in self.graph.node for output in node.output}
        self.constants = {t.name: t for t in self.graph.initializer}
        self.readers = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def find(self) -> Iterator[_Attention]:
        for node in self.graph.node:
            if node.op_type == "Softmax":
                attention = self._attention(node)
                if attention is not None:
                    yield attention

    def _attention(self, softmax: onnx.NodeProto) -> _Attention | None:
        scores = self._made(softmax.input[0], "MatMul")
        mixed = self._only_reader(softmax, "MatMul")
        turned = self._only_reader(mixed, "Transpose")
        last = self._only_reader(turned, "Reshape")
        if scores is None or mixed is None or turned is None or last is None:
            return None
        queries, keys = (self._made(name, "Mul") for name in scores.input)
        if queries is None or keys is None or list(_permutation(turned)) != [0, 2, 1, 3]:
            return None
        scales = [self._constant(node.input[1]) for node in (queries, keys)]
        chosen = self._made(queries.input[0], "Slice")
        if chosen is not None and not self._takes_first_tokens(chosen):
            return None
        sources = [
            self._part(queries.input[0] if chosen is None else chosen.input[0], 0),
            self._part(self._transposed(keys.input[0]), 1),
            self._part(mixed.input[1], 2),
        ]
        if any(scale is None or scale.size != 1 for scale in scales) or len(set(sources)) != 1 or sources[0] is None:
            return None
        scale = float(np.prod([s.item() for s in scales if s is not None]))
        joined, heads = sources[0]
        kept = None if chosen is None else (chosen.input[1], chosen.input[2])
        return _Attention(joined, last.output[0], heads, scale, kept, last)

    def _takes_first_tokens(self, chosen: onnx.NodeProto) -> bool:
        """Whether a slice of ``[B, heads, N, d]`` is along the tokens."""
        settings = [self._constant(name) for name in (chosen.input[1], *chosen.input[3:5])]
        return [v.item() for v in settings if v is not None and v.size == 1] == [0, 2, 1]

    def _part(self, name: str | None, index: int) -> tuple[str, int] | None:
        """Source of the queries (0), keys (1) or values (2), and the number of their heads."""
        chosen = self._made(name, "Gather")
        permuted = None if chosen is None else self._made(chosen.input[0], "Transpose")
        shaped = None if permuted is None else self._made(permuted.input[0], "Reshape")
        if chosen is None or permuted is None or shaped is None or list(_permutation(permuted)) != _SPLIT_HEADS:
            return None
        number, shape = self._constant(chosen.input[1]), self._constant(shaped.input[1])
        if number is None or number.size != 1 or number.item() != index or shape is None or len(shape) != 5:
            return None
        return (shaped.input[0], int(shape[3])) if shape[2] == 3 and shape[3] > 0 else None

    def _transposed(self, name: str) -> str | None:
        """The keys before their last two axes were swapped, in the exporter's three steps or in one."""
        outer = self._made(name, "Reshape")
        swap = self._made(name if outer is None else outer.input[0], "Transpose")
        if swap is None:
            return None
        if outer is None:
            return swap.input[0] if list(_permutation(swap)) == [0, 1, 3, 2] else None
        inner = self._made(swap.input[0], "Reshape")
        return inner.input[0] if inner is not None and list(_permutation(swap)) == [0, 2, 1] else None

    def _made(self, name: str | None, kind: str) -> onnx.NodeProto | None:
        node = self.makers.get(name or "")
        return node if node is not None and node.op_type == kind else None

    def _only_reader(self, node: onnx.NodeProto | None, kind: str) -> onnx.NodeProto | None:
        readers = [] if node is None else self.readers.get(node.output[0], [])
        return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None

    def _constant(self, name: str) -> npt.NDArray[np.generic] | None:
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)


def _permutation(node: onnx.NodeProto) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
