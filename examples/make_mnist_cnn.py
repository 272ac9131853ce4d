"""Train the network of the README and write it to ``mnist_cnn.onnx``.

    NGC_DATA=/path/to/data python examples/make_mnist_cnn.py

The folder holds the four files of MNIST as published, ``mnist/train-images-idx3-ubyte.gz`` and so
on. Takes about a minute on two cores; needs the ``test`` extra (onnxscript) for the export.
"""

from __future__ import annotations

import argparse
import gzip
import os
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).parent
SEED, EPOCHS, BATCH_SIZE = 0, 3, 128


class ResidualBlock(nn.Module):
    """x + two 3x3 convolutions of x, each with BatchNorm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(x + self.norm2(self.conv2(h)))


class MnistCnn(nn.Module):
    """image [n, 1, 28, 28] -> logits [n, 10]; the last map is flattened, channels first."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.stem_norm = nn.BatchNorm2d(channels)
        self.pool = nn.MaxPool2d(2)
        self.block = ResidualBlock(channels)
        self.down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.head = nn.Linear(channels * 7 * 7, 10)

    def forward(self, image: Tensor) -> Tensor:
        h = self.pool(functional.relu(self.stem_norm(self.stem(image))))
        h = functional.relu(self.down(self.block(h)))
        return self.head(h.flatten(1))


def read_idx(path: Path) -> np.ndarray:
    """An idx file: two zero bytes, a type (8: bytes), the rank, sizes as big-endian int32, data."""
    with gzip.open(path) as file:
        content = file.read()
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read_split(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images [n, 1, 28, 28] in [0, 1] and labels [n]."""
    images = read_idx(folder / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz")
    pixels = torch.from_numpy(images.astype(np.float32) / 255).unsqueeze(1)
    return pixels, torch.from_numpy(labels.astype(np.int64))


def train(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Adam with a cosine schedule."""
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    steps = EPOCHS * -(-len(images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for epoch in range(EPOCHS):
        model.train()
        for chosen in torch.randperm(len(images)).split(BATCH_SIZE):
            loss = functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}: last loss {loss.item():.3f}")


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        found = torch.cat([model(part).argmax(1) for part in images.split(1000)])
    return (found == labels).float().mean().item()


def export(model: nn.Module, path: Path, note: str) -> None:
    """Write ONNX. Unoptimised: torch's optimiser would fold the BatchNorms into the weights."""
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        model.eval(),
        (torch.zeros(2, 1, 28, 28),),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: batch},),
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    proto.doc_string = note
    proto.graph.name = path.stem
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")  # paths and stack traces of the machine it was made on
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "mnist_cnn.onnx")
    parser.add_argument("--data", type=Path, default=os.environ.get("NGC_DATA"))
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data, or the environment variable NGC_DATA, names the folder of data")
    torch.manual_seed(SEED)
    folder = Path(arguments.data) / "mnist"
    model = MnistCnn()
    train(model, *read_split(folder, "train"))
    score = accuracy(model, *read_split(folder, "t10k"))
    note = (
        f"MNIST classifier: pixels in [0, 1], channels first. Test accuracy {score:.2%}. "
        f"Adam, {EPOCHS} epochs, seed {SEED}; examples/make_mnist_cnn.py"
    )
    export(model, arguments.out, note)
    print(f"{arguments.out}: {note}")


if __name__ == "__main__":
    main()
