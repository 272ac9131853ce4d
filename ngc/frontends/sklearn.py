"""scikit-learn's networks and linear models, and pipelines of scalers before them -> ONNX.

Written out here, each estimator by the formula in scikit-learn's documentation: the usual converter
keeps parameters in attributes of fused operators, and drops outputs of a regressor with several.
Parameters are named by attribute: ``coefs_.0``, in a pipeline ``standardscaler.mean_``. The output
is what the network computes: probabilities of a classifier (one column where it has two classes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ngc.errors import LiftError, ModelError, OptionError
from ngc.ir.source import Exported, Origin, Place, Sample

OPSET, IR_VERSION = 20, 9

# scikit-learn's name of an activation -> ONNX operator.
ACTIVATIONS = {
    "identity": "Identity", "logistic": "Sigmoid", "tanh": "Tanh", "relu": "Relu",
    "softmax": "Softmax", "exp": "Exp",
}  # fmt: skip


@dataclass
class Writer:
    """An ONNX graph in the making; ``value`` is the name of what has been computed last."""

    value: str = "x"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)

    def parameter(self, name: str, array: Any) -> str:
        self.tensors[name] = np.ascontiguousarray(np.asarray(array, dtype=np.float64))
        return name

    def constant(self, number: float) -> str:
        result = f"constant_{len(self.nodes)}"
        value = numpy_helper.from_array(np.array(number, dtype=np.float64))
        self.nodes.append(helper.make_node("Constant", [], [result], value=value))
        return result

    def add(self, operator: str, *parameters: str, **attributes: Any) -> None:
        result = f"{operator.lower()}_{len(self.nodes)}"
        inputs = [self.value, *parameters]
        self.nodes.append(helper.make_node(operator, inputs, [result], **attributes))
        self.value = result


def export(model: Any, where: str) -> Exported:
    """A fitted estimator as ONNX in double precision, and where its attributes are."""
    writer, model = Writer(), fitted(model)
    _write(writer, "", model, where)
    features = _features(model, where)
    x = helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["batch", features])
    y = helper.make_tensor_value_info(writer.value, TensorProto.DOUBLE, None)
    tensors = [numpy_helper.from_array(array, name) for name, array in writer.tensors.items()]
    graph = helper.make_graph(writer.nodes, type(model).__name__, [x], [y], tensors)
    opsets = [helper.make_opsetid("", OPSET)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    inferred = onnx.shape_inference.infer_shapes(proto)
    places = {name: Place(name, array.shape) for name, array in writer.tensors.items()}
    outputs = inferred.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    return Exported(inferred, Origin("sklearn", places, {}), _sample(model, features, outputs))


def fitted(model: Any) -> Any:
    """The estimator that a search over parameters has found."""
    return getattr(model, "best_estimator_", model)


def _sample(model: Any, features: int, outputs: int) -> Sample:
    """What the estimator itself answers; of two classes with one output the probability of the
    second."""
    x = np.random.default_rng(0).standard_normal((1, features))
    if hasattr(model, "predict_proba"):
        found = model.predict_proba(x)
        answers = found[:, 1:] if (found.shape[1], outputs) == (2, 1) else found
    elif hasattr(model, "predict"):
        answers = model.predict(x).reshape(1, -1)
    else:
        answers = model.transform(x)
    return Sample((x,), (np.asarray(answers, dtype=np.float64),))


def write_back(model: Any, tensors: Mapping[str, np.ndarray]) -> None:
    """Set the attributes of an estimator that ``export`` named; all or none."""
    own, model = Writer(), fitted(model)
    _write(own, "", model, type(model).__name__)
    shapes = {name: array.shape for name, array in own.tensors.items()}
    if shapes != {name: array.shape for name, array in tensors.items()}:
        differ = sorted(n for n in shapes.keys() | tensors.keys()
                        if n not in tensors or shapes.get(n) != tensors[n].shape)  # fmt: skip
        raise LiftError(
            f"another estimator: it differs in {', '.join(differ[:5])}",
            hint="the one that was compiled",
        )
    for name, array in tensors.items():
        owner, rest = _owner(model, name)
        attribute, _, number = rest.partition(".")
        if number:
            values = list(getattr(owner, attribute))
            values[int(number)] = array
            setattr(owner, attribute, values)
        else:
            setattr(owner, attribute, array.reshape(np.shape(getattr(owner, attribute))))


def _owner(model: Any, name: str) -> tuple[Any, str]:
    """The estimator that an attribute is of, and the rest of the name."""
    for step, inner in getattr(model, "steps", ()):
        if name.startswith(f"{step}."):
            return _owner(inner, name.removeprefix(f"{step}."))
    return model, name


def _write(writer: Writer, prefix: str, model: Any, where: str) -> None:
    names = [kind.__name__ for kind in type(model).__mro__]
    rule = next((RULES[name] for name in names if name in RULES), None)
    if rule is None:
        raise OptionError(
            f"{prefix.rstrip('.') or 'it'} is a {names[0]}, which is no network that ngc reads",
            where=where,
            hint=f"of {', '.join(sorted(RULES))}",
        )
    try:
        rule(writer, prefix, model)
    except AttributeError as error:
        raise _unfitted(where) from error


def _features(model: Any, where: str) -> int:
    """How many numbers it reads. A pipeline has them from its first step, which may be none."""
    for step in (model, *(step for _, step in getattr(model, "steps", ()))):
        if hasattr(step, "n_features_in_"):
            return int(step.n_features_in_)
    raise _unfitted(where)


def _unfitted(where: str) -> ModelError:
    return ModelError("it has not been fitted", where=where, hint="model.fit(x, y)")


def _pipeline(writer: Writer, prefix: str, model: Any) -> None:
    for name, step in model.steps:
        if step is not None and step != "passthrough":
            _write(writer, f"{prefix}{name}.", step, f"{prefix}{name}")


def _mlp(writer: Writer, prefix: str, model: Any) -> None:
    last = len(model.coefs_) - 1
    for k, (weight, bias) in enumerate(zip(model.coefs_, model.intercepts_)):
        writer.add("MatMul", writer.parameter(f"{prefix}coefs_.{k}", weight))
        writer.add("Add", writer.parameter(f"{prefix}intercepts_.{k}", bias))
        name = model.out_activation_ if k == last else model.activation
        if name != "identity":
            writer.add(ACTIVATIONS[name], **({"axis": -1} if name == "softmax" else {}))


def _linear(writer: Writer, prefix: str, model: Any) -> None:
    weight = np.atleast_2d(dense(model.coef_))
    names = [writer.parameter(f"{prefix}coef_", weight)]
    if model.fit_intercept:
        bias = np.broadcast_to(model.intercept_, len(weight))
        names.append(writer.parameter(f"{prefix}intercept_", bias))
    writer.add("Gemm", *names, transB=1)


def dense(array: Any) -> np.ndarray:
    """Sparse coefficients written out."""
    return np.asarray(array.toarray() if hasattr(array, "toarray") else array)


def _logistic(writer: Writer, prefix: str, model: Any) -> None:
    _linear(writer, prefix, model)
    if model.coef_.shape[0] == 1:
        writer.add("Sigmoid")
    else:
        writer.add("Softmax", axis=-1)


def _standard(writer: Writer, prefix: str, model: Any) -> None:
    if model.with_mean:
        writer.add("Sub", writer.parameter(f"{prefix}mean_", model.mean_))
    if model.with_std:
        writer.add("Div", writer.parameter(f"{prefix}scale_", model.scale_))


def _robust(writer: Writer, prefix: str, model: Any) -> None:
    if model.with_centering:
        writer.add("Sub", writer.parameter(f"{prefix}center_", model.center_))
    if model.with_scaling:
        writer.add("Div", writer.parameter(f"{prefix}scale_", model.scale_))


def _max_abs(writer: Writer, prefix: str, model: Any) -> None:
    writer.add("Div", writer.parameter(f"{prefix}scale_", model.scale_))


def _min_max(writer: Writer, prefix: str, model: Any) -> None:
    writer.add("Mul", writer.parameter(f"{prefix}scale_", model.scale_))
    writer.add("Add", writer.parameter(f"{prefix}min_", model.min_))
    if model.clip:
        low, high = (writer.constant(bound) for bound in model.feature_range)
        writer.add("Clip", low, high)


def _pca(writer: Writer, prefix: str, model: Any) -> None:
    writer.add("Sub", writer.parameter(f"{prefix}mean_", model.mean_))
    components = writer.parameter(f"{prefix}components_", model.components_)
    turned = f"{components}.T"
    writer.nodes.append(helper.make_node("Transpose", [components], [turned], perm=[1, 0]))
    writer.add("MatMul", turned)
    if model.whiten:
        variance = writer.parameter(f"{prefix}explained_variance_", model.explained_variance_)
        root, deviation = f"{variance}.sqrt", f"{variance}.deviation"
        writer.nodes.append(helper.make_node("Sqrt", [variance], [root]))
        least = writer.constant(float(np.finfo(np.float64).eps))  # as scikit-learn does
        writer.nodes.append(helper.make_node("Max", [root, least], [deviation]))
        writer.add("Div", deviation)


RULES: dict[str, Callable[[Writer, str, Any], None]] = {
    "Pipeline": _pipeline,
    "BaseMultilayerPerceptron": _mlp,
    "LinearRegression": _linear,
    "Ridge": _linear,
    "Lasso": _linear,
    "ElasticNet": _linear,
    "LogisticRegression": _logistic,
    "StandardScaler": _standard,
    "RobustScaler": _robust,
    "MaxAbsScaler": _max_abs,
    "MinMaxScaler": _min_max,
    "PCA": _pca,
}
