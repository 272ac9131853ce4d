"""Published sets are read from their folders; nothing in their files is run or believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ngc.errors import NgcError
from ngc.train import inr_import
from ngc.train.images import Images
from ngc.train.inr_import import import_folder
from ngc.train.siren import COLUMN_FIRST, ROW_FIRST, Conventions, initial, render
from tests.train.fake_data import PUBLISHED, state, write_published


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    return write_published(tmp_path / "mnist-inrs")


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """The layout of the Fashion-MNIST set, with the label in the file."""
    root = tmp_path / "fmnist_inrs"
    for name, split, indices in (("train", 0, (5, 11)), ("val", 0, (8,)), ("test", 1, (5,))):
        (root / name).mkdir(parents=True)
        for k in indices:
            torch.save({**state(split, k), "label": k % 10}, root / name / f"model_{k}.pth")
    return root


def test_the_names_of_the_mnist_folders_tell_split_label_and_number(mnist: Path) -> None:
    seen = []
    found = import_folder(mnist, progress=lambda *at: seen.append(at))
    assert found.split.tolist() == [0, 0, 0, 1, 1]
    assert found.index.tolist() == [3, 7, 12, 0, 3]
    assert found.label.tolist() == [3, 7, 2, 0, 3]
    for k in range(5):
        expected = state(int(found.split[k]), int(found.index[k]))
        for name, tensor in expected.items():
            assert torch.equal(found.params[name][k], tensor)
    assert found.conventions.widths == (2, 4, 3, 1)
    assert found.conventions.coordinates == COLUMN_FIRST
    assert found.conventions.init_scheme == "unknown"
    assert found.psnr.isnan().all()
    assert seen[-1] == (5, 5)


def test_an_imported_set_is_a_set(mnist: Path, tmp_path: Path) -> None:
    from ngc.train.inr_sets import load

    found = import_folder(mnist)
    found.save(tmp_path / "set")
    assert torch.equal(load(tmp_path / "set").label, found.label)
    assert load(tmp_path / "set").psnr.isnan().all()


def test_labels_of_fashion_mnist_are_in_its_files(fashion: Path) -> None:
    found = import_folder(fashion)
    assert found.split.tolist() == [0, 0, 1, 2]
    assert found.index.tolist() == [5, 11, 5, 8]
    assert found.label.tolist() == [5, 1, 5, 8]


def test_a_json_of_splits_tells_splits_and_labels(mnist: Path, tmp_path: Path) -> None:
    def path(word: str, k: int) -> str:
        return f"mnist-inrs/mnist_png_{word}_{k % 10}_{k}/checkpoints/model_final.pth"

    splits = {
        "train": {"path": [path("training", 12), path("training", 3)], "label": ["2", "3"]},
        "val": {"path": [path("training", 7)], "label": ["7"]},
        "test": {"path": [path("testing", 0)], "label": [0]},
    }
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    found = import_folder(mnist, splits=tmp_path / "splits.json")
    assert found.split.tolist() == [0, 0, 2, 1]
    assert found.index.tolist() == [12, 3, 7, 0]
    assert found.label.tolist() == [2, 3, 7, 0]
    assert torch.equal(found.params["seq.0.weight"][2], state(0, 7)["seq.0.weight"])


def test_a_json_may_list_paths_alone(fashion: Path, tmp_path: Path) -> None:
    listed = {"train": ["/home/x/fmnist_inrs/train/model_11.pth"], "test": ["test/model_5.pth"]}
    (tmp_path / "splits.json").write_text(json.dumps(listed))
    found = import_folder(fashion, splits=tmp_path / "splits.json")
    assert found.label.tolist() == [1, 5]


@pytest.mark.parametrize("order", [COLUMN_FIRST, ROW_FIRST])
def test_images_tell_the_order_of_coordinates(mnist: Path, order: str) -> None:
    given = import_folder(mnist)
    conventions = Conventions(PUBLISHED.widths, height=6, width=6, coordinates=order)
    shown = render(conventions, given.params).clamp(0, 1).mul(255).round().byte().numpy()
    pixels = np.zeros((2 * 20, 6, 6, 1), np.uint8)
    split, index = np.repeat([0, 1], 20), np.tile(np.arange(20), 2)
    pixels[given.split.numpy() * 20 + given.index.numpy()] = np.moveaxis(shown, 1, -1)
    images = Images("drawn", pixels, index % 10, index, split)
    found = import_folder(mnist, images=images)
    assert found.conventions.coordinates == order
    assert (found.conventions.height, found.conventions.width) == (6, 6)
    assert float(found.psnr.median()) > 15  # what was clamped is lost
    few = images.select(np.flatnonzero((split == 0) | (index < 3)))
    with pytest.raises(NgcError, match="no image number 3 of its split"):
        import_folder(mnist, images=few)


# --- refusals -----------------------------------------------------------------------------------


def only(tmp_path: Path, content: object) -> Path:
    """A folder of one file, of MNIST's layout."""
    folder = tmp_path / "set" / "mnist_png_training_3_3" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / "model_final.pth")
    return tmp_path / "set"


