"""A folder with all that it takes to use a network elsewhere, and the figures on it.

variables.safetensors   the weights, by path
architecture.json       what every channel group became (if there is an architecture)
network.*               the exported files
examples.safetensors    some inputs, and what JAX makes of them (if they were given)
README.md               the model card: figures, sizes, how to run it, versions, the command
manifest.json           the SHA-256 and the size of every other file
"""

from __future__ import annotations

import hashlib
import importlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from morph.architecture.architecture import Architecture
from morph.errors import ExportError, need
from morph.export.exported import Agreement, Exported
from morph.export.running import run_lines
from morph.export.trial import COARSE_ROOM, ROOM, norm_difference
from morph.files import write_text
from morph.untrusted import in_markdown, printable
from regularizers import json_files
from regularizers.channels.calls import flat_paths
from regularizers.messages import cause, reason

_missing: ModuleNotFoundError | None = None
try:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save_file
except ModuleNotFoundError as error:
    _missing = error

MANIFEST, CARD, WEIGHTS, ARCHITECTURE, EXAMPLES = (
    "manifest.json", "README.md", "variables.safetensors", "architecture.json",
    "examples.safetensors",
)  # fmt: skip
KEPT = 8  # examples
LOADERS = {".stablehlo": "stablehlo", ".onnx": "onnx", ".tflite": "tflite"}
INT8_ROOM = 0.5  # of the norm of the outputs
VERSION = 1
_PACKAGES = ("morph-jax", "jax", "flax", "numpy", "onnx", "onnxruntime", "ai-edge-litert",
             "litert-converter", "ai-edge-quantizer")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that was read and whose checksums agree.

    Attributes:
        folder: where it is.
        variables: by path, e.g. `params/Dense_0/kernel`.
        architecture: of the network; None if there is none.
        files: the other files by name, e.g. `network.onnx`.
        figures: of the model card.
    """

    folder: Path
    variables: Mapping[str, np.ndarray]
    architecture: Architecture | None
    files: Mapping[str, Path]
    figures: Mapping[str, Any]


def check_installed() -> None:
    """Raises `MissingExtraError`, before any work, if a package is missing."""
    need("A bundle", _missing, "export")


def save(
    folder: str | Path,
    variables: Any,
    exported: Sequence[Exported],
    *,
    name: str,
    figures: Mapping[str, Any],
    agreements: Mapping[str, Agreement] | None = None,
    architecture: Architecture | None = None,
    examples: tuple[Any, Any] | None = None,
    command: str = "",
    notes: str = "",
) -> Path:
    """Completes the folder that exports were written to: weights, model card, manifest.

    Args:
        folder: where `exported` lie.
        variables: the weights; the arrays of factorized kernels are their cores.
        exported: what was written to the folder.
        name: of the network, the title of the card.
        figures: by what they are, e.g. `{"accuracy": 0.91, "parameters": 5000, "FLOPs": 2e6}`.
        agreements: by target, how well it agrees with JAX.
        architecture: of the network, if it was shrunk or expanded.
        examples: inputs [N, ...] and what JAX makes of them [N, ...], arrays, for `check`; the
            first ones are kept.
        command: that made it.
        notes: what else a reader should know, Markdown.

    Returns:
        The path of the manifest.

    Raises:
        ExportError: if an export lies elsewhere. MissingExtraError.
    """
    check_installed()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if stray := [str(e.path) for e in exported if e.path.parent.resolve() != folder.resolve()]:
        raise ExportError(f"the bundle is {folder}, but {stray[0]} lies elsewhere; export it there")
    paths, leaves, _ = flat_paths(variables)
    arrays = {path: np.ascontiguousarray(leaf) for path, leaf in zip(paths, leaves, strict=True)}
    save_file(arrays, folder / WEIGHTS)
    if architecture is not None:
        architecture.save(folder / ARCHITECTURE)
    if examples is not None:
        x, y = (np.ascontiguousarray(np.asarray(own)[:KEPT]) for own in examples)
        save_file({"input": x, "output": y}, folder / EXAMPLES)
    card = _card(folder, name, exported, figures, agreements or {}, command, notes)
    write_text(folder / CARD, card)
    names = [WEIGHTS, CARD, *(e.path.name for e in exported)]
    names += [ARCHITECTURE] * (architecture is not None) + [EXAMPLES] * (examples is not None)
    manifest = {
        "version": VERSION,
        "name": name,
        "figures": dict(figures),
        "files": {
            n: {"sha256": _sha256(folder / n), "bytes": (folder / n).stat().st_size}
            for n in sorted(names)
        },
    }
    write_text(folder / MANIFEST, json_files.text(manifest, indent=2))
    return folder / MANIFEST


def load(folder: str | Path) -> Bundle:
    """Reads a bundle and verifies the checksum of every file.

    Raises:
        ExportError: if the manifest is missing or malformed, or a file is missing or another.
    """
    check_installed()
    folder = Path(folder)
    manifest = _manifest(folder)
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise ExportError(f"the bundle {folder} lacks {name}, which its manifest lists")
        if path.stat().st_size != entry["bytes"] or _sha256(path) != entry["sha256"]:
            raise ExportError(
                f"{path} is not the file that was bundled (its SHA-256 is another); "
                "write the bundle again, or copy it again."
            )
    has = manifest["files"]
    try:
        variables = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ExportError(f"cannot read {folder / WEIGHTS}: {error}") from error
    own = (WEIGHTS, ARCHITECTURE, CARD, EXAMPLES)
    return Bundle(
        folder=folder,
        variables=variables,
        architecture=Architecture.load(folder / ARCHITECTURE) if ARCHITECTURE in has else None,
        files={name: folder / name for name in has if name not in own},
        figures=manifest["figures"],
    )


def check(folder: str | Path) -> dict[str, float]:
    """Verifies a bundle: its checksums, and that every file gives what JAX did.

    Returns:
        By file, how far its outputs are off on the examples that are kept: the norm of the
        difference by the norm of JAX's outputs.

    Raises:
        ExportError: see `load`; if there are no examples, a file does not run, or gives something
            else. MissingExtraError.
    """
    bundle, folder = load(folder), Path(folder)
    if not (folder / EXAMPLES).is_file():
        raise ExportError(f"{folder} keeps no examples ({EXAMPLES}); write the bundle again")
    kept, found = load_file(folder / EXAMPLES), {}
    coarse = any(x.dtype.kind != "i" and x.dtype.itemsize == 2 for x in bundle.variables.values())
    floats = COARSE_ROOM if coarse else ROOM
    for name, path in bundle.files.items():
        if path.suffix not in LOADERS:
            continue
        module = importlib.import_module(f"morph.export.{LOADERS[path.suffix]}")
        try:
            outputs = module.load(path)(kept["input"])
        except Exception as error:  # whatever a runtime raises
            raise ExportError(f"{path} does not run here: {cause(error)}") from error
        found[name] = off = norm_difference(kept["output"], outputs)
        room = INT8_ROOM if name.endswith((".int8.onnx", ".tflite")) else floats
        if not off <= room:
            raise ExportError(
                f"{path} differs from JAX by {off:.2g} of the norm of its "
                f"outputs, at most {room:g} is rounding; export it again"
            )
    return found


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json_files.read(path)
    except (OSError, ValueError) as error:
        raise ExportError(
            f"{folder} is not a bundle: cannot read {path.name}: {reason(error)}"
        ) from error
    files = manifest.get("files") if isinstance(manifest, dict) else None
    good = (
        isinstance(files, dict)
        and WEIGHTS in files
        and all(
            isinstance(entry, dict)
            and isinstance(entry.get("sha256"), str)
            and isinstance(entry.get("bytes"), int)
            and Path(name).name == name
            for name, entry in files.items()
        )
    )
    if not good or manifest.get("version") != VERSION:
        raise ExportError(
            f"{path} is not a manifest of version {VERSION}: it must list {WEIGHTS} and the sha256 "
            "and bytes of every file, by plain names."
        )
    manifest.setdefault("figures", {})
    return manifest


def _card(
    folder: Path,
    name: str,
    exported: Sequence[Exported],
    figures: Mapping[str, Any],
    agreements: Mapping[str, Agreement],
    command: str,
    notes: str,
) -> str:
    lines = [f"# {in_markdown(name)}", "", "| figure | value |", "|---|---|"]
    lines += [f"| {in_markdown(key)} | {_number(value)} |" for key, value in figures.items()]
    lines += ["", "| file | bytes | batch | largest logit difference | accuracy | of JAX |"]
    lines += ["|---|---|---|---|---|---|"]
    for one in exported:
        found = agreements.get(one.target)
        cells = [
            in_markdown(one.path.name),
            f"{one.size_bytes:,}",
            "any" if one.batch is None else one.batch,
        ]
        if found is None:
            cells += ["not measured"] * 3
        else:
            cells.append(f"{found.logit_difference:.2g}")
            for accuracy in (found.accuracy, found.reference_accuracy):
                cells.append(", ".join(f"top-{k} {100 * v:.2f} %" for k, v in accuracy.items()))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    size = (folder / WEIGHTS).stat().st_size
    lines.append(f"| {WEIGHTS} | {size:,} | | | | |")
    lines += [
        "",
        *(f"{in_markdown(one.path.name)}: {in_markdown(one.note)}" for one in exported if one.note),
    ]
    lines += [printable(notes), ""] if notes else []
    lines += run_lines([one.path.name for one in exported])
    lines += ["Differences are by JAX's largest logit, on the same examples.", ""]
    lines += [f"Versions: {', '.join(_versions())}, Python {platform.python_version()}.", ""]
    lines += [f"Made by\n\n    {' '.join(printable(command).split())}\n"] if command else []
    return "\n".join(lines)


def _versions() -> list[str]:
    installed = {d.metadata["Name"].lower() for d in metadata.distributions() if d.metadata["Name"]}
    return [f"{name} {metadata.version(name)}" for name in _PACKAGES if name in installed]


def _number(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else in_markdown(value)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
