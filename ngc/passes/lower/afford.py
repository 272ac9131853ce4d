"""What evaluating one node on constants would cost, found out before it is run.

Sizes of results come from ONNX's own shape inference on the one node, so every operator of the
standard is covered by one rule; work is bounded for the operators that do more than touch each
entry a few times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ngc.budget import Budget
from ngc.errors import BudgetError

# Operands up to this size are shown to shape inference by value (shapes, axes, repeats, sizes).
SMALL = 1024

# The reference evaluator loops over entries of these in Python, some microseconds for each.
SLOW = {
    "AveragePool", "Col2Im", "DeformConv", "GridSample", "GRU", "LpPool", "LSTM", "MaxPool",
    "MaxRoiPool", "MaxUnpool", "NonMaxSuppression", "Resize", "RNN", "RoiAlign",
    "ScatterElements", "ScatterND", "StringSplit", "TfIdfVectorizer", "Upsample", "GatherND",
    "GatherElements", "Det", "Unique",
}  # fmt: skip
MAX_SLOW = 2**18

# Sums over a contracted axis: work is results times terms.
CONTRACTING = {
    "Conv", "ConvInteger", "ConvTranspose", "DFT", "Einsum", "Gemm", "MatMul", "MatMulInteger",
    "QLinearConv", "QLinearMatMul", "STFT", "Attention",
}  # fmt: skip


def afford_evaluation(
    node: onnx.NodeProto,
    feeds: Mapping[str, np.ndarray],
    opsets: Sequence[onnx.OperatorSetIdProto],
    budget: Budget,
    where: str,
) -> None:
    """Raise BudgetError if a result of the node, or the work for it, is over the budget."""
    largest = max((array.size for array in feeds.values()), default=0)
    for shape in result_shapes(node, feeds, opsets):
        largest = max(largest, budget.afford(shape, where=where, what="a constant"))
    if node.op_type in SLOW and largest > MAX_SLOW:
        raise BudgetError(f"{node.op_type} of a constant of {largest:,} entries", where=where)
    if node.op_type in CONTRACTING:
        sizes = sorted(array.size for array in feeds.values())
        work = math.isqrt(max(1, largest * math.prod(sizes[-2:])))
        if work > budget.max_work:
            raise BudgetError(f"{node.op_type} of constants takes {work:,} steps", where=where)


def result_shapes(
    node: onnx.NodeProto,
    feeds: Mapping[str, np.ndarray],
    opsets: Sequence[onnx.OperatorSetIdProto],
) -> list[list[int]]:
    """Shapes of the node's results, as far as ONNX can tell them without running it."""
    inputs, initializers = [], []
    for name, array in feeds.items():
        try:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        except (KeyError, ValueError):
            return []
        if array.size <= SMALL and kind != TensorProto.STRING:
            initializers.append(numpy_helper.from_array(np.array(array), name))
        else:
            inputs.append(helper.make_tensor_value_info(name, kind, array.shape))
    # Inference needs no outputs to be declared: it reports each value it can tell about.
    graph = helper.make_graph([node], "one", inputs, [], initializers)
    model = helper.make_model(graph, opset_imports=opsets)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return []  # the node is malformed: running it will say how
    shapes = []
    for value in inferred.graph.value_info:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape"):
            shapes.append(
                [max(dim.dim_value, 0) if dim.HasField("dim_value") else 1 for dim in dims]
            )
    return shapes
