"""What mutated files come to: 20,000 over all readers.

    python benchmarks/hostile_files.py --out results/hostile_files.json

Mutations: bit flips, truncations, bytes put in and cut out, huge counts in headers; of containers
as they are, so that the checksum is wrong, and with a checksum that is right again; of every JSON
that is read, also depth, huge numbers, names twice, what is no number, and no text; of data sets,
also what unpacks to very much more. A file must be
refused with the one error of its kind, or be read. What may not happen is another exception, a
call of seconds, or memory beyond the bound. With a checksum that is right, or without the one that
an architecture file need not have, a change of numbers makes another network, which somebody could
have written: these are counted apart. Memory is the growth of the process.
"""

import argparse
import gzip
import hashlib
import io
import json
import re
import resource
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
from PIL import Image
from timing import report

import morph
import regularizers as reg
from experiments import dataset_files as files
from experiments.dataset_files import DatasetError
from experiments.networks import build
from experiments.report.runs import RunError, read_run
from morph.compress.coding import container
from morph.compress.coding.container import ContainerError
from morph.compress.fixed_point import FixedPointCodes, Precision
from morph.cycle.saved import parts_of, read
from morph.cycle.workdir import claim_workdir
from morph.errors import ArchitectureError, WorkdirError
from morph.kernels.compressed import Pruned, Shared
from morph.kernels.decompose import factorize
from regularizers import json_files
from regularizers.costs.calibrated import Calibration
from regularizers.json_files import JsonError

MOST_BYTES = 8 << 20  # that an accepted container may need when dense
BENT = (
    b"null", b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"-9223372036854775809", b"\xff", b"{}",
    b"[" * 65 + b"]" * 65, b"[" * 100_000, b'{"a":' * 3000, b'{"a": 1, "a": 2}', b'"\\ud800"',
    b"[]", b"true", b'"\x1b[2J"', b"[" + b"0," * 300_000 + b"0]", b"[" + b"{}," * 100_000 + b"{}]",
)  # fmt: skip
HUGE = (0, 1, 255, 2**16, 2**31 - 1, 2**31, 2**40, 2**63, -1, 10**30)


def original() -> tuple[bytes, morph.Architecture]:
    """A container with every kind of leaf, and the architecture of a small network."""
    g = np.random.default_rng(0)
    kernel = g.standard_normal((40, 30)).astype(np.float32)
    model = build("mlp", input_shape=(8, 8, 1), num_classes=10, width=0.05)
    x = np.zeros((1, 8, 8, 1), np.float32)
    variables = model.init(jax.random.key(0), x)
    graph = reg.trace_channels(model.apply, variables, x)
    alive = {name: np.arange(width) % 3 > 0 for name, width in graph.widths.items()}
    architecture = morph.shrink(graph, alive)
    codes = (g.integers(1, 9, kernel.shape) * (g.random(kernel.shape) < 0.1)).astype(np.uint8)
    words = g.integers(-8, 8, (9, 7)).astype(np.int8)
    leaves = {
        "array": kernel,
        "pruned": Pruned(kernel=np.where(kernel > 1, kernel, 0), kept=kernel > 1),
        "shared": Shared(centroids=np.arange(1, 9, dtype=np.float32), codes=codes),
        "fixed": FixedPointCodes(
            codes=words, precision=Precision(word_length=4, fractional_length=2)
        ),
        "cores": factorize(kernel, "io", "svd", 3).value,
    }
    return container.pack({"params": leaves}, architecture=architecture.to_json()), architecture


def mutated(data: bytes, g: np.random.Generator) -> bytes:
    """One small change."""
    out, k = bytearray(data), int(g.integers(len(data)))
    kind = int(g.integers(4))
    if kind == 0:
        for _ in range(int(g.integers(1, 4))):
            out[int(g.integers(len(out)))] ^= 1 << int(g.integers(8))
    elif kind == 1:
        del out[k:]
    elif kind == 2:
        del out[k : k + int(g.integers(1, 9))]
    else:
        out[k:k] = g.bytes(int(g.integers(1, 9)))
    return bytes(out)


