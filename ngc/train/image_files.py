"""Reading image files of strangers: idx, CIFAR-10 (binary or pictures), PNG and JPEG.

Sizes are checked against what a file says before anything is allocated; nothing is unpacked onto
the disk.
"""

from __future__ import annotations

import gzip
import io
import math
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ngc.errors import BudgetError, NgcError

MAX_BYTES = 2**31  # of one file, unpacked
MAX_SIDE = 1024  # of one picture
IDX_UINT8 = 0x08
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
                 "truck")  # fmt: skip
CIFAR_RECORD = 1 + 3 * 32 * 32
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")

Part = tuple[np.ndarray, np.ndarray]  # pixels uint8 [N, height, width, channels], labels [N]


# --- idx ----------------------------------------------------------------------------------------


def read_idx(folder: Path) -> list[Part] | None:
    """Training and test split from the four files of MNIST, gzipped or not."""
    parts = []
    for split in ("train", "t10k"):
        images = _either(folder, f"{split}-images-idx3-ubyte")
        labels = _either(folder, f"{split}-labels-idx1-ubyte")
        if images is None or labels is None:
            return None
        pixels, label = idx(images, axes=3)[..., None], idx(labels, axes=1)
        if len(pixels) != len(label):
            message = f"{len(label)} labels for {len(pixels)} images"
            raise NgcError(message, where=str(labels))
        parts.append((pixels, label))
    if parts[0][0].shape[1:] != parts[1][0].shape[1:]:
        raise NgcError("training and test images differ in size", where=str(folder))
    return parts


def _either(folder: Path, name: str) -> Path | None:
    paths = [folder / f"{name}.gz", folder / name]
    return next((path for path in paths if path.is_file()), None)


def idx(path: Path, axes: int) -> np.ndarray:
    """The uint8 array of an idx file: 0, 0, type, number of axes, sizes as big-endian int32."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4 + 4 * axes)
            if len(head) < 4 + 4 * axes or head[:4] != bytes((0, 0, IDX_UINT8, axes)):
                raise NgcError(f"not an idx file of bytes with {axes} axes", where=str(path))
            shape = tuple(int(n) for n in np.frombuffer(head, ">i4", offset=4))
            size = math.prod(shape)
            if min(shape) < 0 or size > MAX_BYTES:
                raise BudgetError(f"it says it holds {list(shape)}", where=str(path))
            data = file.read(size + 1)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise NgcError(f"damaged: {error}", where=str(path)) from error
    if len(data) != size:
        found = f"{len(data)}" if len(data) < size else "more"
        raise NgcError(f"{found} bytes after the head, which says {size}", where=str(path))
    return np.frombuffer(data, np.uint8).reshape(shape)


# --- CIFAR-10 -----------------------------------------------------------------------------------


def read_cifar10(folder: Path) -> list[Part] | None:
    """Training and test split from the binary release, packed or not, or from pictures
    ``train/CLASS/*.jpg`` in a zip or a folder."""
    for path in (folder / "cifar-10-binary.tar.gz", folder / "cifar-10-batches-bin"):
        if path.exists():
            return _cifar_binary(path)
    archives = sorted(folder.glob("*.zip"))
    if archives:
        try:
            with zipfile.ZipFile(archives[0]) as archive:
                return _cifar_pictures(_in_zip(archive, str(archives[0])), str(archives[0]))
        except zipfile.BadZipFile as error:
            raise NgcError(f"damaged: {error}", where=str(archives[0])) from error
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return _cifar_pictures(_in_folder(folder), str(folder))
    return None


def _cifar_binary(path: Path) -> list[Part]:
    names = [[f"data_batch_{k}.bin" for k in range(1, 6)], ["test_batch.bin"]]
    wanted = {name for split in names for name in split}
    try:
        found = dict(_members(path, wanted))
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise NgcError(f"damaged: {error}", where=str(path)) from error
    if set(found) != wanted:
        missing = ", ".join(sorted(wanted - set(found)))
        raise NgcError(f"without {missing}", where=str(path))
    return [_records(b"".join(found[name] for name in split), str(path)) for split in names]


def _members(path: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        yield from ((name, (path / name).read_bytes()) for name in sorted(wanted)
                    if (path / name).is_file())  # fmt: skip
        return
    with tarfile.open(path) as archive:
        for member in archive:
            name = Path(member.name).name
            if name in wanted and member.isfile():
                yield name, _limited(archive.extractfile(member), str(path))


def _records(data: bytes, where: str) -> Part:
    """A record is the label, then red, green and blue, each row after row."""
    if len(data) % CIFAR_RECORD:
        raise NgcError(f"{len(data)} bytes are no whole number of images", where=where)
    rows = np.frombuffer(data, np.uint8).reshape(-1, CIFAR_RECORD)
    pixels = np.ascontiguousarray(np.moveaxis(rows[:, 1:].reshape(-1, 3, 32, 32), 1, -1))
    return pixels, rows[:, 0].astype(np.int64)


def _cifar_pictures(files: Iterator[tuple[str, bytes]], where: str) -> list[Part]:
    """Splits from (train/CLASS/NAME, contents). Their order: by name, then by class."""
    found: dict[str, list[tuple[str, int, np.ndarray]]] = {"train": [], "test": []}
    for name, data in files:
        parts = Path(name).parts[-3:]
        if len(parts) != 3 or parts[0] not in found or parts[1] not in CIFAR_CLASSES:
            continue
        pixels = decode(data, name)
        if pixels.shape != (32, 32, 3):
            raise NgcError(f"{list(pixels.shape)}, expected [32,32,3]", where=f"{where}: {name}")
        found[parts[0]].append((parts[2], CIFAR_CLASSES.index(parts[1]), pixels))
    if not all(found.values()):
        raise NgcError("no train/CLASS/*.jpg or no test/CLASS/*.jpg", where=where)
    result = []
    for rows in found.values():
        # Classes mixed, so that the first images of a split hold all of them.
        rows.sort(key=lambda row: row[:2])
        pixels = np.stack([pixels for _, _, pixels in rows])
        result.append((pixels, np.array([label for _, label, _ in rows], dtype=np.int64)))
    return result


def _in_zip(archive: zipfile.ZipFile, where: str) -> Iterator[tuple[str, bytes]]:
    for member in archive.infolist():
        if member.filename.lower().endswith(SUFFIXES):
            with archive.open(member) as file:
                yield member.filename, _limited(file, where)


def _in_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for split in ("train", "test"):
        for path in sorted(folder.glob(f"{split}/*/*")):
            if path.suffix.lower() in SUFFIXES:
                yield str(path.relative_to(folder)), path.read_bytes()


