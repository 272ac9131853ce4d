"""Networks of Linear layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.networks.base import NETWORKS, Network, network


class Function(nn.Module):
    """A plain function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


# Every activation of torch.nn that acts on one tensor, and functions that networks use as one. Not
# RReLU, which the dynamo exporter cannot export. A Threshold elsewhere than at zero cannot be
# exported by the legacy one.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": partial(nn.LeakyReLU, 0.2),
    "prelu": nn.PReLU,
    "prelu_per_neuron": partial(nn.PReLU, 6),
    "elu": partial(nn.ELU, 0.7),
    "selu": nn.SELU,
    "celu": partial(nn.CELU, 0.7),
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "sigmoid": nn.Sigmoid,
    "log_sigmoid": nn.LogSigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
    "hard_swish": nn.Hardswish,
    "hard_tanh": partial(nn.Hardtanh, -0.5, 1.5),
    "tanh": nn.Tanh,
    "tanh_shrink": nn.Tanhshrink,
    "soft_shrink": partial(nn.Softshrink, 0.3),
    "hard_shrink": partial(nn.Hardshrink, 0.3),
    "softplus": nn.Softplus,
    "softplus_beta": partial(nn.Softplus, beta=2.0),
    "softsign": nn.Softsign,
    "threshold": partial(nn.Threshold, 0.0, 0.0),
    "softmax": partial(nn.Softmax, -1),
    "softmin": partial(nn.Softmin, -1),
    "log_softmax": partial(nn.LogSoftmax, -1),
    "sin": partial(Function, torch.sin),
    "cos": partial(Function, torch.cos),
    "exp": partial(Function, torch.exp),
    "abs": partial(Function, torch.abs),
    "erf": partial(Function, torch.erf),
    "square": partial(Function, torch.square),
    "swish_beta": partial(Function, lambda x: x * torch.sigmoid(1.5 * x)),
    "quick_gelu": partial(Function, lambda x: x * torch.sigmoid(1.702 * x)),
    "relu_squared": partial(Function, lambda x: F.relu(x) ** 2),
    "gaussian": partial(Function, lambda x: torch.exp(-0.5 * x**2)),
}


def mlp(activation: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 6), activation(), nn.Linear(6, 6), activation(), nn.Linear(6, 3)
    )


for _name, _activation in ACTIVATIONS.items():
    NETWORKS[f"mlp_{_name}"] = Network(partial(mlp, _activation), ((2, 5),))


@network("siren", (4, 2))
class Siren(nn.Module):
    """An implicit neural representation: sin(30 (W x + b)), coordinates to a grey value."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 32), nn.Linear(32, 32), nn.Linear(32, 1)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = torch.sin(30.0 * layer(x))
        return self.layers[-1](x) + 0.5


@network("nerf", (2, 3))
class Nerf(nn.Module):
    """Sine and cosine encoding, the encoded input joined again half-way."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(15, 8), nn.Linear(8, 8)
        self.joined, self.last = nn.Linear(23, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        waves = [f(2.0**k * x) for k in range(2) for f in (torch.sin, torch.cos)]
        encoded = torch.cat([x, *waves], dim=-1)
        h = F.relu(self.second(F.relu(self.first(encoded))))
        h = F.relu(self.joined(torch.cat([h, encoded], dim=-1)))
        return self.last(h)


@network("residual_mlp", (2, 5))
class ResidualMlp(nn.Module):
    """Two pre-activation blocks on a stream of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(5, 8), nn.Linear(8, 3)
        self.up = nn.ModuleList([nn.Linear(8, 12) for _ in range(2)])
        self.down = nn.ModuleList([nn.Linear(12, 8) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for up, down in zip(self.up, self.down):
            h = h + down(F.gelu(up(h)))
        return self.leave(h)


@network("gated_residual", (2, 5))
class GatedResidual(nn.Module):
    """A highway layer: g * f(h) + (1 - g) * h."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(5, 6), nn.Linear(6, 3)
        self.gate, self.change = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.enter(x))
        g = torch.sigmoid(self.gate(h))
        return self.leave(g * F.relu(self.change(h)) + (1 - g) * h)


@network("film", (2, 5), (2, 3))
class Film(nn.Module):
    """A second input gives scale and shift of the first one's features."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(5, 6), nn.Linear(6, 3)
        self.condition = nn.Linear(3, 12)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        gamma, beta = self.condition(z).chunk(2, dim=-1)
        return self.leave(F.relu((1 + gamma) * self.enter(x) + beta))


@network("swiglu", (2, 3, 6))
class SwiGlu(nn.Module):
    """The feed-forward block of a language model, without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(6, 10, bias=False), nn.Linear(6, 10, bias=False)
        self.down = nn.Linear(10, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.silu(self.gate(x)) * self.up(x))


@network("glu", (2, 5))
class Glu(nn.Module):
    """Gated linear unit: half of the features gate the other half."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 12), nn.GLU(-1), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@network("tied_autoencoder", (2, 7))
class TiedAutoencoder(nn.Module):
    """The decoder's weights are the encoder's, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.outer = nn.Parameter(torch.randn(5, 7))
        self.inner = nn.Parameter(torch.randn(3, 5))
        self.biases = nn.ParameterList([torch.zeros(n) for n in (5, 3, 5, 7)])

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d = self.biases
        h = torch.tanh(F.linear(x, self.outer, a))
        z = torch.tanh(F.linear(h, self.inner, b))
        h = torch.tanh(F.linear(z, self.inner.t(), c))
        return F.linear(h, self.outer.t(), d)