def with_huge_number(text: bytes, g: np.random.Generator) -> bytes:
    """JSON with one of its numbers replaced."""
    numbers = list(re.finditer(rb"-?\d+", text))
    chosen = numbers[int(g.integers(len(numbers)))]
    value = str(HUGE[int(g.integers(len(HUGE)))]).encode()
    return text[: chosen.start()] + value + text[chosen.end() :]


def forged(head_and_parts: bytes) -> bytes:
    """With a checksum that is right."""
    return head_and_parts + hashlib.sha256(head_and_parts).digest()


def containers(data: bytes, g: np.random.Generator) -> dict[str, Any]:
    """Ways to mutate a container, by name."""
    body = data[: -container.DIGEST]
    length = container.HEAD.unpack_from(data)[2]
    start = container.HEAD.size
    text, parts = zlib.decompress(data[start : start + length]), body[start + length :]

    def with_header(text: bytes, parts: bytes) -> bytes:
        packed = zlib.compress(text)
        head = container.HEAD.pack(container.MAGIC, container.VERSION, len(packed))
        return forged(head + packed + parts)

    return {
        "container, as it is": lambda: mutated(data, g),
        "container, checksum right": lambda: forged(mutated(body, g)),
        "container, header, checksum right": lambda: with_header(mutated(text, g), parts),
        "container, huge counts, checksum right": lambda: with_header(
            with_huge_number(text, g), parts
        ),
        "container, parts, checksum right": lambda: with_header(text, mutated(parts, g)),
    }


def outcome_of_container(data: bytes, whole: Any) -> str:
    """What reading it comes to."""
    try:
        found = container.unpack(data, most_bytes=MOST_BYTES)
    except ContainerError:
        return "refused"
    same = container.same(found.variables, whole)
    return "the same network" if same else "another network"


def outcome_of_architecture(data: bytes, place: Path, whole: morph.Architecture) -> str:
    """What reading it comes to."""
    place.write_bytes(data)
    try:
        found = morph.Architecture.load(place)
    except ArchitectureError:
        return "refused"
    return "the same network" if found == whole else "another network"


def outcome_of(
    data: bytes, place: Path, read: Callable[[Path], Any], wanted: type[Exception]
) -> str:
    """What reading it comes to."""
    place.write_bytes(data)
    try:
        read(place)
    except wanted:
        return "refused"
    return "another network"  # or whatever it says: it was read


def bent(text: bytes, g: np.random.Generator) -> bytes:
    """JSON with one of its values replaced by what a reader may stumble over."""
    values = list(re.finditer(rb"-?\d+|null|true|false|\"[^\"]*\"(?=\s*[,}\]])", text))
    if not values:
        return text
    chosen = values[int(g.integers(len(values)))]
    value = BENT[int(g.integers(len(BENT)))]
    return text[: chosen.start()] + value + text[chosen.end() :]


