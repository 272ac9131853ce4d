"""Architecture alone: blind to weights, told apart by everything else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ngc.backends.blocks import bind_blocks, structure_of
from ngc.errors import OptionError
from ngc.models import build
from ngc.models.architecture import ACTIVATIONS, NUM_SIZES, numbers_of
from tests.models.classifiers import Layer, classifier, classifier_weights, company, families
from tests.models.networks import batch_of, facts_of

NETWORKS = families()


def architecture() -> nn.Module:
    torch.manual_seed(0)
    return build("architecture", facts_of(*NETWORKS.values()), outputs=3, hidden=16)


def test_every_parameter_learns() -> None:
    model = architecture()
    company_batch = company(NETWORKS)[0]
    (model(company_batch) - 0.5).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_weights_are_not_seen(name: str) -> None:
    model, network = architecture().eval(), NETWORKS[name]
    weights = torch.cat(
        [classifier_weights(network, 2), torch.full((1, network.program.num_slots), torch.nan)]
    )
    found = model(bind_blocks(network.plan, weights))
    torch.testing.assert_close(found, found[:1].expand(3, -1))


@torch.no_grad()
def test_networks_of_a_batch_are_in_their_order() -> None:
    model = architecture().eval()
    batch, names = company(NETWORKS)
    found = model(batch)
    for architecture_, network in NETWORKS.items():
        alone = model(batch_of(network, classifier_weights(network, 1)))
        for k in (k for k, other in enumerate(names) if other == architecture_):
            torch.testing.assert_close(found[k], alone[0], rtol=1e-5, atol=1e-5)


CHANGES = {
    "channels": (Layer(5), Layer(6)),
    "kernel": (Layer(4, 5), Layer(6)),
    "activation": (Layer(4), Layer(6, activation="tanh")),
    "norm": (Layer(4, norm=True), Layer(6)),
    "depth": (Layer(4), Layer(6), Layer(6)),
    "skip": (Layer(4), Layer(6), Layer(6, skip=0)),
}


@torch.no_grad()
def test_all_else_is_seen() -> None:
    networks = {name: classifier(*layers) for name, layers in CHANGES.items()}
    networks["as it is"] = classifier(Layer(4), Layer(6))
    torch.manual_seed(0)
    model = build("architecture", facts_of(*networks.values()), outputs=3).eval()
    found = model(company(networks, many=1)[0])
    distance = torch.cdist(found, found) + torch.eye(len(found))
    assert distance.min() > 1e-3


def sizes(*layers: Layer) -> Tensor:
    return numbers_of(structure_of(classifier(*layers).plan))[0]


def test_numbers_are_those_of_the_layers() -> None:
    found = sizes(Layer(4, 5), Layer(6, 3, "tanh"), Layer(8, skip=0))
    nodes, parameters, _, height, width, skips = found[:, :NUM_SIZES].T
    assert nodes.exp().round().tolist() == [3, 4, 6, 8, 4]  # 3 inputs, 4 outputs
    expected = [0, 4 * 3 * 25 + 4, 6 * 4 * 9 + 6, 8 * 6 * 9 + 8, 4 * 8 + 4]
    assert parameters.expm1().round().tolist() == expected
    assert height.tolist() == width.tolist() == [0, 5, 3, 3, 1]
    assert skips.tolist() == [0, 0, 0, 0.5, 0]
    tanh = found[:, NUM_SIZES + ACTIVATIONS.index("tanh")]
    assert tanh.tolist() == [0, 0, 1, 0, 0]


def test_deeper_networks_are_refused_and_other_activations_are_not() -> None:
    model = build("architecture", facts_of(NETWORKS["plain"]))
    deep, tanh = NETWORKS["deep"], NETWORKS["one layer"]
    with pytest.raises(OptionError, match=r"6 layers of weights \(it reads 3\)"):
        model(batch_of(deep, classifier_weights(deep, 1)))
    assert model(batch_of(tanh, classifier_weights(tanh, 1))).isfinite().all()
