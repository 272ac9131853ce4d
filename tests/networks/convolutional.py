"""Convolutional networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.networks.base import network

IMAGE = (1, 3, 8, 8)


def conv(c: int, o: int, size: int = 3, **options: int | bool) -> nn.Conv2d:
    return nn.Conv2d(c, o, size, padding=size // 2, **options)  # type: ignore[arg-type]


@network("densenet", IMAGE)
class DenseNet(nn.Module):
    """Each layer reads all before it: BatchNorm, ReLU, convolution, concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = conv(3, 4)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4 + 3 * k) for k in range(3)])
        self.layers = nn.ModuleList([conv(4 + 3 * k, 3, bias=False) for k in range(2)])
        self.leave = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for norm, layer in zip(self.norms, self.layers):
            h = torch.cat([h, layer(F.relu(norm(h)))], dim=1)
        h = F.relu(self.norms[-1](h))
        return self.leave(F.adaptive_avg_pool2d(h, 1).flatten(1))


class UNet(nn.Module):
    """One step down, one step up, the map from before joined to that from below."""

    def __init__(self, up: nn.Module) -> None:
        super().__init__()
        self.before, self.below, self.up = conv(3, 4), conv(4, 6), up
        self.after, self.leave = conv(9, 4), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        before = F.relu(self.before(x))
        below = F.relu(self.below(F.max_pool2d(before, 2)))
        return self.leave(F.relu(self.after(torch.cat([self.up(below), before], dim=1))))


@network("unet_transpose", IMAGE)
class UNetTranspose(UNet):
    """The step up is a transposed convolution."""

    def __init__(self) -> None:
        super().__init__(nn.ConvTranspose2d(6, 5, 2, stride=2))


@network("unet_upsample", IMAGE)
class UNetUpsample(UNet):
    """The step up repeats entries, then a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(6, 5, 1)))


@network("unet_bilinear", IMAGE)
class UNetBilinear(UNet):
    """The step up interpolates."""

    def __init__(self) -> None:
        up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        super().__init__(nn.Sequential(up, nn.Conv2d(6, 5, 1)))


@network("squeeze_excite", IMAGE)
class SqueezeExcite(nn.Module):
    """Channels weighted by what their means say."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = conv(3, 6), conv(6, 2)
        self.squeeze, self.excite = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.enter(x))
        gate = self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(h, 1))))
        return self.leave(h * torch.sigmoid(gate))


@network("depthwise_separable", IMAGE)
class DepthwiseSeparable(nn.Module):
    """MobileNet's pair of convolutions, with BatchNorm after each."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            conv(3, 6, bias=False), nn.BatchNorm2d(6), nn.ReLU6(),
            conv(6, 6, groups=6, stride=2, bias=False), nn.BatchNorm2d(6), nn.ReLU6(),
            nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@network("grouped_cnn", IMAGE)
class GroupedCnn(nn.Module):
    """ShuffleNet's grouped convolutions, with channels shuffled between."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.first = conv(3, 8), conv(8, 12, groups=4)
        self.second = conv(12, 6, groups=2, dilation=1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.first(F.relu(self.enter(x))))
        n, _, height, width = h.shape
        h = h.reshape(n, 4, 3, height, width).transpose(1, 2).reshape(n, 12, height, width)
        return self.second(h)


class Basic(nn.Module):
    """A basic block of a ResNet; subclasses say what the shortcut is."""

    def __init__(self, c: int, o: int, stride: int) -> None:
        super().__init__()
        self.first, self.norm1 = conv(c, o, stride=stride, bias=False), nn.BatchNorm2d(o)
        self.second, self.norm2 = conv(o, o, bias=False), nn.BatchNorm2d(o)

    def shortcut(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.first(x)))
        return F.relu(self.norm2(self.second(h)) + self.shortcut(x))


class Projected(Basic):
    """The shortcut is a strided 1x1 convolution with BatchNorm."""

    def __init__(self, c: int, o: int, stride: int) -> None:
        super().__init__(c, o, stride)
        self.project, self.norm3 = nn.Conv2d(c, o, 1, stride, bias=False), nn.BatchNorm2d(o)

    def shortcut(self, x: Tensor) -> Tensor:
        return self.norm3(self.project(x))