def readers(folder: Path) -> dict[str, tuple[bytes, Callable[[Path], Any], type[Exception]]]:
    """By name: a good file, what reads it, and the error of what cannot be read."""
    calibration = Calibration(
        seconds_per_unit={"conv: flops": 1e-9}, cache_bytes=1e6, device="cpu",
        versions={"jax": "1"}, date="2026-01-01", programs=5, held_out_error=0.1,
        spread=0.1, error_bar=0.1, busy=False,
    )  # fmt: skip
    run = folder / "run"
    run.mkdir()
    for name in ("results.json", "config.json", "metrics.jsonl"):
        (run / name).write_bytes(b"{}\n")
    claim_workdir(folder / "claimed", {"seed": 1, "budget": 0.5})
    labels = json.dumps(list(range(10))).encode()
    idx = bytes((0, 0, 8, 1)) + (10).to_bytes(4, "big") + bytes(10)
    picture = io.BytesIO()
    Image.fromarray(np.zeros((8, 16, 3), np.uint8)).save(picture, "png")

    def into(place: Path, read: Callable[[], Any]) -> Callable[[Path], Any]:
        def put(path: Path) -> Any:
            place.write_bytes(path.read_bytes())
            return read()

        return put

    def claim() -> Any:
        return claim_workdir(folder / "claimed", {"seed": 1, "budget": 0.5})

    saved = folder / "7.ckpt"
    state = {"w": np.arange(9.0), "half": np.zeros((2, 3), np.float16), "n": np.array(5)}
    kept = b"".join(parts_of(7, state, {"phase": 1, "step": 20}))

    def forge(path: Path) -> Any:
        saved.write_bytes(forged(path.read_bytes()))
        return read(saved)

    results = json.dumps({"command": "c", "seconds": 1.5, "config": {"a": None}}).encode()
    claimed = (folder / "claimed" / "config.json").read_bytes()
    return {
        "JSON": (results, json_files.read, JsonError),
        "calibration": (calibration.to_json().encode(), Calibration.load, ValueError),
        "results": (results, into(run / "results.json", lambda: read_run(run)), RunError),
        "config": (claimed, into(folder / "claimed" / "config.json", claim), WorkdirError),
        "labels": (labels, lambda path: files.read_json_labels(path, 10, 10), DatasetError),
        "idx": (idx, lambda path: files.read_idx(path, (10,)), DatasetError),
        "idx, gzip": (gzip.compress(idx), lambda path: files.read_idx(path, (10,)), DatasetError),
        "checkpoint": (kept, into(saved, lambda: read(saved)), WorkdirError),
        "checkpoint, checksum right": (kept[: -container.DIGEST], forge, WorkdirError),
        "picture": (picture.getvalue(), lambda path: files.read_rgb(path, (8, 16)), DatasetError),
    }


def main() -> None:
    """Counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=22_000)
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    g = np.random.default_rng(0)
    data, architecture = original()
    whole = container.unpack(data).variables
    rows = []
    with TemporaryDirectory() as folder:
        place = Path(folder) / "a.json"
        architecture.save(place)
        if morph.Architecture.load(place) != architecture:
            raise AssertionError("an architecture file is not what was written")
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        text = place.read_bytes()
        bare = json.dumps(architecture.to_json(), indent=1).encode()
        ways: dict[str, Any] = {
            **containers(data, g),
            "architecture, bent": lambda: bent(bare, g),
            "architecture, as it is": lambda: mutated(text, g),
            "architecture, huge counts": lambda: with_huge_number(text, g),
            "architecture, no checksum": lambda: mutated(bare, g),
            "architecture, huge counts, no checksum": lambda: with_huge_number(bare, g),
        }
        others = readers(Path(folder))
        bomb = gzip.compress(bytes(1 << 30), 1)
        for name, (good, _, _) in others.items():
            json_like = good[:1] in b"{["
            ways[f"{name}, mutated"] = lambda good=good: mutated(good, g)
            if json_like:
                ways[f"{name}, bent"] = lambda good=good: bent(good, g)
        ways["idx, gzip, 1 GiB"] = lambda: bomb
        for name, way in ways.items():
            counts: Counter[str] = Counter()
            slowest = 0.0
            for _ in range(flags.files // len(ways) + 1 if "GiB" not in name else 20):
                made = way()
                started = time.perf_counter()
                try:
                    if name.startswith("container"):
                        counts[outcome_of_container(made, whole)] += 1
                    elif name.startswith("architecture"):
                        counts[outcome_of_architecture(made, place, architecture)] += 1
                    else:
                        kind = name.rsplit(",", 1)[0]
                        counts[outcome_of(made, place, *others[kind][1:])] += 1
                except Exception as error:
                    counts[f"crashed: {type(error).__name__}"] += 1
                    print(name, repr(error)[:300], flush=True)
                slowest = max(slowest, time.perf_counter() - started)
            crashed = sum(n for kind, n in counts.items() if kind.startswith("crashed"))
            rows.append(
                {
                    "files": name,
                    "refused": counts["refused"],
                    "the same network": counts["the same network"],
                    "another network": counts["another network"],
                    "crashed": crashed,
                    "slowest_s": slowest,
                }
            )
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    report(rows, flags.out, most_mib=MOST_BYTES >> 20, grown_mib=round(grown, 1))
    print(f"memory grew by {grown:.0f} MiB; {MOST_BYTES >> 20} MiB of weights were allowed")


if __name__ == "__main__":
    main()
