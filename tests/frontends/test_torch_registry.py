"""The exporter's table of operators is made once, and every export sees a whole one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from ngc.frontends import torch_registry
from ngc.frontends.torch import export


def test_models_after_the_first_are_exported_the_same_from_a_kept_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    make = ONNXRegistry.from_torchlib

    def counted(*args: Any, **kwargs: Any) -> ONNXRegistry:
        made.append(args)
        return make(*args, **kwargs)

    monkeypatch.setattr(torch_registry, "_made", {})
    monkeypatch.setattr(ONNXRegistry, "from_torchlib", staticmethod(counted))
    module = nn.Sequential(nn.Linear(2, 3), nn.GELU())
    first, second = (export(module, torch.zeros(1, 2), "module") for _ in range(2))
    assert len(made) == 1
    assert first.proto.graph.node == second.proto.graph.node


def test_what_one_export_adds_another_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_registry, "_made", {})
    with torch_registry.registry_kept():
        first = ONNXRegistry.from_torchlib()
        target = torch.ops.aten.relu.default
        count = len(first.functions[target.name()])
        first.register_op(target, lambda x: x)
        assert len(first.functions[target.name()]) == count + 1
        assert len(ONNXRegistry.from_torchlib().functions[target.name()]) == count
