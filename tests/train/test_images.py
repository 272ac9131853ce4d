"""Images are found, read and checked; what is missing or damaged is said in one message."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ngc.errors import BudgetError, NgcError, OptionError
from ngc.train import images as images_module
from ngc.train.image_files import CIFAR_CLASSES, contact_sheet, decode, idx
from ngc.train.images import DATA_SETS, load_images
from tests.train.fake_data import idx_bytes, write_mnist


@pytest.fixture(autouse=True)
def no_data_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NGC_DATA", raising=False)
    monkeypatch.setenv("NGC_CACHE", str(tmp_path / "cache"))


def png(pixels: np.ndarray, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, form)
    return file.getvalue()


# --- idx ----------------------------------------------------------------------------------------


def test_idx_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist", train=3, test=2, seed=1)
    found = load_images("mnist", tmp_path)
    expected = np.random.default_rng(1).integers(0, 256, (3, 6, 5))
    np.testing.assert_array_equal(found.pixels[:3, :, :, 0], expected)
    assert found.split.tolist() == [0, 0, 0, 1, 1]
    assert found.index.tolist() == [0, 1, 2, 0, 1]
    assert found.label.tolist() == [0, 1, 2, 0, 1]
    assert found.targets().shape == (5, 1, 6, 5)
    assert found.targets().max() == np.float32(found.pixels.max() / 255)


def test_the_environment_names_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "fashion_mnist", train=3, test=2)
    monkeypatch.setenv("NGC_DATA", str(tmp_path))
    found = load_images("fashion_mnist")
    assert len(found) == 5
    assert found.classes[9] == "ankle boot"


def test_files_may_lie_unpacked_in_the_folder_itself(tmp_path: Path) -> None:
    write_mnist(tmp_path, train=3, test=2)
    for path in list(tmp_path.glob("*.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert len(load_images("mnist", tmp_path)) == 5


def test_the_digest_tells_images_apart(tmp_path: Path) -> None:
    one = load_images("mnist", write_mnist(tmp_path / "a"))
    same = load_images("mnist", write_mnist(tmp_path / "b"))
    other = load_images("mnist", write_mnist(tmp_path / "c", seed=1))
    assert one.digest() == same.digest() != other.digest()
    assert one.digest() != one.select(slice(0, 3)).digest()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an idx file"),
        (idx_bytes(np.zeros((2, 2))), "not an idx file of bytes with 3 axes"),
        (idx_bytes(np.zeros((2, 3, 3)))[:-1], "17 bytes after the head, which says 18"),
        (idx_bytes(np.zeros((2, 3, 3))) + b"x", "more bytes"),
        (idx_bytes(np.zeros((2, 3, 3)))[:4] + b"\x7f\xff\xff\xff" * 3, "it says it holds"),
        (b"\0\0\x08\x03" + b"\xff\xff\xff\xff" * 3, "it says it holds"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_damaged_idx_files_are_refused(
    tmp_path: Path, data: bytes, message: str, packed: bool
) -> None:
    path = tmp_path / ("x.gz" if packed else "x")
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(NgcError, match=message):
        idx(path, axes=3)


def test_broken_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    whole = gzip.compress(idx_bytes(np.arange(3000).reshape(30, 10, 10)))
    for data in (whole[:-20], b"not gzip", whole[:20] + b"\xff" * 20 + whole[40:]):
        path.write_bytes(data)
        with pytest.raises(NgcError, match="damaged"):
            idx(path, axes=3)


def test_labels_must_fit_the_images(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx_bytes(np.arange(3))))
    with pytest.raises(NgcError, match="3 labels for 12 images"):
        load_images("mnist", tmp_path)
    labels.write_bytes(gzip.compress(idx_bytes(np.full(12, 10))))
    with pytest.raises(NgcError, match="label 10 of 10 classes"):
        load_images("mnist", tmp_path)


# --- missing and fetched ------------------------------------------------------------------------


def test_a_stated_folder_without_the_data_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NgcError, match="mnist is not there") as caught:
        load_images("mnist", tmp_path)
    assert "put train-images-idx3-ubyte.gz" in str(caught.value)
    assert "--data-dir or NGC_DATA" in str(caught.value)


class Mirror(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *values: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A mirror of a small MNIST on this machine, with the checksums of its files; one mirror that
    has nothing stands before it."""
    folder = write_mnist(tmp_path / "www")
    sums = {p.name: "md5:" + hashlib.md5(p.read_bytes()).hexdigest() for p in folder.iterdir()}
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Mirror, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    known = replace(DATA_SETS["mnist"], files=sums, mirrors=(f"{address}gone/", address))
    monkeypatch.setitem(images_module.DATA_SETS, "mnist", known)
    yield folder
    server.shutdown()
    server.server_close()


def test_images_are_fetched_once_into_the_cache(mirror: Path, tmp_path: Path) -> None:
    assert len(load_images("mnist")) == 16
    for path in mirror.iterdir():
        path.unlink()
    assert len(load_images("mnist")) == 16
    assert len(list((tmp_path / "cache" / "mnist").iterdir())) == 4


