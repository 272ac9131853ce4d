"""Inference BatchNormalization -> the weights before it, or Mul and Add.

    y = scale (x - mean) / sqrt(var + epsilon) + bias  =  a x + c
    a = scale / sqrt(var + epsilon),  c = bias - a mean            (one of each per channel)

    x = W * z + b          (Conv, ConvTranspose)  ->  y = (a W) * z + (a b + c)
    x = alpha z W + beta b (Gemm)                 ->  y = alpha z (W a) + (a beta b + c)
    x = z W + b            (MatMul, Add)          ->  y = z (W a) + (a b + c)

where a multiplies the weight along its output axis. A BatchNormalization behind anything else
becomes Mul by a and Add of c. Changed tensors keep their names where nothing else reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir
from onnx_ir.passes.common import ShapeInferencePass

from ngc.passes.normalize.constants import PARAMETER_MARK, constant_of

Sources = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Folded:
    """The model after folding. ``sources``: for each changed or new initializer, the values of the
    original model that it was computed from."""

    model: onnx_ir.Model
    sources: Sources


def fold_batch_norm(model: onnx_ir.Model) -> Folded:
    """Fold every BatchNormalization of the main graph that runs in inference mode.

    The model given is not changed; it comes back as it is where there is nothing to fold.
    """
    if not any(node.op_type == "BatchNormalization" for node in model.graph):
        return Folded(model, {})
    given, model = model, model.clone()
    if any(value.shape is None for node in model.graph for value in node.outputs):
        # Ranks decide how a lone scale is shaped.
        model = ShapeInferencePass()(model).model
    if not any(_is_inference(node) for node in model.graph):
        return Folded(given, {})
    # From IR version 4 on initializers need not be listed among the inputs.
    model.ir_version = max(model.ir_version, 4)
    for value in list(model.graph.inputs):
        if value.name in model.graph.initializers:
            model.graph.inputs.remove(value)
    folder = _Folder(model)
    for node in list(model.graph):
        if _is_inference(node):
            folder.fold(node)
    return Folded(model, folder.sources)


def _is_inference(node: onnx_ir.Node) -> bool:
    """Whether this is a BatchNormalization with running statistics per channel."""
    if node.op_type != "BatchNormalization" or node.domain not in ("", "ai.onnx"):
        return False
    if node.attributes.get_int("training_mode", 0) or not node.attributes.get_int("spatial", 1):
        return False
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return False
    operands = [constant_of(value) for value in node.inputs[1:]]
    return len(operands) == 4 and all(a is not None and a.ndim == 1 for a in operands)


def _reads_only_form(node: onnx_ir.Node, k: int) -> bool:
    """Whether a node asks for shape or type of its input k, which folding leaves as they are."""
    return node.op_type == "Shape" or (node.op_type == "CastLike" and k == 1)


@dataclass
class _Folder:
    model: onnx_ir.Model
    sources: Sources = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        graph = self.model.graph
        values = [value for node in graph.all_nodes() for value in node.outputs]
        self.names = {_name(value) for value in (*values, *graph.inputs)}
        self.names |= graph.initializers.keys()

    def fold(self, norm: onnx_ir.Node) -> None:
        scale, bias, mean, var = (
            np.asarray(constant_of(value)).astype(np.float64) for value in norm.inputs[1:]
        )
        a = scale / np.sqrt(var + norm.attributes.get_float("epsilon", 1e-5))
        c = bias - a * mean
        x, y = norm.inputs[0], norm.outputs[0]
        assert x is not None
        before = x.producer()
        alone = not x.is_graph_output() and all(
            node is norm or _reads_only_form(node, k) for node, k in x.uses()
        )
        if before is not None and alone and self._into(before, norm, a, c):
            onnx_ir.convenience.replace_all_uses_with(y, x, replace_graph_outputs=True)
            x.name = y.name
            self._remove(norm)
        else:
            self._apart(norm, a, c)

    def _into(self, node: onnx_ir.Node, norm: onnx_ir.Node, a: np.ndarray, c: np.ndarray) -> bool:
        """Fold into the node that computes the input, if it is one of those above."""
        match node.op_type:
            case "Conv":
                return self._into_weight(node, norm, a, c, _conv)
            case "ConvTranspose":
                return self._into_weight(node, norm, a, c, _conv_transpose)
            case "Gemm":
                return self._into_weight(node, norm, a, c, _gemm)
            case "Add":
                return self._into_matmul(node, norm, a, c)
        return False

    def _into_weight(
        self,
        node: onnx_ir.Node,
        norm: onnx_ir.Node,
        a: np.ndarray,
        c: np.ndarray,
        scaled: Callable[[onnx_ir.Node, np.ndarray, np.ndarray], np.ndarray | None],
    ) -> bool:
        given = node.inputs[2] if len(node.inputs) > 2 else None
        weight, bias = constant_of(node.inputs[1]), constant_of(given)
        if weight is None or (given is not None and bias is None):
            return False
        beta = node.attributes.get_float("beta", 1.0)
        old = np.zeros(len(a)) if bias is None else beta * bias.astype(np.float64)
        if old.size not in (1, len(a)) or old.shape[-1:] not in ((), (1,), (len(a),)):
            return False
        changed = scaled(node, weight.astype(np.float64), a)
        if changed is None:
            return False
        shift = (a * old.reshape(-1) + c).astype(weight.dtype)
        reads = (*norm.inputs[1:], given)
        if given is not None:  # first: it may be zeros in a shape read off the weight
            self._exchange(node, 2, shift, given, reads)
        self._exchange(node, 1, changed.astype(weight.dtype), node.inputs[1], norm.inputs[1:])
        if given is None:
            self._append(node, shift, f"{_name(node.inputs[1])}.bias", reads)
        if "beta" in node.attributes:
            node.attributes.add(onnx_ir.AttrFloat32("beta", 1.0))
        return True

    def _into_matmul(
        self, add: onnx_ir.Node, norm: onnx_ir.Node, a: np.ndarray, c: np.ndarray
    ) -> bool:
        """MatMul, Add of a bias: channels must be the last axis of two."""
        for side in (0, 1):
            product, bias = add.inputs[1 - side], constant_of(add.inputs[side])
            node = product.producer() if product is not None else None
            if node is None or node.op_type != "MatMul" or bias is None or product is None:
                continue
            weight = constant_of(node.inputs[1])
            if weight is None or weight.shape[1:] != (len(a),) or len(product.uses()) > 1:
                continue
            flat = product.shape is not None and len(product.shape) == 2
            if not flat or bias.size not in (1, len(a)) or product.is_graph_output():
                continue
            shift = (a * bias.reshape(-1).astype(np.float64) + c).astype(weight.dtype)
            changed = (weight.astype(np.float64) * a).astype(weight.dtype)
            self._exchange(node, 1, changed, node.inputs[1], norm.inputs[1:])
            self._exchange(add, side, shift, add.inputs[side], norm.inputs[1:])
            return True
        return False

    def _apart(self, norm: onnx_ir.Node, a: np.ndarray, c: np.ndarray) -> None:
        """Mul by a and Add of c, shaped [channels, 1, ...] ([channels] before opset 7)."""
        x, y = norm.inputs[0], norm.outputs[0]
        assert x is not None
        if x.shape is None:
            return  # of unknown rank: it stays what it is
        old = self.model.graph.opset_imports.get("", 1) < 7
        shape = (len(a),) if old else (len(a), *[1] * (len(x.shape) - 2))
        # Before opset 7 an operand is broadcast only where the node says so, and from which axis.
        attributes = {"broadcast": 1, "axis": 1} if old else {}
        dtype = np.asarray(constant_of(norm.inputs[1])).dtype
        mul = onnx_ir.node("Mul", [x], attributes, name=f"{norm.name}.scale")
        add = onnx_ir.node("Add", [mul.outputs[0]], attributes, name=f"{norm.name}.shift")
        z, y_name, reads = add.outputs[0], y.name, norm.inputs[1:]
        mul.outputs[0].name = f"{y_name}.scaled"
        mul.outputs[0].shape, mul.outputs[0].type = x.shape, x.type
        z.shape, z.type = y.shape, y.type
        self.model.graph.insert_before(norm, [mul, add])
        onnx_ir.convenience.replace_all_uses_with(y, z, replace_graph_outputs=True)
        self._remove(norm)
        z.name = y_name
        for node, array, read in ((mul, a, reads[0]), (add, c, reads[1])):
            self._append(node, array.reshape(shape).astype(dtype), _name(read), reads)

    def _remove(self, node: onnx_ir.Node) -> None:
        """Remove a node that nothing reads, and the constants that only it read."""
        operands = node.inputs[1:] if node.op_type == "BatchNormalization" else node.inputs
        self.model.graph.remove(node, safe=True)
        for value in operands:
            self._drop(value)

    def _drop(self, value: onnx_ir.Value | None) -> None:
        if value is None or value.uses() or value.is_graph_output():
            return
        node = value.producer()
        if node is not None and len(node.outputs) == 1:
            self._remove(node)
        elif value.is_initializer():
            self.model.graph.initializers.pop(_name(value))
        else:
            return
        self.names.discard(_name(value))

    # --- initializers ---

    def _exchange(
        self,
        node: onnx_ir.Node,
        k: int,
        array: np.ndarray,
        old: onnx_ir.Value | None,
        reads: Sequence[onnx_ir.Value | None],
    ) -> None:
        """Input k of the node becomes an initializer with this content. It takes over the name of
        the old one where nothing else reads that."""
        node.replace_input_with(k, None)
        self._drop(old)
        node.replace_input_with(k, self._initializer(array, _name(old), (old, *reads)))

    def _append(
        self,
        node: onnx_ir.Node,
        array: np.ndarray,
        name: str,
        reads: Sequence[onnx_ir.Value | None],
    ) -> None:
        """One more input of the node, an initializer with this content."""
        count = 2 if node.op_type in ("Mul", "Add") else 3
        node.resize_inputs(count)
        node.replace_input_with(count - 1, self._initializer(array, name, reads))

    def _initializer(
        self, array: np.ndarray, name: str, reads: Sequence[onnx_ir.Value | None]
    ) -> onnx_ir.Value:
        unique, k = name, 1
        while unique in self.names:
            unique, k = f"{name}.{k}", k + 1
        self.names.add(unique)
        tensor = onnx_ir.tensor(np.ascontiguousarray(array), name=unique)
        value = onnx_ir.Value(
            name=unique,
            type=onnx_ir.TensorType(tensor.dtype),
            shape=onnx_ir.Shape(array.shape),
            const_value=tensor,
        )
        marked = (read for read in reads if read is not None)
        mark = next((m for r in marked if (m := r.metadata_props.get(PARAMETER_MARK))), None)
        if mark is not None:  # what parameters were folded into is one, whatever its numbers
            value.metadata_props[PARAMETER_MARK] = mark
        self.model.graph.register_initializer(value)
        found = [s for read in reads for s in self._origins(read)]
        self.sources[unique] = tuple(dict.fromkeys(found))
        return value

    def _origins(self, value: onnx_ir.Value | None) -> tuple[str, ...]:
        """Names in the original model of what a value was computed from."""
        if value is None:
            return ()
        return self.sources.get(_name(value), (_name(value),))


def _name(value: onnx_ir.Value | None) -> str:
    return (value.name or "") if value is not None else ""


def _conv(node: onnx_ir.Node, weight: np.ndarray, a: np.ndarray) -> np.ndarray | None:
    """weight [out, in / groups, ...]"""
    if len(weight) != len(a):
        return None
    return weight * a.reshape(-1, *[1] * (weight.ndim - 1))


def _conv_transpose(node: onnx_ir.Node, weight: np.ndarray, a: np.ndarray) -> np.ndarray | None:
    """weight [in, out / groups, ...]: input channels of group g make output channels of group g."""
    groups = node.attributes.get_int("group", 1)
    if weight.shape[1] * groups != len(a) or len(weight) % groups:
        return None
    split = weight.reshape(groups, -1, *weight.shape[1:])
    factor = a.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    return (split * factor).reshape(weight.shape)


def _gemm(node: onnx_ir.Node, weight: np.ndarray, a: np.ndarray) -> np.ndarray | None:
    """weight [in, out], or [out, in] with transB"""
    transposed = node.attributes.get_int("transB", 0)
    if weight.ndim != 2 or weight.shape[0 if transposed else 1] != len(a):
        return None
    return weight * (a[:, None] if transposed else a)
