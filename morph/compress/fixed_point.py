"""Fixed point: numbers of few bits, of which some lie behind the point.

A number is code * 2^-fractional_length; codes are two's complement integers of word_length bits.
"Dynamic" means that every layer has its own fractional length; it is chosen to lose the least.

Source: Qiu et al. 2016, "Going deeper with embedded FPGA platform for convolutional neural
network", section 4 (equations 2 to 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from morph.kernels.compressed import Compressed
from regularizers.channels.following import following
from regularizers.channels.graph import GRAPH, ChannelGraph
from regularizers.checks import checked
from regularizers.errors import InputError

WORD_LENGTHS = range(2, 17)  # a sign and something else; a float32 holds 24 bits
FURTHEST = 126  # of fractional lengths: 2^126 and 2^-126 are normal float32 numbers

# How fractional lengths are chosen, with the power of the errors; 0 where none are looked at.
CRITERIA = {"l1": 1, "l2": 2, "range": 0}


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How numbers are written.

    Attributes:
        word_length: bits in all, the sign among them; 2 to 16.
        fractional_length: bits behind the point; below 0 where whole numbers are rounded too, above
            the word length where all numbers are small.

    Raises:
        ValueError: if there are no such numbers.
    """

    word_length: int
    fractional_length: int

    def __post_init__(self) -> None:
        check_word_length(self.word_length)
        if abs(self.fractional_length) > FURTHEST:
            raise InputError(
                f"fractional_length is {-FURTHEST} to {FURTHEST}, found {self.fractional_length}"
            )

    @property
    def step(self) -> float:
        """Between neighbouring numbers."""
        return 2.0**-self.fractional_length

    @property
    def codes(self) -> tuple[int, int]:
        """The least and the largest."""
        half = 1 << (self.word_length - 1)
        return -half, half - 1

    @property
    def integer(self) -> Any:
        """The smallest type that holds the codes."""
        return jnp.int8 if self.word_length <= 8 else jnp.int16


def check_word_length(word_length: int) -> None:
    """Raises a ValueError if numbers cannot have so many bits."""
    if word_length not in WORD_LENGTHS:
        raise InputError(
            f"word_length is {WORD_LENGTHS[0]} to {WORD_LENGTHS[-1]} bits with the sign, found "
            f"{word_length!r}"
        )


def check_criterion(criterion: str) -> None:
    """Raises a ValueError if fractional lengths cannot be chosen so."""
    if criterion not in CRITERIA:
        raise InputError(f"criterion is one of {', '.join(CRITERIA)}, found {criterion!r}")


def encoded(x: Float[Array, "*shape"], precision: Precision) -> Float[Array, "*shape"]:
    """The codes, as whole float32 numbers: rounded half to even, saturated."""
    return jnp.clip(_unbounded(x, precision), *map(float, precision.codes))


def _unbounded(x: Any, precision: Precision) -> Any:
    return jnp.round(jnp.asarray(x, jnp.float32) * 2.0**precision.fractional_length)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def rounded(x: Float[Array, "*shape"], precision: Precision) -> Float[Array, "*shape"]:
    """The nearest numbers that can be written.

    The gradient goes straight through, and is zero where a number saturates: where rounding alone
    would give a code out of range.

    Args:
        x: of any floating-point type; the result has the same.
        precision: of the result.

    Example:
        >>> precision = Precision(word_length=4, fractional_length=1)
        >>> rounded(jnp.asarray([0.25, 0.75, -1.6, 9.0]), precision).tolist()
        [0.0, 1.0, -1.5, 3.5]
    """
    return (encoded(x, precision) * precision.step).astype(x.dtype)