def _limited(file: IO[bytes] | None, where: str) -> bytes:
    data = file.read(MAX_BYTES + 1) if file is not None else b""
    if len(data) > MAX_BYTES:
        raise BudgetError(f"a file in it has more than {MAX_BYTES:,} bytes", where=where)
    return data


# --- pictures -----------------------------------------------------------------------------------


def pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, by name."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in found if path.is_file())


def decode(data: bytes, where: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """uint8 [height, width, 1 or 3] of a PNG, JPEG or BMP; scaled to ``size`` (height, width)."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "BMP")) as opened:
            picture: Image.Image = opened
            if max(picture.size) > MAX_SIDE and size is None:
                found = f"{picture.size[0]}x{picture.size[1]} pixels, at most {MAX_SIDE} a side"
                raise BudgetError(found, where=where, hint="--size 28x28")
            if picture.mode.startswith("I"):  # 16 bits: Pillow would cut off what is over 255
                picture = Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8))
            grey = picture.mode in ("1", "L", "LA")
            plain = picture.convert("L" if grey else "RGB")
            if size is not None:
                plain = plain.resize((size[1], size[0]), Image.Resampling.LANCZOS)
            pixels = np.asarray(plain)
    except (Image.DecompressionBombError, Image.UnidentifiedImageError, OSError, SyntaxError,
            ValueError, zlib.error) as error:  # fmt: skip
        raise NgcError(f"not a picture that can be read: {error}", where=where) from error
    return pixels[..., None] if pixels.ndim == 2 else pixels


def contact_sheet(images: np.ndarray, columns: int = 16, zoom: int = 2) -> bytes:
    """A PNG of many images, float [N, channels, height, width], clamped to [0, 1], in rows."""
    from PIL import Image

    count, channels, height, width = images.shape
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), np.uint8)
    values = np.rint(np.nan_to_num(images).clip(0, 1) * 255).astype(np.uint8)
    for number, image in enumerate(np.moveaxis(values, 1, -1)):
        y, x = divmod(number, columns)
        y, x = y * (height + 1), x * (width + 1)
        sheet[y : y + height, x : x + width] = image
    picture = Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
    picture = picture.resize(
        (picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST
    )
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
