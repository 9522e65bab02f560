"""Weights that a run starts from: where they are, and whether they fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from morph.cycle.workdir import load_variables
from morph.errors import StartError, need
from morph.imports import find_attribute, is_path
from morph.network import Variables
from regularizers.channels.calls import flat_paths
from regularizers.messages import cause, near

_missing: ModuleNotFoundError | None = None
try:
    from safetensors.numpy import load_file
except ModuleNotFoundError as error:
    _missing = error

# Variables; or where they are: a directory of Orbax, a file of safetensors, a name of a function;
# or a function that makes them.
Start: TypeAlias = Mapping[str, Any] | str | Path | Callable[[], Any]
_MOST = 3  # differences that a message lists


def read_start(start: Start) -> Any:
    """The variables to start from, as they are there.

    Args:
        start: variables, or where they are: see `Start`. Names in a file of safetensors are paths,
            `params/Dense_0/kernel`, or the same with dots.

    Raises:
        StartError: if there is nothing of the kind, or it cannot be read.
    """
    if callable(start):
        return start()
    if not isinstance(start, str | Path):
        return start
    path = Path(start)
    if path.suffix == ".safetensors" and path.is_file():
        need("a file of safetensors", _missing, "export")
        return _read(start, lambda: load_file(path))
    if path.is_dir():
        return _read(start, lambda: load_variables(path))
    if is_path(os.fspath(start)):
        made = find_attribute(os.fspath(start), "start")
        return _read(start, made) if callable(made) else made
    what = "is not a file of weights" if path.exists() else "is not there"
    raise StartError(
        f"--start={start} {what}: give a directory that Orbax wrote, a file of safetensors, or a "
        "function, package.module:attribute"
    )


def _read(start: Any, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # whatever a broken file makes of its reader, or a user's function
        raise StartError(f"--start={start} cannot be read: {cause(error)}") from error


def fitted(start: Any, like: Any) -> Variables:
    """Variables as a network takes them: copies, by path, in its types.

    Args:
        start: a tree of arrays, or a flat dict of them by path. Paths may lack the collections, as
            those of `nnx.state(model)` do, also where Orbax wrote it.
        like: the network's variables, abstract.

    Raises:
        StartError: naming what is missing, what is there too much or has another shape, with near
            matches; or what is not finite.
    """
    paths, leaves, tree = flat_paths(like)
    found = {_plain(path): leaf for path, leaf in zip(*flat_paths(start)[:2], strict=True)}
    if not any(path.startswith("params/") for path in found):  # as nnx.state(model) has them
        bare = {path.partition("/")[2]: path for path in paths}
        names = {path: path.removesuffix("/value") for path in found}
        found = {bare.get(name, path): found[path] for path, name in names.items()}
    wanted = dict(zip(paths, leaves, strict=True))
    _check_paths(wanted, found)
    copies = []
    for path, leaf in wanted.items():
        copy = jnp.array(found[path], leaf.dtype)
        if jnp.issubdtype(copy.dtype, jnp.inexact) and not bool(jnp.isfinite(copy).all()):
            raise StartError(f"the weights to start from are not finite: {path} holds NaN or inf")
        copies.append(copy)
    return dict(jax.tree.unflatten(tree, copies))


def _plain(path: str) -> str:
    """A path with slashes; names in files of safetensors often have dots."""
    return path if "/" in path else path.replace(".", "/")


def _check_paths(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    missing = [path for path in wanted if path not in found]
    extra = [path for path in found if path not in wanted]
    told = [f"there is no {path!r}{near(path, extra)}" for path in missing if extra]
    told += [f"there is no {path!r}" for path in missing if not extra]
    told += [
        f"the network has no {path!r}{near(path, list(wanted))}" for path in extra if not missing
    ]
    told += [
        f"{path} is {list(np.shape(found[path]))} there, and must be {list(np.shape(leaf))}"
        for path, leaf in wanted.items()
        if path in found and np.shape(found[path]) != np.shape(leaf)
    ]
    if told:
        more = f"; and {len(told) - _MOST} more" if len(told) > _MOST else ""
        raise StartError(
            f"the weights to start from do not fit the network: {'; '.join(told[:_MOST])}{more}"
        )