def test_a_wrong_checksum_is_refused(mirror: Path) -> None:
    (mirror / "t10k-labels-idx1-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(NgcError, match="not to be had") as caught:
        load_images("mnist")
    assert "--data-dir" in str(caught.value)


# --- CIFAR-10 -----------------------------------------------------------------------------------


def test_cifar_binary_is_planes_of_colour(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)
    records = [bytes([k % 10]) + np.moveaxis(x, -1, 0).tobytes() for k, x in enumerate(pixels)]
    names = [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]
    contents = {name: b"".join(records[2 * k : 2 * k + 2]) for k, name in enumerate(names)}
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    found = load_images("cifar10", tmp_path)
    np.testing.assert_array_equal(found.pixels, pixels)
    assert found.split.tolist() == [0] * 10 + [1] * 2
    assert found.label.tolist() == [k % 10 for k in range(12)]

    packed = tmp_path / "packed" / "cifar-10-binary.tar.gz"
    packed.parent.mkdir()
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(folder, arcname="cifar-10-batches-bin")
    assert load_images("cifar10", packed.parent).digest() == found.digest()

    (folder / "data_batch_3.bin").write_bytes(contents["data_batch_3.bin"][:-1])
    with pytest.raises(NgcError, match="no whole number of images"):
        load_images("cifar10", tmp_path)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(NgcError, match=r"without data_batch_3\.bin"):
        load_images("cifar10", tmp_path)


def test_cifar_pictures_from_a_zip_or_a_folder(tmp_path: Path) -> None:
    for split, count in (("train", 2), ("test", 1)):
        for label, name in enumerate(CIFAR_CLASSES[:3]):
            folder = tmp_path / "cifar10" / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                (folder / f"{k:04d}.png").write_bytes(png(np.full((32, 32, 3), 10 * label + k)))
    found = load_images("cifar10", tmp_path)
    assert found.label.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]  # classes mixed
    assert found.pixels[:6, 0, 0, 0].tolist() == [0, 10, 20, 1, 11, 21]
    assert found.split.tolist() == [0] * 6 + [1] * 3

    (tmp_path / "zipped").mkdir()
    with zipfile.ZipFile(tmp_path / "zipped" / "cifar10-jpeg.zip", "w") as archive:
        for path in (tmp_path / "cifar10").rglob("*.png"):
            archive.write(path, path.relative_to(tmp_path / "cifar10"))
    assert load_images("cifar10", tmp_path / "zipped").digest() == found.digest()


# --- folders of pictures ------------------------------------------------------------------------


def test_a_folder_with_classes_and_splits(tmp_path: Path) -> None:
    for k, name in enumerate(("train/b/1", "train/a/2", "train/a/1", "test/b/1", "validation/a/9")):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(np.full((4, 3), k)))
    found = load_images(str(tmp_path))
    assert found.classes == ("a", "b")
    assert found.pixels.shape == (5, 4, 3, 1)
    assert found.pixels[:, 0, 0, 0].tolist() == [2, 1, 0, 3, 4]
    assert found.label.tolist() == [0, 0, 1, 1, 0]
    assert found.split.tolist() == [0, 0, 0, 1, 2]
    assert found.index.tolist() == [0, 1, 2, 0, 0]


def test_a_folder_without_classes_is_all_training_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(np.zeros((4, 3))))
    (tmp_path / "b.jpg").write_bytes(png(np.zeros((4, 3, 3)), "JPEG"))
    (tmp_path / "notes.txt").write_text("no picture")
    found = load_images(str(tmp_path))
    assert found.pixels.shape == (2, 4, 3, 3)  # grey beside colour becomes colour
    assert found.label.tolist() == found.split.tolist() == [0, 0]


def test_pictures_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(np.zeros((4, 3))))
    (tmp_path / "b.png").write_bytes(png(np.zeros((4, 4))))
    with pytest.raises(OptionError, match=r"4x4 pixels, the first one 4x3[\s\S]*--size"):
        load_images(str(tmp_path))
    assert load_images(str(tmp_path), size=(6, 7)).pixels.shape == (2, 6, 7, 1)


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 9).astype(np.uint16)[None]
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, "PNG")
    found = decode(file.getvalue(), "ramp.png")[0, :, 0]
    assert np.abs(found - np.linspace(0, 255, 9)).max() <= 1


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    whole = png(np.random.default_rng(0).integers(0, 256, (30, 30)))
    for data in (b"", b"text", whole[: len(whole) // 2], b"GIF89a" + bytes(100)):
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(NgcError, match="not a picture that can be read"):
            load_images(str(tmp_path))
    with pytest.raises(BudgetError, match="at most 1024 a side"):
        decode(png(np.zeros((2, 1025))), "wide.png")


def test_a_source_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="neither a data set nor a folder"):
        load_images("mnits")
    with pytest.raises(OptionError, match="no pictures in it"):
        load_images(str(tmp_path))
    with pytest.raises(OptionError, match="a size is for folders"):
        load_images("mnist", size=(6, 7))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_contact_sheet_shows_images_in_rows(channels: int) -> None:
    images = np.zeros((5, channels, 4, 3))
    images[3] = 2.0  # clamped
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(images, columns=2, zoom=1))))
    assert sheet.shape[:2] == (3 * 5 - 1, 2 * 4 - 1)
    assert (sheet[5:9, 4:7] == 255).all()
    assert sheet.astype(int).sum() == 255 * 12 * channels
