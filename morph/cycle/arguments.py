"""What a run is given besides its settings: what makes no sense is refused before any work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from morph.cycle.config import CycleConfig
from morph.errors import ConfigError, MeshError, WorkdirError
from morph.network import Network
from morph.training.layout import mesh_named
from morph.training.task import Task
from regularizers import json_files
from regularizers.json_files import JsonError

# What a run keeps in its folder, by whether it is a directory.
_KEPT: Mapping[bool, tuple[str, ...]] = {
    True: ("checkpoints", "seed_variables", "shrunk_variables", "variables"),
    False: ("architecture.json", "config.json", "lock", "metrics.jsonl",
            "shrunk.json"),
}  # fmt: skip
# What every report tells, beside the settings.
_FACTS = frozenset({"config", "cost", "outcomes", "seed_cost", "unit"})


def check_interval(name: str, value: Any, *, least: int | None = 1, none: bool = False) -> None:
    """Raises unless a value is a number of steps, or of seconds.

    Args:
        name: of the argument.
        value: of it.
        least: of steps; None for seconds, which are real numbers of at least 0.
        none: whether None will do.

    Raises:
        ConfigError: naming it, what it may be, and what was found.
    """
    if none and value is None:
        return
    kind = Real if least is None else Integral
    fits = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or value < (least or 0):
        what = "seconds, at least 0" if least is None else f"a whole number of at least {least}"
        raise ConfigError(f"{name} must be {what}{' or None' if none else ''}, found {value!r}")


def check_network(network: Any) -> None:
    """Raises `ConfigError` unless it is a `Network`."""
    if not isinstance(network, Network):
        raise ConfigError(
            f"network must be a Network, found {type(network).__name__}; make one by "
            "morph.linen_network(module) or morph.nnx_network(make)"
        )


def check_optimizer(optimizer: Any) -> None:
    """Raises `ConfigError` unless it can be called."""
    if not callable(optimizer):
        raise ConfigError(
            f"optimizer must be a function, found {optimizer!r}; names belong in the settings"
        )


def check_task(task: Any) -> None:
    """Raises `ConfigError` unless it is a `Task`, which looks at its functions itself."""
    if not isinstance(task, Task):
        raise ConfigError(f"task must be a morph.Task, found {task!r}")
    if task.metrics is not None and not task.metrics:
        raise ConfigError("task: metrics must be {name: function}, at least one, found none")


def mesh_of(mesh: Any) -> Mesh:
    """A mesh as it was given: all devices if None, or by the sizes of its axes.

    Raises:
        MeshError: if it is nothing of the kind, or has no devices.
    """
    if mesh is None or isinstance(mesh, str):
        return mesh_named(mesh or "")
    if not isinstance(mesh, Mesh):
        raise MeshError(f"mesh must be a jax.sharding.Mesh, or e.g. 'data=4', found {mesh!r}")
    if not mesh.size:
        raise MeshError("mesh has no devices; give one with some, or None for all")
    return mesh


def plain_identity(identity: Any) -> dict[str, Any]:
    """What tells a run from others, as JSON will give it back.

    Raises:
        ConfigError: if JSON cannot hold it, or a name in it is that of a setting.
    """
    if not isinstance(identity, Mapping):
        raise ConfigError(f"identity must be {{name: plain JSON}}, found {identity!r}")
    if odd := [name for name in identity if not isinstance(name, str)]:
        raise ConfigError(f"names in identity must be strings, found {odd[0]!r}")
    taken = _FACTS | {one.name for one in fields(CycleConfig)}
    if clash := sorted(taken & {*identity}):
        raise ConfigError(f"identity has the name {clash[0]!r}, which is one of the report's own")
    try:
        return json_files.parse_object(json_files.text(dict(identity)))
    except JsonError as error:
        raise ConfigError(f"identity must be plain JSON: {error}") from error


def place_of(workdir: Any) -> Path:
    """The path of a working directory, which may be written as a string.

    Raises:
        WorkdirError: if it is no path, or something in it is not what a run keeps there.
    """
    if not isinstance(workdir, str | Path) or "\0" in str(workdir):
        raise WorkdirError(f"workdir must be a path, found {workdir!r}")
    place = Path(workdir)
    for is_directory, names in _KEPT.items():
        for path in (place / name for name in names):
            if path.exists() and not (path.is_dir() if is_directory else path.is_file()):
                kind = "directory" if is_directory else "file"
                raise WorkdirError(
                    f"{path} is not a {kind}, which a run keeps there; move it away, or choose "
                    "another workdir"
                )
    return place
