"""The Small CNN Zoo in its published layout: the networks give the outputs that TensorFlow's
definition of them gives."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import ngc
from ngc.errors import NgcError
from ngc.zoo import Zoo, import_zoo, open_zoo

LAYERS = (("conv2d", (3, 3, 1, 16)), ("conv2d_1", (3, 3, 16, 16)), ("conv2d_2", (3, 3, 16, 16)))
DENSE = ("dense", (16, 10))
ACTIVATIONS = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}
COLUMNS = ("", "config.activation", "config.dataset", "config.learning_rate", "modeldir", "step",
           "test_accuracy", "train_loss")  # fmt: skip


def write_published(folder: Path, count: int = 6, packed: bool = False, channels: int = 16) -> Path:
    """weights.npy, metrics.csv and layout.csv: in each layer the bias comes first."""
    layers = [(f"sequential/{name}", tuple(channels if n == 16 else n for n in shape))
              for name, shape in (*LAYERS, DENSE)]  # fmt: skip
    rows, start = [], 0
    for name, shape in layers:
        for kind, own in (("bias:0", shape[-1:]), ("kernel:0", shape)):
            stop = start + int(np.prod(own))
            rows.append((f"{name}/{kind}", start, stop, str(own)))
            start = stop
    folder.mkdir(exist_ok=True)
    with (folder / "layout.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("varname", "start_idx", "end_idx", "shape"), *rows])
    rng = np.random.default_rng(0)
    np.save(folder / "weights.npy", rng.normal(scale=0.3, size=(count, start)).astype(np.float32))
    told = [
        [k, ("relu", "tanh")[k % 2], ("mnist", "cifar10")[k // 4], 0.01 * k, f"/runs/{k // 2}",
         (0, 86)[k % 2], f"{0.1 * k:.3f}", 2.3 - k]
        for k in range(count)
    ]  # fmt: skip
    text = "\n".join(",".join(map(str, row)) for row in (COLUMNS, *told)) + "\n"
    if packed:
        (folder / "metrics.csv.gz").write_bytes(gzip.compress(text.encode()))
    else:
        (folder / "metrics.csv").write_text(text)
    return folder


def reference(folder: Path, number: int, images: np.ndarray, activation: str) -> np.ndarray:
    """Logits of images [n, height, width, 1], as Keras computes them: Conv2D(3, strides=2,
    padding="valid") with an activation, three times, GlobalAveragePooling2D, Dense."""
    row = np.load(folder / "weights.npy")[number].astype(np.float64)
    tensors = {}
    with (folder / "layout.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            shape = [int(n) for n in line["shape"].strip("()").split(",") if n.strip()]
            part = row[int(line["start_idx"]) : int(line["end_idx"])]
            tensors[line["varname"]] = part.reshape(shape)
    x = images.astype(np.float64)
    for name, _ in LAYERS:
        kernel, bias = (tensors[f"sequential/{name}/{kind}:0"] for kind in ("kernel", "bias"))
        height, width = ((n - 3) // 2 + 1 for n in x.shape[1:3])
        result = np.zeros((len(x), height, width, len(bias))) + bias
        for i in range(3):
            for j in range(3):
                taps = x[:, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2]
                result += taps @ kernel[i, j]  # [in, out]
        x = ACTIVATIONS[activation](result)
    return (
        x.mean((1, 2)) @ tensors["sequential/dense/kernel:0"] + tensors["sequential/dense/bias:0"]
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published(tmp_path_factory.mktemp("small_cnn"))


@pytest.fixture(scope="module")
def zoo(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return import_zoo(published, tmp_path_factory.mktemp("made") / "zoo", shard=4)


@pytest.mark.parametrize("number", range(6))
def test_rebuilt_networks_give_the_outputs_of_the_original_layout(
    published: Path, zoo: Zoo, number: int
) -> None:
    one = zoo.architectures[int(zoo.architecture[number])]
    row = zoo.rows(int(zoo.architecture[number]))[zoo.row[number : number + 1]][0]
    session = onnxruntime.InferenceSession(one.model(row).SerializeToString())
    size = 28 if number < 4 else 32
    images = np.random.default_rng(number).uniform(-1, 1, size=(3, size, size, 1))
    expected = reference(published, number, images, ("relu", "tanh")[number % 2])
    for image, logits in zip(images.astype(np.float32), expected):
        (found,) = session.run(None, {"images": image[None].transpose(0, 3, 1, 2)})
        np.testing.assert_allclose(found[0], logits, rtol=1e-4, atol=1e-5)


def test_networks_have_the_published_size(zoo: Zoo) -> None:
    assert len(zoo) == 6
    assert [one.num_parameters for one in zoo.architectures] == [4970] * 4  # 2 sizes, 2 activations
    plan = ngc.compile(zoo.architectures[0].model(zoo.rows(0)[[0]][0])).plan
    assert plan.num_nodes == 1 + 3 * 16 + 10


def test_metrics_become_metadata(zoo: Zoo) -> None:
    assert zoo.numbers("accuracy").tolist() == pytest.approx([0.1 * k for k in range(6)])
    assert zoo.table["run"] == ["/runs/0", "/runs/0", "/runs/1", "/runs/1", "/runs/2", "/runs/2"]
    assert zoo.table["step"] == ["0", "86"] * 3
    assert zoo.table["family"] == ["relu", "tanh"] * 3
    assert zoo.numbers("config.learning_rate")[5] == pytest.approx(0.05)
    assert "" not in zoo.table


def test_packed_metrics_are_read(published: Path, zoo: Zoo, tmp_path: Path) -> None:
    source = write_published(tmp_path / "source", packed=True)
    found = import_zoo(source, tmp_path / "zoo", shard=4)
    assert found.table == zoo.table


def test_layers_of_other_sizes_follow_the_layout(tmp_path: Path) -> None:
    source = write_published(tmp_path / "source", channels=5)
    zoo = import_zoo(source, tmp_path / "zoo")
    assert zoo.architectures[0].num_parameters == (9 + 1) * 5 + 2 * (45 + 1) * 5 + 6 * 10


def test_diverged_networks_are_left_out_on_request(tmp_path: Path) -> None:
    source = write_published(tmp_path / "source")
    weights = np.load(source / "weights.npy")
    weights[2, 7] = np.nan
    np.save(source / "weights.npy", weights)
    with pytest.raises(NgcError, match="000002: 1 of its 4,970 weights are not finite"):
        import_zoo(source, tmp_path / "zoo")
    assert len(import_zoo(source, tmp_path / "zoo", skip_corrupt=True)) == 5
    assert len(open_zoo(tmp_path / "zoo")) == 5


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("layout.csv", "start_idx", "start", "cannot read the row"),
        ("layout.csv", "kernel:0", "gamma:0", "is no kernel and no bias"),
        ("layout.csv", '"(3, 3, 1, 16)"', '"(3, 3, 1, 15)"', "has 144 numbers"),
        ("layout.csv", "conv2d_1/kernel:0,176,2480", "conv2d_1/kernel:0,177,2481", "overlap"),
        ("layout.csv", "dense/kernel:0", "dense_1/kernel:0", "no kernel or no bias"),
        ("metrics.csv", "5,tanh,", "5,swish,", "000005: config.activation is 'swish'"),
        ("metrics.csv", "0.500,", "50.0,", "accuracy is '50.0'"),
        (
            "metrics.csv",
            "5,tanh,cifar10,0.05,/runs/2,86,0.500,-2.7\n",
            "",
            "5 rows, but 6 networks",
        ),
    ],
)
def test_mistakes_in_the_files(
    tmp_path: Path, name: str, old: str, new: str, expected: str
) -> None:
    source = write_published(tmp_path / "source")
    text = (source / name).read_text()
    assert old in text
    (source / name).write_text(text.replace(old, new))
    with pytest.raises(NgcError, match=expected):
        import_zoo(source, tmp_path / "zoo")


def test_a_matrix_of_another_width_is_refused(tmp_path: Path) -> None:
    source = write_published(tmp_path / "source")
    np.save(source / "weights.npy", np.load(source / "weights.npy")[:, :-1])
    with pytest.raises(NgcError, match="the layout has 4,970 numbers"):
        import_zoo(source, tmp_path / "zoo")
