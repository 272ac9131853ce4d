"""Each hand-made network, exported in three ways: every file is proven, and all give one graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ngc.compiler import compile
from ngc.proof import verify
from tests.networks.conftest import Files
from tests.networks.known_differences import FOLDED, KNOWN_DIFFERENCES, WITH_BATCH_NORM
from tests.networks.same_graph import difference
from tests.networks.zoo import NETWORKS

FLATTENS = [name for name, network in NETWORKS.items() if network.flattens]

# Each option away from its default; the flatten strategies come by default.
OPTIONS: dict[str, dict[str, Any]] = {
    "fold": {"norm": "fold"},
    "separate": {"linear_as": "separate"},
    "residual nodes": {"residual": "nodes"},
    "activation nodes": {"activation": "nodes"},
    "appended": {"reverse": "append"},
    "features": {"reverse": "features"},
    "no positions": {"pos": "none"},
    "large kernel": {"kernel": (5, 7, 9)},
    "ragged": {"storage": "ragged"},
    "all nodes": {"residual": "nodes", "activation": "nodes", "flatten": "virtual"},
}


def differences(paths: dict[str, Path], compare: bool = True, **options: Any) -> dict[str, str]:
    """Proves the compilation of every file; what its graph has otherwise than that of the first."""
    graphs = {}
    for exporter, path in paths.items():
        compilation = compile(path, **options)
        verify(compilation).require()
        graphs[exporter] = compilation.graph()
    first, *others = graphs
    if not compare:
        return {}
    found = {exporter: difference(graphs[first], graphs[exporter]) for exporter in others}
    return {exporter: text for exporter, text in found.items() if text}


def known(name: str) -> dict[str, str]:
    return {exporter: why for (n, exporter), why in KNOWN_DIFFERENCES.items() if n == name}


@pytest.mark.parametrize("name", NETWORKS)
def test_all_files_are_proven_and_give_one_graph(name: str, files: Files) -> None:
    found = differences(files(name))
    assert found.keys() == known(name).keys(), found


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_with_batch_norm_folded_all_files_give_one_graph(name: str, files: Files) -> None:
    assert not differences(files(name), norm="fold")


@pytest.mark.parametrize("strategy", ["virtual", "kernel"])
@pytest.mark.parametrize("name", FLATTENS)
def test_all_files_flatten_alike(name: str, strategy: str, files: Files) -> None:
    assert not differences(files(name), flatten=strategy)


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_option(name: str, option: str, files: Files) -> None:
    fields = OPTIONS[option]
    found = differences(files(name), compare="storage" not in fields, **fields)
    expected = known(name)
    if fields.get("norm") == "fold":
        expected = {exporter: why for exporter, why in expected.items() if why != FOLDED}
    if fields.get("storage") == "ragged":
        expected = {}  # only padded kernels are compared
    assert found.keys() == expected.keys(), found


def test_the_tables_speak_of_networks_that_exist() -> None:
    assert set(WITH_BATCH_NORM) <= NETWORKS.keys()
    assert {name for name, _ in KNOWN_DIFFERENCES} <= NETWORKS.keys()
    assert len(NETWORKS) > 80
    assert len(FLATTENS) >= 3