@rounded.defjvp
def _straight_through(precision: Precision, primals: Any, tangents: Any) -> tuple[Any, Any]:
    (x,), (dx,) = primals, tangents
    least, largest = precision.codes
    code = _unbounded(x, precision)
    inside = (code >= least) & (code <= largest)
    return rounded(x, precision), jnp.where(inside, dx, jnp.zeros_like(dx))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class FixedPoint(Compressed):
    """A kernel or a bias that is rounded wherever it is used, and trained unrounded.

    Attributes:
        kernel: the numbers that are rounded; see `rounded` for their gradient.
        precision: of all of them.
    """

    kernel: Float[Array, "*shape"]
    precision: Precision = field(metadata={"static": True})

    def dense(self) -> Array:
        """The rounded kernel."""
        return rounded(self.kernel, self.precision)

    def frozen(self) -> FixedPointCodes:
        """The integers alone, bit for bit the same kernel."""
        codes = encoded(self.kernel, self.precision).astype(self.precision.integer)
        return FixedPointCodes(
            codes=codes, precision=self.precision, written_as=str(self.kernel.dtype)
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class FixedPointCodes(Compressed):
    """A kernel or a bias as integers; nothing of it is trained.

    Attributes:
        codes: `int8`, or `int16` where words are longer.
        precision: of all of them.
        written_as: the floating-point type of the dense kernel.
    """

    codes: Int[Array, "*shape"]
    precision: Precision = field(metadata={"static": True})
    written_as: str = field(default="float32", metadata={"static": True})

    def dense(self) -> Array:
        """The kernel."""
        return (self.codes.astype(jnp.float32) * self.precision.step).astype(self.written_as)


def rounding_errors(
    x: ArrayLike,
    word_length: int,
    fractional_lengths: Sequence[int],
    reference: ArrayLike | None = None,
    *,
    power: int = 1,
) -> np.ndarray:
    """What rounding loses at each of some fractional lengths: sum |reference - rounded(x)|^power.

    Args:
        x: numbers of any shape; computed with in float64.
        word_length: bits.
        fractional_lengths: to try.
        reference: what the rounded numbers should be; `x` itself if None.
        power: 1 for L1, 2 for squares.

    Returns:
        float64, one sum for each.
    """
    x = np.asarray(x, np.float64)
    aim = x if reference is None else np.asarray(reference, np.float64)
    half = 1 << (word_length - 1)
    errors = []
    for length in fractional_lengths:
        codes = np.clip(np.rint(np.ldexp(x, length)), -half, half - 1)
        errors.append(float((np.abs(aim - np.ldexp(codes, -length)) ** power).sum()))
    return np.asarray(errors)


def without_overflow(x: ArrayLike, word_length: int) -> int:
    """The largest fractional length at which no number saturates; word_length - 1 for zeros.

    Example:
        >>> without_overflow([0.3, -1.0], 8), without_overflow([0.3, 1.0], 8)
        (7, 6)
    """
    x = np.asarray(x, np.float64)
    largest, least = x.max(initial=0.0), x.min(initial=0.0)
    if largest == least == 0.0:
        return word_length - 1
    half = 1 << (word_length - 1)
    # Those of the largest power of two, or one less where rounding still goes beyond.
    length = word_length - int(np.frexp(max(largest, -least))[1])
    while np.rint(np.ldexp(largest, length)) >= half or np.rint(np.ldexp(least, length)) < -half:
        length -= 1
    return _within(length)


def best_precision(
    x: ArrayLike,
    word_length: int,
    reference: ArrayLike | None = None,
    *,
    criterion: str = "l1",
    what: str = "the array",
) -> tuple[Precision, float]:
    """The fractional length of the least error, and its L1 error (equations 3 and 4).

    Tried are the largest that lets nothing saturate and all above: often it pays to let a few
    outliers saturate for a finer step. Of equal errors the widest range is taken.

    Args:
        x: numbers of any shape.
        word_length: bits.
        reference: what the rounded numbers should be; `x` itself if None.
        criterion: `l1`, as in the paper; `l2`, which lets fewer outliers saturate; `range`, which
            lets none.
        what: what an error message calls them.

    Raises:
        ValueError: if there is no such word length or criterion, or no number, or one is not
            finite.
    """
    check_word_length(word_length)
    check_criterion(criterion)
    x = np.asarray(x, np.float64)
    if not x.size:
        raise InputError(f"{what} has no numbers to choose a fractional length by")
    if not np.isfinite(x).all():
        raise InputError(f"{what} holds values that are NaN or infinite")
    start = without_overflow(x, word_length)
    power = CRITERIA[criterion]
    lengths = sorted({_within(start + k) for k in range(word_length + 1 if power else 1)})
    best = lengths[int(rounding_errors(x, word_length, lengths, reference, power=power).argmin())]
    (error,) = rounding_errors(x, word_length, [best], reference)
    return Precision(word_length=word_length, fractional_length=best), float(error)


def _within(length: int) -> int:
    return min(max(length, -FURTHEST), FURTHEST)


@checked(graph=GRAPH)
def equalized(graph: ChannelGraph, variables: Any) -> Any:
    """The same function with the outputs of each kernel before a batch norm equally large.

    What a batch norm takes in may have any scale: a kernel's slice for one output and the running
    mean times s, and the norm's scale by s, is the same in evaluation mode. So no output's weights
    are small beside the others' and lost in the step that all of a kernel share, as happens in
    depthwise convolutions. (Nagel et al. 2019, "Data-free quantization through weight equalization
    and bias correction", section 4.1, scale one layer against the next; a norm takes any scale.)

    Args:
        graph: of the function in evaluation mode.
        variables: what it was traced with; float.

    Returns:
        The variables; for evaluation, and for a plan.
    """
    found, treedef = graph.leaves(variables)
    for path, after in following(graph).items():
        scale = _scale_of_norm(graph, after.bias) if after.sign < 0 else ""
        output = set(graph.variables[path].produces)
        if not scale or len(output) != 1:
            continue
        kernel, (axis,) = found[path], output
        sizes = jnp.abs(kernel).max([k for k in range(kernel.ndim) if k != axis])
        ratio = jnp.where(sizes > 0, sizes.max() / jnp.where(sizes > 0, sizes, 1), 1)
        shape = [-1 if k == axis else 1 for k in range(kernel.ndim)]
        found[path] = kernel * ratio.reshape(shape)
        found[after.bias] = found[after.bias] * ratio
        found[scale] = found[scale] / ratio
    return jax.tree.unflatten(treedef, list(found.values()))


def _scale_of_norm(graph: ChannelGraph, mean: str) -> str:
    """The trained scale of the batch norm that has a running mean; "" for none."""
    known = graph.variables.get(mean)
    if known is None or known.trained:
        return ""
    module = mean.split("/")[1:-1]
    alike = [
        path
        for path, variable in graph.variables.items()
        if variable.trained
        and variable.kind == "scale"
        and variable.shape == known.shape
        and path.split("/")[1:-1] == module
    ]
    return alike[0] if len(alike) == 1 else ""
