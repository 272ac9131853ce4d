"""Networks of a zoo as a set to learn from: weights, kernels of one size, filters, splits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ngc.compiler import compile
from ngc.errors import OptionError
from ngc.options import Options
from ngc.train.recipe import ZooData
from ngc.train.zoo_networks import from_zoo, split_by_run
from ngc.zoo import Zoo, import_zoo
from tests.train.fake_zoo import ARCHITECTURES, STEPS, small_zoo, write_networks

OPTIONS = Options(reverse="features")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return small_zoo(tmp_path_factory.mktemp("zoo"))


def data(**settings: object) -> ZooData:
    return ZooData(set="zoo", validation=0.2, test=0.2, **settings)  # type: ignore[arg-type]


def test_weights_and_labels_are_those_of_the_files(zoo: Zoo) -> None:
    networks = from_zoo(zoo, OPTIONS, data(), "accuracy")
    assert len(networks.families) == len(ARCHITECTURES)
    for number in (0, 7, 20, 35):
        family = networks.families[int(networks.family[number])]
        file = zoo.path.parent / "networks" / networks.names[number]
        alone = compile(file, options=family.compilation.plan.options)
        weights = family.weights[networks.row[number][None]]
        assert torch.equal(weights[0], alone.weights)
        assert networks.groups[number] == networks.names[number].split("-")[0]
        stated = float(zoo.table["accuracy"][number])
        assert networks.label[number].item() == pytest.approx(stated)


def test_a_batch_has_each_network_in_its_place(zoo: Zoo) -> None:
    networks = from_zoo(zoo, OPTIONS, data(), "accuracy")
    numbers = torch.tensor([30, 2, 14, 3])
    batch = networks.batch(numbers)
    assert len(batch.members) == 3
    for member in batch.members:
        for place, weights in zip(member.places.tolist(), member.weights):
            alone = networks.batch(numbers[place][None]).members[0]
            assert alone.family is member.family
            assert torch.equal(alone.weights[0], weights)


def test_kernels_of_all_architectures_get_the_largest_size(zoo: Zoo) -> None:
    networks = from_zoo(zoo, OPTIONS, data(), "accuracy")
    sizes = {one.compilation.plan.graph.layout.kernel for one in networks.families}
    assert sizes == {(5, 5)}
    given = from_zoo(zoo, OPTIONS.changed({"kernel": "7x7"}), data(), "accuracy")
    assert {one.compilation.plan.graph.layout.kernel for one in given.families} == {(7, 7)}
    with pytest.raises(OptionError, match="larger than the kernel size 3x3"):
        from_zoo(zoo, OPTIONS.changed({"kernel": "3x3"}), data(), "accuracy")


def test_no_run_is_in_two_splits_and_every_network_in_one(zoo: Zoo) -> None:
    networks = from_zoo(zoo, OPTIONS, data(), "accuracy")
    splits = networks.splits
    runs = {
        name: {networks.names[k].split("/")[0] for k in numbers.tolist()}
        for name, numbers in splits.items()
    }
    assert sorted(torch.cat(list(splits.values())).tolist()) == list(range(len(zoo)))
    assert not runs["train"] & runs["validation"]
    assert not runs["train"] & runs["test"]
    assert not runs["validation"] & runs["test"]
    assert len(splits["test"]) == len(runs["test"]) * STEPS == 8
    again = from_zoo(zoo, OPTIONS, data(), "accuracy")
    assert all(torch.equal(again.splits[name], splits[name]) for name in splits)
    other = from_zoo(zoo, OPTIONS, data(split_seed=1), "accuracy")
    assert not torch.equal(other.splits["test"].sort().values, splits["test"].sort().values)


def test_fewer_training_networks_are_whole_runs_and_leave_the_test_as_it_is(zoo: Zoo) -> None:
    whole, less = (from_zoo(zoo, OPTIONS, data(train=n), "accuracy") for n in (None, 5))
    assert torch.equal(whole.splits["test"], less.splits["test"])
    kept = [less.names[k].split("/")[0] for k in less.splits["train"].tolist()]
    assert len(kept) == 4  # two runs: a third would be more than 5
    assert len(set(kept)) == 2


def test_a_filter_keeps_networks_with_a_value(zoo: Zoo) -> None:
    last = from_zoo(zoo, OPTIONS, data(where={"step": 1}), "accuracy")
    assert len(last) == len(zoo) // STEPS
    assert all(name.endswith("/1.onnx") for name in last.names)
    plain = from_zoo(zoo, OPTIONS, data(where={"family": "plain", "step": 0}), "accuracy")
    assert len(plain.families) == 1
    with pytest.raises(OptionError, match="no network is left"):
        from_zoo(zoo, OPTIONS, data(where={"family": "none"}), "accuracy")
    with pytest.raises(OptionError, match="no column epoch"):
        from_zoo(zoo, OPTIONS, data(where={"epoch": 1}), "accuracy")


def test_a_split_of_the_table_is_used_where_there_is_one(zoo: Zoo) -> None:
    with pytest.raises(OptionError, match="no column split"):
        from_zoo(zoo, OPTIONS, data(split="table"), "accuracy")


def test_targets_must_lie_between_0_and_1(zoo: Zoo) -> None:
    with pytest.raises(OptionError, match="no column steps"):
        from_zoo(zoo, OPTIONS, data(), "steps")
    networks = from_zoo(zoo, OPTIONS, data(), "step")  # 0 and 1
    assert set(networks.label.tolist()) == {0.0, 1.0}


def test_too_few_runs_for_three_splits_are_refused() -> None:
    with pytest.raises(OptionError, match="2 training runs are too few"):
        split_by_run(["a", "a", "b"], 0.2, 0.2, 0)


def test_without_runs_a_split_by_run_is_refused_and_one_by_network_is_said(tmp_path: Path) -> None:
    source = write_networks(tmp_path / "networks", runs=2)
    lines = (source / "table.csv").read_text().splitlines()
    kept = [",".join(line.split(",")[:2]) for line in lines]
    (source / "table.csv").write_text("\n".join(kept) + "\n")
    zoo = import_zoo(source, tmp_path / "zoo", table=source / "table.csv")
    for split in ("auto", "run"):
        with pytest.raises(OptionError, match="no column run"):
            from_zoo(zoo, OPTIONS, data(split=split), "accuracy")
    networks = from_zoo(zoo, OPTIONS, data(split="network"), "accuracy")
    assert sum(len(numbers) for numbers in networks.splits.values()) == len(zoo)
