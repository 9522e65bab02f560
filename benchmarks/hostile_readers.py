"""All that reads a file that somebody else may have written: a good file, the reader, its error."""

import gzip
import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from absl import flags
from PIL import Image

from experiments import dataset_files as files
from experiments.console.flags import define_settings, read_flags
from experiments.dataset_files import DatasetError
from experiments.pretrained.pth import read_pth
from experiments.pretrained.weights import WeightsError
from experiments.published import FitError, read_tables
from experiments.report.runs import RunError, read_run
from morph.cycle import saved
from morph.cycle.given import read_start
from morph.cycle.workdir import claim_workdir
from morph.errors import ConfigError, ExportError, StartError, WorkdirError
from morph.export import bundle
from regularizers import json_files
from regularizers.costs.calibrated import Calibration
from regularizers.errors import MorphError
from regularizers.json_files import JsonError

# A good file, what reads it, and the errors of what cannot be read.
Reader: TypeAlias = tuple[
    bytes, Callable[[Path], Any], type[Exception] | tuple[type[Exception], ...]
]
CLAIM = {"seed": 1, "budget": 0.5}
UNPACKED = 1 << 30  # bytes of a bomb


def readers(folder: Path) -> dict[str, Reader]:
    """All of them, by name, in a folder where they may write."""
    return {
        **_of_runs(folder),
        **_of_exports(folder),
        **_of_checkpoints(folder),
        **_of_data(),
        **_of_tables(folder),
        "JSON": (b'{"a": [1.5, null], "b": {"c": "d"}}', json_files.read, JsonError),
        "flags": (b"--budget=0.5\n--seed=3\n", _flags, (flags.Error, ConfigError)),
        "weights of PyTorch": (_state_dict(), read_pth, WeightsError),
    }


