"""Sets of networks: weights in slots, splits, batches, and the way back to ONNX."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

import ngc
from ngc.errors import NgcError, OptionError
from ngc.options import Options
from ngc.train.inr_sets import InrSet
from ngc.train.networks import Family, NetworkSet, from_inrs, pack_stack, split_numbers
from ngc.train.siren import Conventions, evaluate
from tests.train.fake_data import small_set
from tests.train.tiny import CONVENTIONS, tiny_set

OPTIONS = Options(reverse="features")


def networks_of(inrs: InrSet, **sizes: int) -> NetworkSet:
    return from_inrs(inrs, OPTIONS, **sizes)


def two_architectures() -> NetworkSet:
    """Five networks: numbers 0, 2 and 4 of one architecture, 1 and 3 of a deeper one."""
    families = []
    for widths, count in (((2, 4, 3, 1), 3), ((2, 5, 4, 3, 1), 2)):
        inrs = small_set(count, Conventions(widths, height=6, width=5))
        compilation = ngc.compile(inrs.onnx(0), options=OPTIONS)
        families.append(Family(compilation, pack_stack(compilation, inrs.params)))
    return NetworkSet(
        families=tuple(families),
        family=torch.tensor([0, 1, 0, 1, 0]),
        row=torch.tensor([0, 0, 1, 1, 2]),
        label=torch.arange(5),
        splits={"train": torch.arange(5)},
    )


# --- weights --------------------------------------------------------------------------------------


def test_weights_are_those_of_each_network_compiled_alone() -> None:
    inrs = tiny_set(6)
    weights = networks_of(inrs, validation=1).families[0].weights
    for number in range(6):
        alone = ngc.compile(inrs.onnx(number), options=OPTIONS)
        assert torch.equal(weights[number], alone.weights)


def test_params_are_views_and_pack_back() -> None:
    family = networks_of(tiny_set(8)).families[0]
    params = family.params(family.weights[:5])
    assert {name: tuple(p.shape) for name, p in params.items()} == {
        name: (5, *shape) for name, shape in CONVENTIONS.shapes.items()
    }
    assert torch.equal(family.packed(params), family.weights[:5])


def test_parameters_that_do_not_fit_are_refused() -> None:
    family = networks_of(tiny_set(8)).families[0]
    params = family.params(family.weights)
    with pytest.raises(NgcError, match=r"seq.0.bias: the set has \[5\], not \[4\]"):
        family.packed({**params, "seq.0.bias": torch.zeros(8, 5)})
    del params["seq.0.bias"]
    with pytest.raises(NgcError, match="the set has nothing"):
        family.packed(params)


def test_a_network_goes_back_to_onnx() -> None:
    inrs = tiny_set(8)
    family = networks_of(inrs).families[0]
    model = family.onnx(family.weights[3])
    onnx.checker.check_model(model)
    for found, known in zip(model.graph.initializer, inrs.onnx(3).graph.initializer, strict=True):
        assert found.name == known.name
        assert np.array_equal(onnx.numpy_helper.to_array(found), onnx.numpy_helper.to_array(known))
    changed = family.weights[3] * 2
    back = ngc.compile(family.onnx(changed), options=OPTIONS)
    assert torch.equal(back.weights[2:], changed[2:])


# --- splits ---------------------------------------------------------------------------------------


def test_splits_are_disjoint_and_of_the_right_kind() -> None:
    inrs = tiny_set(40)
    splits = networks_of(inrs, train=15, validation=5, test=4).splits
    assert {name: len(numbers) for name, numbers in splits.items()} == {
        "train": 15, "validation": 5, "test": 4,
    }  # fmt: skip
    joined = torch.cat(list(splits.values()))
    assert len(joined.unique()) == 24
    assert (inrs.split[splits["train"]] == 0).all()
    assert (inrs.split[splits["validation"]] == 0).all()
    assert (inrs.split[splits["test"]] == 1).all()


def test_validation_networks_do_not_depend_on_the_training_size() -> None:
    few, all_of_them = (networks_of(tiny_set(40), train=n, validation=6).splits for n in (3, None))
    assert torch.equal(few["validation"], all_of_them["validation"])
    assert torch.equal(few["train"], all_of_them["train"][:3])
    assert len(all_of_them["train"]) == 24


def test_the_seed_chooses_the_networks() -> None:
    split = tiny_set(40).split
    first, again, other = (split_numbers(split, 5, 5, 5, seed) for seed in (0, 0, 1))
    assert torch.equal(first["train"], again["train"])
    assert not torch.equal(first["train"], other["train"])


def test_validation_is_the_sets_own_or_a_tenth() -> None:
    split = torch.tensor([0] * 20 + [1] * 5)
    assert len(split_numbers(split, None, None, None, 0)["validation"]) == 2
    split[3:6] = 2
    splits = split_numbers(split, None, None, None, 0)
    assert splits["validation"].sort().values.tolist() == [3, 4, 5]
    assert len(splits["train"]) == 17
    assert len(split_numbers(split, None, 2, None, 0)["validation"]) == 2


def test_a_set_without_splits_has_test_networks_set_aside() -> None:
    """As of a folder of pictures."""
    inrs = replace(tiny_set(30), split=torch.zeros(30, dtype=torch.long))
    for test, count in ((None, 3), (5, 5)):
        splits = from_inrs(inrs, Options(), test=test).splits
        assert len(splits["test"]) == count
        numbers = torch.cat(list(splits.values())).tolist()
        assert sorted(numbers) == list(range(30))


def test_classes_have_the_names_that_the_set_knows() -> None:
    named = replace(tiny_set(8), origin={"classes": ["disc", "ring", "square"]})
    assert networks_of(named).classes == ("disc", "ring", "square")
    assert networks_of(tiny_set(8)).classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"train": 31}, "data.train: the set has 24 networks left for it, not 31"),
        ({"validation": 31}, "data.train: the set has 0 networks left for it, not any"),
        ({"test": 11}, "data.test: the set has 10 networks left for it, not 11"),
    ],
)
def test_more_networks_than_there_are(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        networks_of(tiny_set(40), **{"validation": 6, **sizes})


# --- batches --------------------------------------------------------------------------------------


def test_a_batch_has_the_networks_in_the_order_asked_for() -> None:
    networks = networks_of(tiny_set(8))
    batch = networks.batch(torch.tensor([5, 1, 5]))
    assert batch.numbers.tolist() == [5, 1, 5]
    assert torch.equal(batch.members[0].weights, networks.families[0].weights[[5, 1, 5]])
    bound = networks.families[0].compilation.plan.node_features(networks.families[0].weights[5])
    assert torch.equal(batch.graphs.parts[0].x[0], bound)


def test_architectures_of_a_batch_are_sorted_and_come_back_in_order() -> None:
    networks = two_architectures()
    batch = networks.batch(torch.tensor([3, 0, 1, 4]))
    assert [one.places.tolist() for one in batch.members] == [[1, 3], [0, 2]]
    rows = [one.weights.sum(1, keepdim=True) for one in batch.members]
    expected = [networks.families[k].weights[r].sum() for k, r in ((1, 1), (0, 0), (1, 0), (0, 2))]
    assert torch.equal(batch.graphs.restored(rows)[:, 0], torch.stack(expected))


def test_a_batch_can_run_its_networks() -> None:
    inrs = tiny_set(8)
    networks = networks_of(inrs)
    points = torch.tensor([[[0.1, -0.4]], [[0.9, 0.0]]])  # [m, n = 1, 2]
    part = networks.batch(torch.tensor([2, 6])).graphs.parts[0]
    assert part.activations is not None
    values = part.activations([points])[:, part.structure.outputs]  # [graphs, 1, m]
    expected = evaluate(CONVENTIONS, inrs.select([2, 6]).params, points[:, 0])
    torch.testing.assert_close(values[:, 0], expected[..., 0])


def test_changes_apply_to_the_parameters_of_a_batch_only() -> None:
    networks = networks_of(tiny_set(8))
    before = networks.families[0].weights.clone()
    batch = networks.batch(
        torch.tensor([2, 3]),
        lambda family, weights: family.packed(
            {name: p * 2 for name, p in family.params(weights).items()}
        ),
    )
    assert torch.equal(batch.members[0].weights[:, 2:], before[[2, 3], 2:] * 2)
    assert batch.members[0].weights[:, :2].tolist() == [[0, 1], [0, 1]]
    assert torch.equal(networks.families[0].weights, before)


def test_facts_are_those_of_the_training_networks() -> None:
    facts = two_architectures().facts()
    assert facts.num_layers == 5  # of the deeper one, inputs included
    assert facts.input_shapes == ((1, 2),)
    assert facts.chain == ()
    assert networks_of(tiny_set(8)).facts().chain == ((4, 2), (3, 4), (1, 3))


def test_the_digest_tells_sets_apart() -> None:
    first, again, other = (networks_of(tiny_set(8, seed=seed)).digest() for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert networks_of(tiny_set(8), train=3).digest() != first


def test_moving_a_set_leaves_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = networks_of(tiny_set(8))
    assert networks.to("cpu") is networks
    moved = networks.to("meta")
    assert moved.device.type == moved.families[0].weights.device.type == "meta"
    assert networks.device.type == "cpu"
    assert np.isfinite(networks.families[0].weights.numpy()).all()
