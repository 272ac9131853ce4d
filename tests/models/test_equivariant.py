"""Layers between weight spaces against their definition: all affine maps that commute with every
permutation of the neurons, found by brute force on tiny sizes."""

from __future__ import annotations

from itertools import permutations, product

import pytest
import torch
from torch import Tensor

from ngc.errors import OptionError
from ngc.models.equivariant import WeightSpaceLinear
from ngc.models.layers import Chain
from ngc.models.weight_space import Features, WeightSpace

ONE = Features(1, 1)
CHAINS = {
    "one layer": Chain(((2, 3),)),
    "two layers": Chain(((3, 2), (2, 3))),
    "three layers": Chain(((3, 2), (2, 3), (2, 2))),
    "one output": Chain(((3, 2), (3, 3), (1, 3))),
}
SPACES = {"hidden": WeightSpace.of_hidden, "all": WeightSpace.of_all}


def entries(space: WeightSpace, flat: Tensor, features: int = 1) -> list[Tensor]:
    """flat [rows, entries * features] -> members."""
    weights, biases = [], []
    for out, into in space.chain.sizes:
        piece, flat = flat.split([out * into * features, flat.shape[1] - out * into * features], 1)
        weights.append(piece.unflatten(1, (out, into, features)))
    for out, _ in space.chain.sizes:
        piece, flat = flat.split([out * features, flat.shape[1] - out * features], 1)
        biases.append(piece.unflatten(1, (out, features)))
    return space.fold(weights, biases)


def flattened(space: WeightSpace, members: list[Tensor], features: int = 1) -> Tensor:
    weights, biases = space.unfold(members, Features(features, features))
    return torch.cat([x.flatten(1) for x in (*weights, *biases)], dim=1)


def num_entries(space: WeightSpace) -> int:
    return sum(out * into + out for out, into in space.chain.sizes)


def group(space: WeightSpace) -> list[list[int]]:
    """Every permutation of neurons, as where each entry of flat weights comes from."""
    sizes = [space.chain.sizes[0][1], *(out for out, _ in space.chain.sizes)]
    choices = [
        list(permutations(range(size))) if k in space.permuted else [tuple(range(size))]
        for k, size in enumerate(sizes)
    ]
    found = []
    for orders in product(*choices):
        places, start = [], 0
        for k, (out, into) in enumerate(space.chain.sizes):
            places += [start + a * into + b for a in orders[k + 1] for b in orders[k]]
            start += out * into
        for k, (out, _) in enumerate(space.chain.sizes):
            places += [start + a for a in orders[k + 1]]
            start += out
        found.append(places)
    return found


def num_orbits(elements: list[list[int]], pairs: bool) -> int:
    """Orbits of entries, or of pairs of entries, under the group: the dimension of the constants,
    or of the linear maps, that commute with it."""
    count = len(elements[0])
    points = list(product(range(count), repeat=2 if pairs else 1))
    return len({min(tuple(g[i] for i in point) for g in elements) for point in points})


def matrix_of(layer: WeightSpaceLinear, space: WeightSpace) -> tuple[Tensor, Tensor]:
    """(matrix, constant) of an affine layer of one feature."""
    count = num_entries(space)
    constant = flattened(space, layer(entries(space, torch.zeros(1, count).double())))
    columns = flattened(space, layer(entries(space, torch.eye(count).double())))
    return (columns - constant).T, constant[0]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("name", CHAINS)
def test_folding_is_undone(kind: str, name: str) -> None:
    space = SPACES[kind](CHAINS[name])
    flat = torch.randn(2, num_entries(space) * 3)
    members = entries(space, flat, features=3)
    assert torch.equal(flattened(space, members, features=3), flat)
    for x, member in zip(members, space.members, strict=True):
        assert x.dim() == 2 + len(member.axes)
        assert x.shape[-1] == member.channels(Features(3, 3))


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("pool", ["mean", "sum", "max"])
def test_layers_commute_with_every_permutation(kind: str, name: str, pool: str) -> None:
    space = SPACES[kind](CHAINS[name])
    layer = WeightSpaceLinear(space, Features(2, 2), Features(3, 3), pool).double()
    flat = torch.randn(2, num_entries(space), 2).double()
    before = flattened(space, layer(entries(space, flat.flatten(1), 2)), 3).unflatten(1, (-1, 3))
    assert before.std() > 0.1
    for places in group(space):
        moved = layer(entries(space, flat[:, places].flatten(1), 2))
        after = flattened(space, moved, 3).unflatten(1, (-1, 3))
        torch.testing.assert_close(after, before[:, places])


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("name", ["one layer", "two layers", "three layers"])
@pytest.mark.parametrize("pool", ["mean", "sum"])
def test_layers_are_all_maps_that_commute(kind: str, name: str, pool: str) -> None:
    """As many parameters as orbits, and no parameter says what others can say."""
    space = SPACES[kind](CHAINS[name])
    layer = WeightSpaceLinear(space, ONE, ONE, pool).double()
    count = sum(p.numel() for p in layer.parameters())
    elements = group(space)
    assert count == num_orbits(elements, pairs=True) + num_orbits(elements, pairs=False)
    maps = []
    flat = torch.nn.utils.parameters_to_vector(layer.parameters())
    for k in range(count):
        unit = torch.zeros_like(flat)
        unit[k] = 1
        torch.nn.utils.vector_to_parameters(unit, layer.parameters())
        matrix, constant = matrix_of(layer, space)
        maps.append(torch.cat([matrix.flatten(), constant]))
    assert int(torch.linalg.matrix_rank(torch.stack(maps))) == count


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_weights_alone_have_the_maps_of_the_np_layer(layers: int) -> None:
    """Zhou et al. 2023: one map between all pairs of layers, one more to the layer before
    and to the one after, and rows, columns and entries of the layer itself."""
    space = WeightSpace.of_all(Chain(((2, 2),) * layers))
    counts = [
        sum(space.members[k].is_weight for k in space.having(axes)) ** 2 for axes in space.subsets
    ]
    assert sum(counts) == layers**2 + 2 * (layers - 1) + 3 * layers


def test_channels_multiply_the_maps() -> None:
    space = WeightSpace.of_hidden(CHAINS["three layers"])
    one, many = (
        WeightSpaceLinear(space, ONE, ONE, "mean"),
        WeightSpaceLinear(space, Features(3, 3), Features(5, 5), "mean"),
    )
    for a, b in zip(one.maps, many.maps):
        assert b.weight.numel() == 15 * a.weight.numel()
        assert (b.bias is None and a.bias is None) or len(b.bias) == 5 * len(a.bias)


def test_unknown_pooling_is_refused() -> None:
    with pytest.raises(OptionError, match="pool cannot be 'median'"):
        WeightSpaceLinear(WeightSpace.of_hidden(CHAINS["one layer"]), ONE, ONE, "median")
