"""Reads the state dict in a PyTorch .pth file without PyTorch, and without unpickling.

A .pth file is a pickle that describes tensors (storage, offset, shape, strides) beside the raw
storages: entries of a zip file since PyTorch 1.6, one after another in the same file before that.
A pickle is a program. Here it runs on a machine that has only the instructions that `torch.save`
emits for a state dict, knows a few names, and can call two functions; all else is refused. What is
allocated is bounded by the size of the file.

Source: `pickletools` in Python's standard library for the instructions.
"""

from __future__ import annotations

import io
import math
import pickletools
import reprlib
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.pretrained.weights import WeightsError

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # of the format before PyTorch 1.6
_PROTOCOL_VERSION = 1001  # likewise
_MAX_RANK = 8
_MAX_EMPTY_SIZE = 2**31  # of an axis beside one of size 0: nothing else bounds it

_DTYPES: Mapping[str, np.dtype] = {
    "torch BFloat16Storage": np.dtype(jnp.bfloat16),
    "torch BoolStorage": np.dtype(np.bool_),
    "torch ByteStorage": np.dtype(np.uint8),
    "torch DoubleStorage": np.dtype("<f8"),
    "torch FloatStorage": np.dtype("<f4"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch IntStorage": np.dtype("<i4"),
    "torch LongStorage": np.dtype("<i8"),
}

# What the standard library raises at files that are not what they say.
_BROKEN = (
    *(ValueError, LookupError, RuntimeError, EOFError, OSError, OverflowError),
    *(zipfile.BadZipFile, struct.error),
)
_short = reprlib.Repr()  # what is quoted from a file may be of any size and depth
_short.maxstring = 80  # characters


@dataclass(frozen=True)
class _Storage:
    dtype: np.dtype
    key: str
    size: int  # elements


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int  # elements
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # elements


@dataclass(frozen=True)
class _Function:
    call: Callable[[tuple[Any, ...]], Any]


def read_pth(path: Path) -> dict[str, np.ndarray]:
    """Reads a state dict.

    Args:
        path: what `torch.save(module.state_dict(), path)` wrote, in either format.

    Returns:
        The tensors by name, as views of the file's bytes that cannot be written to.

    Raises:
        WeightsError: if the file is truncated, inconsistent, or anything but a state dict.

    Example:
        >>> from experiments.pretrained import mnist_cnn, weights
        >>> path = weights.find(mnist_cnn.PACKAGE)["handwriting_model.pth"]
        >>> read_pth(path)["conv_layers.0.weight"].shape
        (32, 1, 3, 3)
    """
    content = path.read_bytes()
    read = _read_zip if content[:4] == b"PK\x03\x04" else _read_stream
    try:
        tensors, storages = read(content)
        return {name: _view(name, tensor, storages) for name, tensor in tensors.items()}
    except _BROKEN as e:
        reason = e if isinstance(e, WeightsError) else f"broken ({type(e).__name__}: {e})"
        raise WeightsError(
            f"{path}: expected a PyTorch state dict of plain tensors, but the file "
            f"({len(content)} bytes) is {reason}. Nothing of it was run."
        ) from e


def _read_zip(content: bytes) -> tuple[dict[str, _Tensor], dict[str, np.ndarray]]:
    """Returns the tensors that the pickle describes by name, and the storages by key."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        for name, entry in entries.items():
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise WeightsError(f"compressed or encrypted at {_short.repr(name)}")
        if sum(entry.file_size for entry in entries.values()) > len(content):
            raise WeightsError("smaller than the entries it claims to hold")
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise WeightsError(f"a zip file with {len(pickles)} entries data.pkl, not one")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise WeightsError("not in little-endian byte order")

        machine = _Machine(io.BytesIO(archive.read(pickles[0])))
        tensors = _tensors(machine.run())
        storages = {}
        for key, storage in machine.storages.items():
            entry_name = f"{root}data/{key}"
            if entry_name not in entries:
                raise WeightsError(f"without the storage {_short.repr(key)} of a tensor")
            _check_size(storage, entries[entry_name].file_size)
            storages[key] = np.frombuffer(archive.read(entry_name), storage.dtype)
    return tensors, storages


def _read_stream(content: bytes) -> tuple[dict[str, _Tensor], dict[str, np.ndarray]]:
    """Likewise for the older format: five pickles, then each storage behind its element count."""
    stream = io.BytesIO(content)
    if _Machine(stream).run() != _MAGIC_NUMBER:
        raise WeightsError("without PyTorch's magic number")
    if _Machine(stream).run() != _PROTOCOL_VERSION:
        raise WeightsError("of an unknown protocol version")
    system = _Machine(stream).run()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsError("not in little-endian byte order")
    machine = _Machine(stream)
    tensors = _tensors(machine.run())
    keys = _Machine(stream).run()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise WeightsError("without a list of storages")

    storages: dict[str, np.ndarray] = {}
    start = stream.tell()
    for key in keys:
        if key not in machine.storages or key in storages:
            raise WeightsError(f"confused about the storage {_short.repr(key)}")
        storage = machine.storages[key]
        (size,) = struct.unpack_from("<q", content, start)
        start += 8
        _check_size(storage, size * storage.dtype.itemsize)
        storages[key] = np.frombuffer(content, storage.dtype, size, start)
        start += size * storage.dtype.itemsize
    if missing := machine.storages.keys() - storages.keys():
        raise WeightsError(f"without the storage {_short.repr(min(missing))} of a tensor")
    if start != len(content):
        raise WeightsError(f"longer by {len(content) - start} bytes than its storages")
    return tensors, storages


def _check_size(storage: _Storage, size_bytes: int) -> None:
    expected = storage.size * storage.dtype.itemsize
    if size_bytes != expected:
        raise WeightsError(
            f"inconsistent: storage {_short.repr(storage.key)} should have {expected} bytes and "
            f"has {size_bytes}"
        )


def _tensors(state: Any) -> dict[str, _Tensor]:
    if not isinstance(state, dict):
        raise WeightsError(f"a pickled {type(state).__name__.strip('_')}, not a dictionary")
    for name, value in state.items():
        if not isinstance(value, _Tensor):
            raise WeightsError(
                f"more than a state dict: {_short.repr(name)} is a "
                f"{type(value).__name__.strip('_')}, not a tensor"
            )
    return state


def _view(name: str, tensor: _Tensor, storages: Mapping[str, np.ndarray]) -> np.ndarray:
    """The elements of a tensor: never more of them than its storage has, and none beyond it."""
    flat = storages[tensor.storage.key]
    shape, offset = tensor.shape, tensor.offset
    if 0 in shape and all(0 <= size <= _MAX_EMPTY_SIZE for size in shape):
        return np.zeros(shape, flat.dtype)
    strides = [
        stride if size > 1 else 0 for size, stride in zip(shape, tensor.strides, strict=True)
    ]
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if min(*shape, *strides, offset, 0) < 0 or max(math.prod(shape), last + 1) > flat.size:
        raise WeightsError(
            f"inconsistent: {_short.repr(name)} with shape {_short.repr(shape)}, strides "
            f"{_short.repr(tensor.strides)} and offset {_short.repr(offset)} reaches beyond the "
            f"{flat.size} elements of its storage"
        )
    steps = [stride * flat.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False)


def _is_ints(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(n) is int for n in value)


def _rebuild_tensor(arguments: tuple[Any, ...]) -> _Tensor:
    """`_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks, [metadata])`."""
    if len(arguments) not in (6, 7):
        raise WeightsError(f"inconsistent: a tensor of {len(arguments)} arguments")
    storage, offset, shape, strides, *_ = arguments
    if not (isinstance(storage, _Storage) and _is_ints((offset,))):
        raise WeightsError("inconsistent: a tensor without a storage and an offset")
    if not (_is_ints(shape) and _is_ints(strides) and len(shape) == len(strides) <= _MAX_RANK):
        raise WeightsError(f"inconsistent: a tensor of shape {_short.repr(shape)}")
    return _Tensor(storage, offset, shape, strides)


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[str, Any]:
    if arguments:
        raise WeightsError("a call of OrderedDict with arguments")
    return {}


_GLOBALS: Mapping[str, np.dtype | _Function] = {
    **_DTYPES,
    "collections OrderedDict": _Function(_ordered_dict),
    "torch._utils _rebuild_tensor_v2": _Function(_rebuild_tensor),
}


class _Machine:
    """Runs one pickle. Its values are plain ones, and the dataclasses above.

    Attributes:
        storages: those that were mentioned, by key.
    """

    def __init__(self, stream: io.BytesIO) -> None:
        self.stream = stream
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, _Storage] = {}

    def run(self) -> Any:
        """Returns the pickle's value and leaves the stream behind it."""
        for instruction, argument, _ in pickletools.genops(self.stream):
            step = _INSTRUCTIONS.get(instruction.name)
            if step is None:
                raise WeightsError(f"no such thing: it has the instruction {instruction.name}")
            step(self, argument)
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        height = self.marks.pop()
        values = self.stack[height:]
        del self.stack[height:]
        return values

    def put(self, argument: Any) -> None:
        self.memo[argument] = self.stack[-1]

    def get(self, argument: Any) -> None:
        self.stack.append(self.memo[argument])

    def name(self, argument: Any) -> None:
        if argument not in _GLOBALS:
            raise WeightsError(
                f"no such thing: it names {_short.repr(argument.replace(' ', '.'))}, "
                "which a state dict does not need"
            )
        self.stack.append(_GLOBALS[argument])

    def call(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Function) or not isinstance(arguments, tuple):
            raise WeightsError("no such thing: it calls what is no function")
        self.stack.append(function.call(arguments))

    def storage(self, _: Any) -> None:
        match self.stack.pop():
            case ("storage", np.dtype() as dtype, str() as key, str(), int() as size, *rest):
                if size < 0 or rest not in ([], [None]):
                    raise WeightsError(f"inconsistent at the storage {_short.repr(key)}")
            case _:
                raise WeightsError("no such thing: it refers to what is no storage")
        found = _Storage(dtype, key, size)
        if self.storages.setdefault(key, found) != found:
            raise WeightsError(f"inconsistent: two storages are called {_short.repr(key)}")
        self.stack.append(found)

    def make_tuple(self, length: int) -> None:
        values = [self.stack.pop() for _ in range(length)]
        self.stack.append(tuple(reversed(values)))

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        keys = items[::2]
        if not isinstance(target, dict) or not all(isinstance(key, str) for key in keys):
            raise WeightsError("no such thing: it has a dictionary whose keys are no names")
        target.update(zip(keys, items[1::2], strict=True))

    def append_items(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise WeightsError("no such thing: it appends to what is no list")
        self.stack[-1].extend(items)

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])


def _push(machine: _Machine, argument: Any) -> None:
    machine.stack.append(argument)


# What `torch.save` emits; to add one, see `pickletools.opcodes`.
_INSTRUCTIONS: Mapping[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda machine, _: None,
    "STOP": lambda machine, _: None,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "BININT": _push,
    "BININT1": _push,
    "BININT2": _push,
    "LONG1": _push,
    "BINUNICODE": _push,
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.make_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_tuple(3),
    "APPEND": lambda machine, _: machine.append_items([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append_items(machine.since_mark()),
    "SETITEM": _Machine.set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "GLOBAL": _Machine.name,
    "BINPERSID": _Machine.storage,
    "REDUCE": _Machine.call,
    "BUILD": lambda machine, _: machine.stack.pop(),  # a module's versions: of no use here
}