class Trap:
    """Runs code when it is unpickled as Python likes to."""

    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (Trap, "ran", True))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    folder = only(tmp_path, {**state(0, 3), "label": Trap()})
    with pytest.raises(NgcError, match="not a state dict that can be read safely"):
        import_folder(folder)
    assert not Trap.ran


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "not a state dict"),
        ({}, "layers incomplete"),
        ({"fc.weight": torch.zeros(2)}, r"'fc\.weight' is not known"),
        ({"seq.0.weight": "text"}, r"'seq\.0\.weight' is not known"),
        ({"seq.0.weight": torch.zeros(4, 2)}, r"layers incomplete: seq\.0\.weight"),
        ({"seq.0.weight": torch.zeros(4), "seq.0.bias": torch.zeros(4)}, "is no matrix"),
        (
            {
                **{"seq.0.weight": torch.zeros(4, 2), "seq.0.bias": torch.zeros(4)},
                **{"seq.1.weight": torch.zeros(1, 5), "seq.1.bias": torch.zeros(1)},
            },
            "do not fit onto each other",
        ),
        ({"seq.0.weight": torch.zeros(1, 2), "seq.0.bias": torch.zeros(1)}, "widths is"),
    ],
)
def test_what_is_no_siren_is_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(NgcError, match=message):
        import_folder(only(tmp_path, content))


def test_files_that_are_none_of_torch_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = only(tmp_path, state(0, 3))
    (path,) = folder.rglob("*.pth")
    whole = path.read_bytes()
    for data in (b"", b"text", whole[:-40]):
        path.write_bytes(data)
        with pytest.raises(NgcError, match="not a state dict that can be read safely"):
            import_folder(folder)
    path.write_bytes(whole)
    monkeypatch.setattr(inr_import, "MAX_BYTES", 100)
    with pytest.raises(NgcError, match="more than 100 bytes"):
        import_folder(folder)


def test_networks_must_be_of_one_architecture(mnist: Path) -> None:
    params = initial(Conventions((2, 4, 4, 1)), [0], [7])
    other = {name: tensor[0].clone() for name, tensor in params.items()}
    torch.save(other, mnist / "mnist_png_training_7_7" / "checkpoints" / "model_final.pth")
    with pytest.raises(NgcError, match=r"another architecture than .*_3_3"):
        import_folder(mnist)


def test_a_label_must_be_told(fashion: Path) -> None:
    torch.save(state(0, 5), fashion / "train" / "model_5.pth")
    with pytest.raises(NgcError, match="its label is None"):
        import_folder(fashion)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read it"),
        ("[]", "not a JSON of splits"),
        ('{"training": []}', "not a JSON of splits"),
        ('{"train": {"label": []}}', "train has no list of paths"),
        ('{"train": [1]}', "train has no list of paths"),
        ('{"train": []}', "it lists no file"),
        ('{"train": ["gone.pth"]}', r"gone\.pth is not in"),
        ('{"train": ["../secret_1.pth"]}', r"secret_1\.pth is not in"),
        ('{"train": {"path": ["a_1.pth"], "label": []}}', "expected 1 labels"),
        ('{"train": {"path": ["a_1.pth"], "label": ["x"]}}', "expected 1 labels"),
    ],
)
def test_a_json_that_is_no_list_of_our_files_is_refused(
    tmp_path: Path, content: str, message: str
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    torch.save(state(0, 1), folder / "a_1.pth")
    torch.save(state(0, 1), tmp_path / "secret_1.pth")
    (tmp_path / "splits.json").write_text(content)
    with pytest.raises(NgcError, match=message):
        import_folder(folder, splits=tmp_path / "splits.json")


def test_a_folder_without_networks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NgcError, match="no INRs found"):
        import_folder(tmp_path)
    with pytest.raises(NgcError, match="there is no such folder"):
        import_folder(tmp_path / "gone")
