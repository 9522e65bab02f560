"""Low rank by what a layer answers, not by its kernel: a data-aware `svd`.

A layer answers y = x W + bias. Where inputs use few directions, the kernel of some rank that
answers most alike is another than the one that is most alike. Everything here is float64 on the
host, and sums over the samples are all that is kept of them, save where a relu follows.

Sources: Izenman 1975, "Reduced-rank regression for the multivariate linear model"; Zhang, Zou, He,
Sun 2015, "Accelerating very deep convolutional networks for classification and detection" (section
3.1 for linear responses, 3.2 for relu, 3.3 for asymmetric reconstruction).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from regularizers.errors import InputError

Array = NDArray[np.float64]

# Zhang et al.: the tie is loose first, so that negative responses may move, then firm.
TIES = (0.01,) * 25 + (1.0,) * 25


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Sums over samples; those of batches add up.

    Attributes:
        count: of the samples.
        input_sum: [inputs].
        target_sum: [outputs].
        inputs: [inputs, inputs], X'X.
        cross: [inputs, outputs], X'Y.
        targets: [outputs, outputs], Y'Y.
    """

    count: float
    input_sum: Array
    target_sum: Array
    inputs: Array
    cross: Array
    targets: Array

    @classmethod
    def of(cls, inputs: ArrayLike, targets: ArrayLike) -> Moments:
        """Those of samples.

        Args:
            inputs: [samples, inputs], what the layer will see: of the network as approximated so
                far for an asymmetric reconstruction. Of a convolution, its patches.
            targets: [samples, outputs], what it shall answer: the original network's responses,
                before the nonlinearity.
        """
        x, y = _samples(inputs, targets)
        return cls(
            count=len(x),
            input_sum=x.sum(0),
            target_sum=y.sum(0),
            inputs=x.T @ x,
            cross=x.T @ y,
            targets=y.T @ y,
        )

    @classmethod
    def of_inputs(cls, inputs: Moments, kernel: ArrayLike) -> Moments:
        """Those where the original kernel, without its bias, answers the inputs.

        Args:
            inputs: whose targets are not read.
            kernel: [inputs, outputs].
        """
        w = np.asarray(kernel, np.float64)
        return cls(
            count=inputs.count,
            input_sum=inputs.input_sum,
            target_sum=inputs.input_sum @ w,
            inputs=inputs.inputs,
            cross=inputs.inputs @ w,
            targets=w.T @ inputs.inputs @ w,
        )

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            count=self.count + other.count,
            input_sum=self.input_sum + other.input_sum,
            target_sum=self.target_sum + other.target_sum,
            inputs=self.inputs + other.inputs,
            cross=self.cross + other.cross,
            targets=self.targets + other.targets,
        )

    @property
    def centered(self) -> Moments:
        """About the means: what is left when a bias answers them."""
        x, y, n = self.input_sum, self.target_sum, max(self.count, 1.0)
        return Moments(
            count=self.count,
            input_sum=np.zeros_like(x),
            target_sum=np.zeros_like(y),
            inputs=self.inputs - np.outer(x, x) / n,
            cross=self.cross - np.outer(x, y) / n,
            targets=self.targets - np.outer(y, y) / n,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Regression:
    """The best kernels of all ranks.

    Attributes:
        left: [inputs, directions].
        right: [directions, outputs], orthonormal rows. The first r columns of `left` times the
            first r rows of `right` are the kernel of rank r.
        input_mean: [inputs].
        target_mean: [outputs]; both zero without bias.
        errors: [directions + 1], the sum of squares that ranks 0, 1, ... leave.
        total: the sum of squares of the targets, about their mean if there is a bias.
    """

    left: Array
    right: Array
    input_mean: Array
    target_mean: Array
    errors: Array
    total: float

    def factors(self, rank: int) -> tuple[Array, Array, Array]:
        """U [inputs, rank], V [rank, outputs] and bias [outputs].

        U and V are as large as each other, component by component.

        Raises:
            ValueError: if there is no such rank.
        """
        if not 1 <= rank <= len(self.right):
            raise InputError(f"the rank is 1 to {len(self.right)}, found {rank}.")
        left, right = self.left[:, :rank], self.right[:rank]
        bias = self.target_mean - self.input_mean @ left @ right
        return (*balanced(left, right), bias)

    def least_rank(self, error: float) -> int:
        """The least rank whose relative error (of norms) is at most this, or the largest."""
        larger = np.count_nonzero(self.errors > error**2 * self.total)
        return int(np.clip(larger, 1, len(self.right)))


def reduced_rank(
    moments: Moments,
    *,
    bias: bool = False,
    kernel: ArrayLike | None = None,
    ridge: float = 1e-3,
) -> Regression:
    """Reduced-rank regression: for every rank the W that minimises ||Y - X W - bias||.

    One eigendecomposition for all ranks: the least-squares answer, projected to its own leading
    principal directions (Izenman 1975).

    Args:
        moments: of the calibration samples.
        bias: whether there is one; it is fitted too, and not counted in the rank.
        kernel: [inputs, outputs], the original one. Where the samples do not say what to do with
            an input, or hardly, it is followed: as if there were `ridge` times the inputs' mean
            power of further samples in every direction, answered by it. Without it a direction
            that no sample has gets zero.
        ridge: how much so; not read without a kernel.

    Returns:
        The kernels and the sums of squares that they leave on the samples, the further ones
        included.

    Example:
        >>> x = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1e-3]])
        >>> found = reduced_rank(Moments.of(x, x @ np.diag([1.0, 50.0])))
        >>> np.matmul(*found.factors(1)[:2]).round(2).tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    own = moments.centered if bias else moments
    inputs, cross, targets = own.inputs, own.cross, own.targets
    if kernel is not None:
        prior = np.asarray(kernel, np.float64)
        weight = _weight(inputs, ridge)
        inputs = inputs + weight * np.eye(len(inputs))
        cross = cross + weight * prior
        targets = targets + weight * prior.T @ prior
    left, right, powers = _leading(_inverse(inputs), cross, min(cross.shape))
    total = float(np.trace(targets))
    explained = np.concatenate([[0.0], np.cumsum(powers)])
    count = max(moments.count, 1.0)
    return Regression(
        left=left,
        right=right,
        input_mean=moments.input_sum / count * bias,
        target_mean=moments.target_sum / count * bias,
        errors=np.maximum(total - explained, 0.0),
        total=total,
    )


def _leading(inverse: Array, cross: Array, rank: int) -> tuple[Array, Array, Array]:
    """The factors of the best kernel of some rank, and what each component explains."""
    solved = inverse @ cross  # of full rank
    powers, vectors = scipy.linalg.eigh(cross.T @ solved, driver="evd")
    vectors = vectors[:, ::-1][:, :rank]
    return solved @ vectors, vectors.T, np.maximum(powers[::-1][:rank], 0.0)


def _inverse(powers: Array) -> Array:
    """The pseudo-inverse: directions without power get zero."""
    squares, vectors = scipy.linalg.eigh(powers, driver="evd")
    floor = len(squares) * np.finfo(np.float64).eps * max(squares[-1], 0.0)
    inverse = np.divide(1.0, squares, out=np.zeros_like(squares), where=squares > floor)
    return (vectors * inverse) @ vectors.T


def _weight(inputs: Array, ridge: float) -> float:
    return float(ridge * np.trace(inputs) / len(inputs))


@dataclass(frozen=True, kw_only=True, eq=False)
class Relu:
    """A low-rank layer in front of a relu.

    Attributes:
        left: U, [inputs, rank].
        right: V, [rank, outputs].
        bias: [outputs].
        error: the sum of squares of relu(targets) - relu(inputs U V + bias).
        linear_error: the same of the linear reconstruction that it started from.
    """

    left: Array
    right: Array
    bias: Array
    error: float
    linear_error: float


def reduced_rank_relu(
    inputs: ArrayLike,
    targets: ArrayLike,
    rank: int,
    *,
    bias: bool = True,
    kernel: ArrayLike | None = None,
    ridge: float = 1e-3,
    ties: Sequence[float] = TIES,
) -> Relu:
    """Minimises ||relu(Y) - relu(X U V + bias)|| over factors of some rank and the bias.

    Alternates between free responses z, tied to the layer's answers, and the layer by reduced-rank
    regression of z (Zhang et al. 2015, equations 7 to 10). Asymmetric if X comes from the network
    as approximated so far and Y from the original one. The best of all iterations is returned, the
    linear reconstruction among them: never worse than that.

    Zhang et al. keep to mixtures of the original kernel's responses, which takes fewer samples:
    give those as `inputs`, X W, and multiply W by `left`.

    Args:
        inputs: X, [samples, inputs].
        targets: Y, [samples, outputs], before the relu.
        rank: of the factors.
        bias: whether there is one; zeros otherwise.
        kernel: [inputs, outputs], the original one; see `reduced_rank`.
        ridge: see `reduced_rank`.
        ties: lambda of each iteration, growing.

    Raises:
        ValueError: if the samples do not belong together or there is no such rank.

    Example:
        >>> x = np.array([[1.0, 2.0], [3.0, -1.0], [-2.0, 0.5]])
        >>> found = reduced_rank_relu(x, x @ np.array([[1.0, -1.0], [0.5, 2.0]]), 1)
        >>> found.left.shape, found.error <= found.linear_error
        ((2, 1), True)
    """
    x, y = _samples(inputs, targets)
    most = min(x.shape[1], y.shape[1])
    if not 1 <= rank <= most:
        raise InputError(f"the rank is 1 to {most}, found {rank}.")
    aim, mean = np.maximum(y, 0.0), x.mean(0) * bias
    x = x - mean
    powers = x.T @ x
    prior = np.zeros((x.shape[1], y.shape[1]))
    if kernel is not None:
        weight = _weight(powers, ridge)
        powers = powers + weight * np.eye(len(powers))
        prior = weight * np.asarray(kernel, np.float64)
    inverse = _inverse(powers)

    def fit(responses: Array) -> tuple[float, Array, tuple[Array, Array, Array]]:
        center = responses.mean(0) * bias
        left, right, _ = _leading(inverse, x.T @ (responses - center) + prior, rank)
        answers = x @ left @ right + center
        error = float(np.sum((aim - np.maximum(answers, 0.0)) ** 2))
        return error, answers, (left, right, center - mean @ left @ right)

    error, answers, best = fit(y)
    linear_error = error
    for tie in ties:
        now, answers, found = fit(free_responses(y, answers, tie))
        if now < error:
            error, best = now, found
    left, right, shift = best
    left, right = balanced(left, right)
    return Relu(left=left, right=right, bias=shift, error=error, linear_error=linear_error)


def free_responses(targets: ArrayLike, answers: ArrayLike, tie: float) -> Array:
    """The z of least (relu(y) - relu(z))^2 + tie (z - y')^2, entry by entry (equation 9).

    The better one of z0 = min(0, y') and z1 = max(0, (tie y' + relu(y)) / (tie + 1)).

    Args:
        targets: y.
        answers: y', what the layer answers now.
        tie: lambda, above 0.

    Example:
        >>> free_responses([-3.0, 1.0], [2.0, 2.0], 1.0).tolist()
        [1.0, 1.5]
    """
    aim, own = np.maximum(np.asarray(targets, np.float64), 0.0), np.asarray(answers, np.float64)
    below = np.minimum(0.0, own)
    above = np.maximum(0.0, (tie * own + aim) / (tie + 1.0))
    below_loss = aim**2 + tie * (below - own) ** 2
    above_loss = (aim - above) ** 2 + tie * (above - own) ** 2
    return np.where(below_loss < above_loss, below, above)


def _samples(inputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    x, y = np.asarray(inputs, np.float64), np.asarray(targets, np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise InputError(
            "inputs [samples, inputs] and targets [samples, outputs] belong together, found "
            f"{list(x.shape)} and {list(y.shape)}."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("inputs or targets hold values that are NaN or infinite.")
    return x, y


def balanced(left: Array, right: Array) -> tuple[Array, Array]:
    """The factors as large as each other, component by component."""
    lefts, rights = np.linalg.norm(left, axis=0), np.linalg.norm(right, axis=1)
    both = (lefts > 0.0) & (rights > 0.0)
    scales = np.sqrt(np.divide(rights, lefts, out=np.ones_like(lefts), where=both))
    return left * scales, right / scales[:, None]
