"""Trying a function and the file that was made of it: on the same examples, in two numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from morph.errors import ExportError
from morph.export.exported import (
    INDEPENDENT,
    MIXED,
    UNKNOWN,
    Runner,
    batch_of,
    open_sizes,
    sizes_at,
)
from regularizers.channels.calls import joined_path
from regularizers.objective.norms import is_half

ROOM = 1e-3  # of the largest number: what a file may be off
COARSE_ROOM = 5e-2  # where there are numbers of 16 bits
FEW = 0.01  # of many numbers that may be off further: a rounding that falls to the other side
SAME = 1e-4  # of the largest number: the same in another place of the batch
TRIED = 3


class Trial:
    """A function that is exported, and the examples that it is tried on.

    Args:
        fn: `fn(variables, x)`.
        variables: its weights.
        example: what it was given: arrays, or their shapes.
        structs: the shapes of that.
    """

    def __init__(self, fn: Callable[..., Any], variables: Any, example: Any, structs: Any) -> None:
        self.structs, self.batch = structs, batch_of(structs)
        self._example, self._variables = example, variables
        self._fn = jax.jit(fn)
        self._known: dict[Any, tuple[Any, Any]] = {}
        halves = (leaf for leaf in jax.tree.leaves((variables, example)) if hasattr(leaf, "dtype"))
        self._room = COARSE_ROOM if any(is_half(leaf) for leaf in halves) else ROOM

    def examples(self, count: int, seed: int = 0) -> Any:
        """So many of those that were given, or like them."""
        return self.inputs(
            jax.tree.map(
                lambda x: x.update(shape=(count, *x.shape[1:])) if x.shape else x, self.structs
            ),
            seed,
        )

    def inputs(self, structs: Any, seed: int = 0) -> Any:
        """Those that were given, or like them; random ones where there are only shapes."""
        leaves = jax.tree.leaves(self._example)
        if not seed and all(isinstance(x, np.ndarray | jax.Array) for x in leaves):
            return jax.tree.map(
                lambda leaf, x: _like(np.asarray(leaf, x.dtype), x.shape), self._example, structs
            )
        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda struct: _random(rng, struct), structs)

    def expected(self, structs: Any) -> tuple[Any, Any]:
        """Inputs of some sizes, and what JAX makes of them."""
        key = tuple(x.shape for x in jax.tree.leaves(structs))
        if key not in self._known:
            x = self.inputs(structs)
            self._known[key] = x, self.run(x)
        return self._known[key]

    def sizes(self, given: Any) -> list[Any]:
        """The example's shapes, and others: with 1 more in every size that may vary.

        Args:
            given: the inputs' shapes, with names of sizes that may vary.
        """
        known = open_sizes(self.structs, given)
        more = {name: n + 1 for name, n in known.items()}
        return [self.structs, sizes_at(given, more)] if known else [self.structs]

    def run(self, x: Any) -> Any:
        """What JAX makes of examples, in full precision."""
        with jax.default_matmul_precision("highest"):
            return jax.tree.map(np.asarray, self._fn(self._variables, x))

    def check(self, run: Runner, sizes: Sequence[Any]) -> None:
        """Whether a file gives what JAX does, on inputs of some shapes, see `sizes`.

        Raises:
            ExportError: if it does not run, or gives something else.
        """
        for structs in sizes:
            if structs is not self.structs and not self._runs(structs):
                continue  # code that takes its own sizes only
            x, expected = self.expected(structs)
            count = batch_of(structs)
            try:
                found = run(x)
            except Exception as error:  # whatever a runtime raises
                raise ExportError(
                    f"with {count} examples the file does not run: {_first_line(error)}"
                ) from error
            wanted, _ = jax.tree_util.tree_flatten_with_path(expected)
            for (path, one), other in zip(wanted, jax.tree.leaves(found), strict=True):
                if off := difference(one, np.asarray(other), self._room):
                    of = f" ({joined_path(path)})" if path else ""
                    raise ExportError(
                        f"with {count} examples the outputs of the file differ: {off}{of}"
                    )

    def _runs(self, structs: Any) -> bool:
        try:
            self.expected(structs)
        except Exception:  # whatever the user's code raises
            return False
        return True

    def mixing(self) -> str:
        """Whether examples are `independent`: not read by each other, nor by place or number.

        It is tried with other neighbours, other places, and another number where the function
        takes one.
        """
        for count in dict.fromkeys((TRIED, self.batch)):
            try:
                x = self.examples(count, seed=1)
                base = self.run(x)
            except Exception:  # code that takes its own number of examples only
                continue
            if count == 1:
                return UNKNOWN
            return INDEPENDENT if self._is_independent(x, base, count) else MIXED
        return UNKNOWN

    def _is_independent(self, x: Any, base: Any, count: int) -> bool:
        if any(not leaf.ndim or len(leaf) != count for leaf in jax.tree.leaves(base)):
            return False
        first = jax.tree.map(lambda leaf: leaf[:1], base)
        for other in self._neighbours(count):
            mixed = jax.tree.map(
                lambda a, b: np.concatenate([a[:1], b[1:]]) if a.ndim else a, x, other
            )
            found = jax.tree.map(lambda leaf: leaf[:1], self.run(mixed))
            if not _all(
                lambda a, b: np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), first, found
            ):
                return False
        turned = self.run(jax.tree.map(lambda leaf: np.roll(leaf, 1, 0) if leaf.ndim else leaf, x))
        if not _all(lambda a, b: not difference(np.roll(a, 1, 0), b, SAME), base, turned):
            return False
        try:
            fewer = self.run(jax.tree.map(lambda leaf: leaf[:-1] if leaf.ndim else leaf, x))
        except Exception:
            return True
        return _all(lambda a, b: not difference(a[:-1], b, SAME), base, fewer)

    def _neighbours(self, count: int) -> Iterator[Any]:
        far = jax.tree.map(
            lambda leaf: 9 * leaf + 5 if leaf.dtype.kind == "f" else leaf,
            self.examples(count, seed=2),
        )
        yield far
        yield jax.tree.map(
            lambda leaf: np.full_like(leaf, np.nan) if leaf.dtype.kind == "f" else leaf, far
        )


def difference(expected: np.ndarray, found: np.ndarray, room: float) -> str:
    """How numbers differ from those that are expected; "" if they are the same but for rounding.

    Args:
        expected: of JAX.
        found: of a file.
        room: by the largest number.
    """
    if expected.shape != found.shape:
        return f"shape {list(found.shape)}, in JAX {list(expected.shape)}"
    if not jnp.issubdtype(expected.dtype, jnp.inexact):
        wrong = expected != found
        worst = float(np.mean(wrong)) if wrong.size else 0.0
        told = f"{worst:.0%} of the numbers differ"
    else:
        one, other = (np.asarray(own).astype(np.float64) for own in (expected, found))
        finite = np.isfinite(one)
        most = float(np.max(np.abs(one), where=finite, initial=0.0)) or 1.0
        if one.dtype.kind == "f" and expected.dtype.itemsize == 2:
            room = max(room, COARSE_ROOM)
        with np.errstate(invalid="ignore"):
            apart = np.abs(one - other)
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        wrong = ~(same | (finite & np.isfinite(other) & (apart <= room * most)))
        worst = float(np.max(apart, where=np.isfinite(apart), initial=0.0)) / most
        told = f"off by {worst:.2g} of the largest number"
        if np.any(np.isnan(one) != np.isnan(other)):
            told = "numbers where JAX has none, or none where JAX has numbers"
    return told if np.count_nonzero(wrong) > FEW * wrong.size else ""


def norm_difference(expected: Any, found: Any) -> float:
    """How far outputs are off: the norm of the difference by that of what is expected, the most."""

    def one(a: Any, b: Any) -> float:
        wide, other = (np.asarray(own).astype(np.float64) for own in (a, b))
        return float(np.linalg.norm(wide - other) / (np.linalg.norm(wide) or 1.0))

    pairs = zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True)
    return max((one(a, b) for a, b in pairs), default=0.0)


def _all(same: Callable[[Any, Any], bool], one: Any, other: Any) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(same(np.asarray(a), np.asarray(b)) for a, b in pairs)


def _like(leaf: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Its parts, again and a little smaller where there are too few; a number stays."""
    for axis, n in enumerate(shape):
        rounds, parts = np.divmod(np.arange(n), leaf.shape[axis])
        leaf = np.take(leaf, parts, axis)
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            shrink = 1.0 - 0.1 * rounds / (rounds[-1] + 1.0)
            leaf = (
                leaf * np.expand_dims(shrink, [k for k in range(leaf.ndim) if k != axis])
            ).astype(leaf.dtype)
    return leaf


def _random(rng: np.random.Generator, struct: jax.ShapeDtypeStruct) -> np.ndarray:
    shape = struct.shape
    if jnp.issubdtype(struct.dtype, jnp.inexact):
        return rng.normal(size=shape).astype(struct.dtype)
    if struct.dtype == np.bool_:
        return rng.integers(2, size=shape).astype(np.bool_)
    return np.asarray(rng.integers(4, size=shape)).astype(struct.dtype)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0][:300]
