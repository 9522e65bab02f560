"""StableHLO: the file that any other JAX runs, without Flax, Morph or the model's code.

Source: `jax.export`, https://docs.jax.dev/en/latest/export/export.html; a file can be read for at
least six months by newer versions of JAX (forwards: three weeks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from morph.errors import ExportError, need
from morph.export.exported import Exported, Runner, batched, example_struct, written
from morph.export.frozen import for_any_batch, freeze
from regularizers.checks import FUNCTION, PATH, Rule, all_of, checked

_missing: ModuleNotFoundError | None = None
try:
    import flatbuffers  # noqa: F401  (`jax.export` writes and reads its files with it)
except ModuleNotFoundError as error:
    _missing = error

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
SOME = all_of(Rule(asked="", kind=PLATFORMS.__contains__), f"some of {', '.join(PLATFORMS)}")


def check_installed() -> None:
    """Raises `MissingExtraError`, before any work, if a package is missing."""
    need("StableHLO", _missing, "export")


@checked(fn=FUNCTION, path=PATH, platforms=SOME)
def to_stablehlo(
    fn: Callable[..., Any],
    variables: Any,
    example: Any,
    path: str | Path,
    *,
    platforms: Sequence[str] = PLATFORMS,
) -> Exported:
    """Writes a function and its weights as one StableHLO file.

    The file takes a batch of any size where the function allows it; where it does not, e.g.
    because Python code compares the batch with a number, the example's batch is fixed and the
    note says why.

    Args:
        fn: `fn(variables, x)`, one array out; e.g. `network.predict`.
        variables: the weights, which go into the file.
        example: an input [N, ...], an array or its shape.
        path: of the file.
        platforms: that may run it; of `cpu`, `cuda`, `rocm`, `tpu`.

    Raises:
        ExportError: if JAX cannot export the function. MissingExtraError.

    Example:
        >>> to_stablehlo(network.predict, variables, x, "net.stablehlo")   # doctest: +SKIP
        >>> load("net.stablehlo")(x)                                       # doctest: +SKIP
    """
    check_installed()
    struct = example_struct(example)
    (any_batch,) = jax_export.symbolic_shape("batch")
    open_struct = struct.update(shape=(any_batch, *struct.shape[1:]))

    def lowered(form: Callable[..., Any], given: jax.ShapeDtypeStruct) -> jax_export.Exported:
        return jax_export.export(jax.jit(freeze(form, variables)), platforms=platforms)(given)

    note = ""
    try:
        for form in for_any_batch(fn, variables, struct):
            try:
                return _written(path, lowered(form, open_struct), None)
            except Exception as error:  # whatever the user's code makes of a size without a value
                note = note or f"the batch is fixed: {type(error).__name__}: {_first_line(error)}"
        return _written(path, lowered(fn, struct), struct.shape[0], note)
    except (NotImplementedError, TypeError) as error:
        raise ExportError(
            f"jax.export cannot write this function: {_first_line(error)}. Name fewer platforms, "
            "or leave out what only one of them has."
        ) from error


def _written(
    path: str | Path, exported: jax_export.Exported, batch: int | None, note: str = ""
) -> Exported:
    return written("stablehlo", path, bytes(exported.serialize()), batch, note)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def load(path: str | Path) -> Runner:
    """Reads a file of `to_stablehlo`; returns inputs [N, ...] -> outputs [N, ...].

    Raises:
        ExportError: if the file is none. MissingExtraError.
    """
    check_installed()
    try:
        exported = jax_export.deserialize(bytearray(Path(path).read_bytes()))
        shape = exported.in_avals[0].shape
    except Exception as error:  # the reader of flatbuffers raises what it happens to meet
        raise ExportError(f"{path} is no file of jax.export: {error}") from error
    run = jax.jit(exported.call)
    return batched(lambda x: np.asarray(run(x)), shape[0] if isinstance(shape[0], int) else None)