def bombs() -> dict[str, tuple[str, bytes]]:
    """Files that unpack to very much more than they are, and the reader of each."""
    head = b"\x89PNG\r\n\x1a\n" + _png("IHDR", struct.pack(">IIBBBBB", 16, 8, 8, 2, 0, 0, 0))
    wide = _png("IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    zeros = zlib.compress(bytes(UNPACKED), 1)
    content = _png("IDAT", zeros) + _png("IEND", b"")
    text = _png("zTXt", b"a\0\0" + zeros) + content
    return {
        "idx, gzip, 1 GiB": ("idx, gzip", gzip.compress(bytes(UNPACKED), 1)),
        "picture, 1 GiB": ("picture", head + content),
        "picture, 1 GiB of text": ("picture", head + text),
        "picture, 3.6 gigapixels": ("picture", head[:8] + wide + content),
    }


def _into(place: Path, read: Callable[[], Any]) -> Callable[[Path], Any]:
    """Reads from a place of its own what lies elsewhere."""

    def put(path: Path) -> Any:
        place.write_bytes(path.read_bytes())
        return read()

    return put


def _of_runs(folder: Path) -> dict[str, Reader]:
    run, other, claimed = folder / "run", folder / "other", folder / "claimed"
    for place in (run, other):
        place.mkdir()
        for name in ("results.json", "config.json", "metrics.jsonl"):
            (place / name).write_bytes(b"{}\n")
    claim_workdir(claimed, CLAIM)
    calibration = Calibration(
        seconds_per_unit={"conv: flops": 1e-9}, cache_bytes=1e6, device="cpu",
        versions={"jax": "1"}, date="2026-01-01", programs=5, held_out_error=0.1,
        spread=0.1, error_bar=0.1, busy=False,
    )  # fmt: skip
    results = json.dumps({"command": "c", "seconds": 1.5, "config": {"a": None}}).encode()
    records = [{"phase": "seed", "phase_index": 0, "step": step, "loss": 0.5} for step in (5, 10)]
    metrics = "".join(map(json_files.text, records)).encode()
    config = (claimed / "config.json").read_bytes()
    return {
        "calibration": (calibration.to_json().encode(), Calibration.load, ValueError),
        "results": (results, _into(run / "results.json", lambda: read_run(run)), RunError),
        "metrics": (metrics, _into(other / "metrics.jsonl", lambda: read_run(other)), RunError),
        "config": (
            config, _into(claimed / "config.json", lambda: claim_workdir(claimed, CLAIM)),
            WorkdirError,
        ),
    }  # fmt: skip


def _of_exports(folder: Path) -> dict[str, Reader]:
    place = folder / "bundle"
    bundle.save(place, {"a": np.ones(3)}, [], name="n", figures={"accuracy": 0.5})
    manifest, weights = place / bundle.MANIFEST, place / bundle.WEIGHTS
    good = weights.read_bytes()
    given = folder / "given.safetensors"
    return {
        "manifest": (
            manifest.read_bytes(), _into(manifest, lambda: bundle.load(place)), ExportError
        ),
        "safetensors": (good, _into(given, lambda: read_start(given)), StartError),
    }  # fmt: skip


def _of_checkpoints(folder: Path) -> dict[str, Reader]:
    place = folder / "1.ckpt"
    arrays = {"params.a": np.ones((3, 4), np.float32), "step": np.zeros((), np.int32)}
    good = b"".join(map(bytes, saved.parts_of(1, arrays, {"phase": 0, "step": 10})))
    body = good[: -hashlib.sha256().digest_size]

    def forged(path: Path) -> Any:
        data = path.read_bytes()
        place.write_bytes(data + hashlib.sha256(data).digest())
        return saved.read(place)

    return {
        "checkpoint": (good, _into(place, lambda: saved.read(place)), WorkdirError),
        "checkpoint, checksum right": (body, forged, WorkdirError),
    }


def _of_data() -> dict[str, Reader]:
    labels = json.dumps(list(range(10))).encode()
    idx = bytes((0, 0, 8, 1)) + (10).to_bytes(4, "big") + bytes(10)
    picture = io.BytesIO()
    Image.fromarray(np.zeros((8, 16, 3), np.uint8)).save(picture, "png")
    return {
        "labels": (labels, lambda path: files.read_json_labels(path, 10, 10), DatasetError),
        "idx": (idx, lambda path: files.read_idx(path, (10,)), DatasetError),
        "idx, gzip": (gzip.compress(idx), lambda path: files.read_idx(path, (10,)), DatasetError),
        "picture": (picture.getvalue(), lambda path: files.read_rgb(path, (8, 16)), DatasetError),
    }


def _of_tables(folder: Path) -> dict[str, Reader]:
    sizes = ("in_h", "in_w", "in_c", "out_h", "out_w", "out_c", "kernel_h", "kernel_w", "stride")
    layer = {"op": "conv", **dict.fromkeys(sizes, 3)}
    known = json.dumps({"a": {"input": [3, 3, 3], "output_bytes": 10, "layers": [layer]}}).encode()
    row = b"network,key,usb3_latency_ms,trusted\na,a,2.5,yes\n"
    table, networks = folder / "table.csv", folder / "networks.json"
    table.write_bytes(row)
    networks.write_bytes(known)
    read_tables(table, networks)
    return {
        "table": (row, lambda path: read_tables(path, networks), FitError),
        "layers": (known, lambda path: read_tables(table, path), MorphError),
    }


def _flags(path: Path) -> Any:
    own = flags.FlagValues()
    define_settings(own)
    return read_flags(own, ["command", f"--flagfile={path}"])


def _state_dict() -> bytes:
    """One tensor of six numbers, as PyTorch writes it."""

    def text(word: str) -> bytes:
        return b"X" + struct.pack("<I", len(word)) + word.encode()

    empty = b"ccollections\nOrderedDict\n)R"
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
    storage += b"K\x06tQ"
    place = b"K\x00(K\x02K\x03t(K\x03K\x01t\x89" + empty
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + place + b"tR"
    pickled = b"\x80\x02" + empty + b"(" + text("w") + tensor + b"u."
    file = io.BytesIO()
    entries = {"data.pkl": pickled, "byteorder": b"little", "data/0": bytes(24)}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def _png(kind: str, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    checksum = zlib.crc32(kind.encode() + data)
    return struct.pack(">I", len(data)) + kind.encode() + data + struct.pack(">I", checksum)