@network("learned_scalar", (2, 5))
class LearnedScalar(nn.Module):
    """A temperature, and a residual branch with a weight of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.block, self.leave = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.temperature = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.enter(x))
        h = h + self.weight * F.relu(self.block(h))
        return self.leave(h) / self.temperature


@network("embedding", (2, 4), ids=9)
class EmbeddingMean(nn.Module):
    """A bag of words: embedded tokens, their mean, a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 5)
        self.hidden, self.leave = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.leave(F.relu(self.hidden(self.table(ids))).mean(dim=1))


@network("class_token", (2, 4, 5))
class ClassToken(nn.Module):
    """A learned token put before the others, then the mean over all."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.hidden, self.leave = nn.Linear(5, 6), nn.Linear(6, 8), nn.Linear(8, 3)
        self.token = nn.Parameter(torch.randn(1, 1, 6))

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        h = torch.cat([self.token.expand(h.shape[0], -1, -1), h], dim=1)
        return self.leave(F.gelu(self.hidden(h)).mean(dim=1))


@network("mlp_mixer", (2, 3, 8, 8))
class MlpMixer(nn.Module):
    """Patches, mixing over tokens, mixing over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, stride=4)
        self.norms = nn.ModuleList([nn.LayerNorm(6) for _ in range(3)])
        self.tokens = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 4))
        self.channels = nn.Sequential(nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 6))
        self.leave = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = h + self.tokens(self.norms[0](h).transpose(1, 2)).transpose(1, 2)
        h = h + self.channels(self.norms[1](h))
        return self.leave(self.norms[2](h).mean(dim=1))


@network("two_inputs", (2, 4), (2, 3))
class TwoInputs(nn.Module):
    """Two branches, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.leave = nn.Linear(4, 5), nn.Linear(3, 6), nn.Linear(11, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.leave(torch.cat([torch.tanh(self.left(a)), F.relu(self.right(b))], dim=1))


@network("two_outputs", (2, 4))
class TwoOutputs(nn.Module):
    """A shared trunk, which is an output too, and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.policy, self.value = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = F.relu(self.trunk(x))
        return F.softmax(self.policy(h), dim=-1), torch.tanh(self.value(h)), h


@network("reused_layer", (2, 5))
class ReusedLayer(nn.Module):
    """One Linear applied three times."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.again, self.leave = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for _ in range(3):
            h = torch.tanh(self.again(h))
        return self.leave(h)


@network("plain_matrices", (2, 4, 5))
class PlainMatrices(nn.Module):
    """Weights as bare matrices on either side, by ``@`` and einsum, biases that broadcast."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(5, 6)), nn.Parameter(torch.randn(6, 3))
        self.mix = nn.Parameter(torch.randn(4, 4))
        self.bias = nn.Parameter(torch.randn(1, 1, 6))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(x @ self.first + self.bias)
        h = F.relu(self.mix @ h)
        return torch.einsum("btc,co->bto", h, self.second)


@network("weight_norm", (2, 5))
class WeightNorm(nn.Module):
    """Weights computed from a direction and a length."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.net = nn.Sequential(norm(nn.Linear(5, 6)), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@network("fourier_features", (2, 2))
class FourierFeatures(nn.Module):
    """Sines and cosines of a fixed random projection, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, 4))
        self.hidden, self.leave = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        angles = 2 * torch.pi * (x @ self.frequencies)
        h = torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)
        return self.leave(F.relu(self.hidden(h)))


@network("position_table", (2, 4, 5))
class PositionTable(nn.Module):
    """A learned vector for each place is added; the largest over places is read."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.hidden, self.leave = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.table = nn.Parameter(torch.randn(1, 4, 6))

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x) + self.table
        return self.leave(F.relu(self.hidden(h)).amax(dim=1))


@network("cosine_classifier", (2, 5))
class CosineClassifier(nn.Module):
    """Features of length one, weights of length one, a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(5, 6)
        self.classes = nn.Parameter(torch.randn(3, 6))
        self.temperature = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: Tensor) -> Tensor:
        h = F.normalize(F.relu(self.enter(x)), dim=-1)
        return self.temperature * F.linear(h, F.normalize(self.classes, dim=-1))


@network("two_experts_of_three", (2, 4, 5))
class TwoExpertsOfThree(nn.Module):
    """A mixture of experts: gates of the two chosen ones are written into zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.leave = nn.Linear(5, 3), nn.Linear(5, 2)
        self.experts = nn.ModuleList(nn.Linear(5, 5) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        likely = self.router(x).softmax(-1)
        values, chosen = likely.topk(2, -1)
        gates = torch.zeros_like(likely).scatter(-1, chosen, values)
        each = torch.stack([torch.relu(expert(x)) for expert in self.experts], -1)
        return self.leave(x + (each * gates[..., None, :]).sum(-1))


@network("maxout", (2, 5))
class Maxout(nn.Module):
    """The larger of two linear functions; dropout, which does nothing here."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(5, 6)
        self.drop, self.leave = nn.Dropout(0.5), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.drop(torch.maximum(self.first(x), self.second(x))))


@network("bilinear", (2, 4), (2, 3))
class Bilinear(nn.Module):
    """Products of two inputs' features."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.leave = nn.Linear(4, 5), nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.leave(torch.tanh(self.left(a)) * torch.tanh(self.right(b)))
