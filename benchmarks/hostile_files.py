"""What mutated files come to: 20,000 over all readers.

    python benchmarks/hostile_files.py --out results/hostile_files.json

Mutations: bit flips, truncations, bytes put in and cut out, huge counts in headers; of containers
and checkpoints as they are, so that the checksum is wrong, and with a checksum that is right again;
of every JSON that is read, also depth, huge numbers, names twice, what is no number, and no text;
also files that are long, or unpack to very much more. A file must be refused with the one error of
its kind, or be read. What may not happen is another exception, a call of more than a second of a
processor, or memory beyond the bound: then this fails. With a checksum that is right, or without
the one that an architecture file need not have, a change of numbers makes another network, which
somebody could have written: these are counted apart. Memory is by how much the process grows
while a file is read, without the file itself. Linux only.
"""

import argparse
import hashlib
import json
import re
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
from hostile_readers import bombs, readers
from timing import report

import morph
import regularizers as reg
from experiments.networks import build
from morph.compress.coding import container
from morph.compress.coding.container import ContainerError
from morph.compress.fixed_point import FixedPointCodes, Precision
from morph.errors import ArchitectureError
from morph.kernels.compressed import Pruned, Shared
from morph.kernels.decompose import factorize

MOST_BYTES = 8 << 20  # that an accepted container may need when dense
MOST_S, MOST_GROWN_MIB = 1.0, 64  # of a processor, and of memory, for one file
BENT = (
    b"null", b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"-9223372036854775809", b"\xff", b"{}",
    b"[" * 65 + b"]" * 65, b"[" * 100_000, b'{"a":' * 3000, b'{"a": 1, "a": 2}', b'"\\ud800"',
    b"[]", b"true", b'"\x1b[2J"', b"[" + b"0," * 300_000 + b"0]", b"[" + b"{}," * 100_000 + b"{}]",
)  # fmt: skip
OUTCOMES = ("refused", "the same network", "another network", "crashed")
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


def outcome_of(data: bytes, place: Path, read: Callable[[Path], Any], wanted: Any) -> str:
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


def memory_mib() -> float:
    """What the process has now; what it has at most counts from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_mib() -> float:
    """What it had at most since then."""
    return _status("VmHWM")


def _status(name: str) -> float:
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if name in one)
    return int(line.split()[1]) / 1024


def long_architectures(honest: dict[str, Any]) -> dict[str, bytes]:
    """Architectures of megabytes that nobody would write, by what is long in them."""
    name = next(iter(honest["variables"]))
    group = next(iter(honest["groups"]))
    deep: Any = 5
    for _ in range(60):
        deep = {"sum": [deep]}
    axes = {
        "sums in sums": [{"sum": [deep] * 600}],
        "1 MB of sums": [{"sum": [{"sum": [1]}] * 90_000}],
        "2 MB of products": [{"sum": [{"product": [1, 1]}] * 90_000}],
        "a sum of 3,000,000": [{"sum": [1] * 3_000_000}],
        "1,000,000 axes": [1] * 1_000_000,
    }
    found = {}
    for what, value in axes.items():
        made = json.loads(json.dumps(honest))
        made["variables"][name]["axes"] = value
        found[what] = json.dumps(made).encode()
    made["variables"][name]["axes"] = honest["variables"][name]["axes"]
    for what, count in (("21 MB of parents", 7_000_000), ("57 MB of parents", 19_000_000)):
        made["groups"][group]["parents"] = [0] * count
        found[what] = json.dumps(made).encode()
    return {f"architecture, {what}": data for what, data in found.items()}


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
        text = place.read_bytes()
        honest = architecture.to_json()
        bare = json.dumps(honest, indent=1).encode()
        ways: dict[str, Any] = {
            **containers(data, g),
            "architecture, bent": lambda: bent(bare, g),
            "architecture, as it is": lambda: mutated(text, g),
            "architecture, huge counts": lambda: with_huge_number(text, g),
            "architecture, no checksum": lambda: mutated(bare, g),
            "architecture, huge counts, no checksum": lambda: with_huge_number(bare, g),
        }
        others = readers(Path(folder))
        reader_of = {}
        for name, (good, _, _) in others.items():
            ways[f"{name}, mutated"] = lambda good=good: mutated(good, g)
            reader_of[f"{name}, mutated"] = name
            if good[:1] in b"{[":
                ways[f"{name}, bent"] = lambda good=good: bent(good, g)
                reader_of[f"{name}, bent"] = name
        each = flags.files // len(ways) + 1
        counts_of = dict.fromkeys(ways, each)
        for name, (reader, made) in bombs().items():
            ways[name], reader_of[name], counts_of[name] = lambda made=made: made, reader, 5
        for name, made in long_architectures(honest).items():
            ways[name], counts_of[name] = lambda made=made: made, 5
        huge = zlib.compress(bytes(1 << 30), 1)
        head = container.HEAD.pack(container.MAGIC, container.VERSION, len(huge))
        unpacks = forged(head + huge)
        ways["container, 1 GiB of header"] = lambda: unpacks
        counts_of["container, 1 GiB of header"] = 5
        for good, read, _ in others.values():  # what is loaded once is no memory of a file's
            place.write_bytes(good)
            read(place)
        for name, way in ways.items():
            counts: Counter[str] = Counter()
            slowest = grown = 0.0
            for _ in range(counts_of[name]):
                made = way()
                before, started = memory_mib(), time.process_time()
                try:
                    if name in reader_of:
                        counts[outcome_of(made, place, *others[reader_of[name]][1:])] += 1
                    elif name.startswith("container"):
                        counts[outcome_of_container(made, whole)] += 1
                    else:
                        counts[outcome_of_architecture(made, place, architecture)] += 1
                except Exception as error:
                    counts[f"crashed: {type(error).__name__}"] += 1
                    print(name, repr(error)[:300], flush=True)
                slowest = max(slowest, time.process_time() - started)
                grown = max(grown, peak_mib() - before)
            crashed = sum(n for kind, n in counts.items() if kind.startswith("crashed"))
            rows.append(
                {
                    "files": name,
                    "refused": counts["refused"],
                    "the same network": counts["the same network"],
                    "another network": counts["another network"],
                    "crashed": crashed,
                    "slowest_s": slowest,
                    "grown_mib": grown,
                }
            )
    grown = max(row["grown_mib"] for row in rows)
    files = sum(sum(row[kind] for kind in OUTCOMES) for row in rows)
    report(rows, flags.out, files=files, most_mib=MOST_BYTES >> 20, grown_mib=round(grown, 1))
    print(f"memory grew by {grown:.0f} MiB at most; {MOST_BYTES >> 20} MiB of weights are allowed")
    slow = [row["files"] for row in rows if row["slowest_s"] > MOST_S]
    if sum(row["crashed"] for row in rows) or slow or grown > MOST_GROWN_MIB:
        sys.exit(f"beyond the bounds of 0 crashes, {MOST_S} s ({slow}), {MOST_GROWN_MIB} MiB")


if __name__ == "__main__":
    main()