class ZeroPadded(Basic):
    """The shortcut skips places and pads channels with zeros (option A of the ResNet paper)."""

    def shortcut(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))


class ResNet(nn.Module):
    def __init__(self, down: Basic) -> None:
        super().__init__()
        self.enter, self.norm = conv(3, 4, bias=False), nn.BatchNorm2d(4)
        self.blocks = nn.Sequential(Basic(4, 4, 1), down)
        self.leave = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.blocks(F.relu(self.norm(self.enter(x))))
        return self.leave(F.adaptive_avg_pool2d(h, 1).flatten(1))


@network("resnet", IMAGE)
class ResNetProjected(ResNet):
    """A block as it is, then one with 1x1 convolution in the shortcut."""

    def __init__(self) -> None:
        super().__init__(Projected(4, 6, 2))


@network("resnet_zero_padded", IMAGE)
class ResNetZeroPadded(ResNet):
    """A block as it is, then one whose shortcut pads channels."""

    def __init__(self) -> None:
        super().__init__(ZeroPadded(4, 6, 2))


@network("convnext", IMAGE)
class ConvNeXt(nn.Module):
    """Depthwise convolution, then channels last: LayerNorm, two Linear, layer scale; residual."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.depthwise = conv(3, 6), conv(6, 6, 5, groups=6)
        self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 12), nn.Linear(12, 6)
        self.layer_scale = nn.Parameter(torch.full((6,), 0.5))
        self.leave = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        h = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        h = self.layer_scale * self.down(F.gelu(self.up(h)))
        x = x + h.permute(0, 3, 1, 2)
        return self.leave(x.mean((2, 3)))


@network("channels_last", (1, 8, 8, 3))
class ChannelsLast(nn.Module):
    """A channels-last network: each convolution between two transposes, a mean over places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.leave = conv(3, 4), conv(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.second):
            x = F.relu(layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return self.leave(x.mean((1, 2)))


@network("flatten_channels_first", (2, 3, 6, 6), flattens=True)
class FlattenChannelsFirst(nn.Module):
    """Convolutions, then a flatten in torch's order: channel, row, column."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3, 4, stride=2), nn.Conv2d(4, 5, 2)
        self.hidden, self.leave = nn.Linear(20, 6), nn.Linear(6, 3)

    def flat(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.second(F.relu(self.first(x))))
        return self.leave(F.relu(self.hidden(self.flat(h))))


@network("flatten_channels_last", (2, 3, 6, 6), flattens=True)
class FlattenChannelsLast(FlattenChannelsFirst):
    """The same with a flatten in TensorFlow's order: row, column, channel."""

    def flat(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


@network("flatten_view", (2, 3, 6, 6), flattens=True)
class FlattenView(FlattenChannelsFirst):
    """The flatten is a view with the batch size read at run time; the map is pooled before."""

    def flat(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 1).view(x.size(0), -1)


@network("conv_1d", (2, 3, 12))
class Conv1d(nn.Module):
    """Dilated, strided convolutions over a series."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(3, 4, 3, padding=2, dilation=2), nn.ELU(), nn.MaxPool1d(2),
            nn.Conv1d(4, 5, 3, stride=2), nn.ELU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
            nn.Linear(5, 2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@network("conv_3d", (1, 2, 4, 6, 6), flattens=True)
class Conv3d(nn.Module):
    """Convolutions over a volume, with a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv3d(2, 3, (2, 3, 3), padding=(0, 1, 1)), nn.ReLU(), nn.MaxPool3d((1, 2, 2)),
            nn.Conv3d(3, 4, (2, 2, 2)), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@network("adaptive_pool", (1, 3, 6, 6), flattens=True)
class AdaptivePool(nn.Module):
    """Pooling to 2 x 3, a flatten; beside it the largest of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.left, self.right = conv(3, 4), nn.Linear(24, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.enter(x))
        means = F.adaptive_avg_pool2d(h, (2, 3)).flatten(1)
        return self.left(means) + self.right(F.adaptive_max_pool2d(h, 1).flatten(1))


@network("pixel_shuffle", (1, 3, 4, 4))
class PixelShuffle(nn.Module):
    """Super-resolution: channels become places."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            conv(3, 5), nn.PReLU(5), conv(5, 8), nn.PixelShuffle(2), conv(2, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)
