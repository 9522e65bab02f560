"""Factorized kernels fitted to what a network answers on a calibration batch.

Sources: Zhang, Zou, He, Sun 2015, "Accelerating very deep convolutional networks for classification
and detection": low rank of responses, of the approximated network's inputs (asymmetric), in front
of a relu; see `morph.tensorize.response`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from morph.kernels.decompose import factorize_stack
from morph.kernels.evaluate import evaluate
from morph.kernels.factorized import Factorized
from morph.tensorize.layers import Kernel, KernelUse, run
from morph.tensorize.options import (
    CP_ITERATIONS,
    LEAST_ERROR,
    MOST_ERROR,
    RUNGS,
    Ladder,
    interpolated,
    ladder,
)
from morph.tensorize.response import (
    Array,
    Moments,
    Regression,
    balanced,
    reduced_rank,
    reduced_rank_relu,
)
from morph.tensorize.samples import inputs_of, rows_of
from regularizers.channels.following import Following, following
from regularizers.channels.graph import ChannelGraph
from regularizers.errors import InputError
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import ClosedJaxpr, dtype_of, shape_of

RESPONSES = ("linear", "asymmetric", "relu")
FITTED = "svd"  # the kind whose cores are fitted; of others only the ranks and biases see data
RIDGE = 1e-3  # how much the original kernel is followed; see `response.reduced_rank`
PROBE = 0.3  # the relative error at which it is tried what a layer's does to the outputs
DEAR_RUNGS = 12  # of a ladder of which every rung has to be decomposed


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """What a calibration batch says about a kernel.

    What is fitted is a mixture of the layer's own responses, as Zhang et al. have it: fewer numbers
    than a free kernel, and as good for the original inputs. Where there are fewer inputs than
    outputs every kernel is one, and inputs are the smaller basis.

    Attributes:
        roles: of the kernel's axes.
        kernel: as a matrix, [inputs, outputs].
        rows: what it was multiplied with in the original network, [samples, inputs].
        bias: what is added to its answers, [outputs]; None if there is no variable for that.
        after: that variable, and whether a relu follows.
        once: whether the kernel is used once: then inputs of the approximated network are known
            before it is fitted.
    """

    roles: str
    kernel: Array
    rows: np.ndarray
    bias: Array | None
    after: Following
    once: bool

    @cached_property
    def answers(self) -> np.ndarray:
        """Of the original network, without the bias, float32 [samples, outputs]."""
        return self.rows @ self.kernel.astype(np.float32)

    @cached_property
    def regression(self) -> Regression:
        """The mixtures of features of all ranks, for the original inputs."""
        moments = Moments.of(self.features(self.rows), self.answers)
        return reduced_rank(moments, bias=self.bias is not None, kernel=self.mixture, ridge=RIDGE)

    @property
    def wide(self) -> bool:
        """Whether the layer has more inputs than outputs."""
        return self.kernel.shape[0] > self.kernel.shape[1]

    def features(self, rows: np.ndarray) -> np.ndarray:
        """The inputs, or what the original kernel answers to them: whichever are fewer."""
        return rows @ self.kernel.astype(np.float32) if self.wide else rows

    @property
    def mixture(self) -> Array:
        """The original kernel, of features."""
        return np.eye(self.kernel.shape[1]) if self.wide else self.kernel

    def factors(self, left: Array, right: Array) -> tuple[Array, Array]:
        """Those of a kernel, from those of a mixture of features."""
        return balanced(self.kernel @ left if self.wide else left, right)

    def least_rank(self, energy: float | None, error: float | None) -> int:
        """The least one that keeps a share of the answers' power, or loses so much of norm."""
        lost = math.sqrt(1.0 - energy) if energy is not None else error or 0.0
        return self.regression.least_rank(lost)

    def error(self, kernel: Array, rows: np.ndarray | None = None) -> float:
        """Relative error of the answers of another kernel, of other rows; a bias would be fitted.

        The answers are those before the bias and the relu.
        """
        answers = self.answers
        lost = answers - (self.rows if rows is None else rows) @ kernel.astype(np.float32)
        if self.bias is not None:
            answers, lost = answers - answers.mean(0), lost - lost.mean(0)
        return float(np.linalg.norm(lost) / (np.linalg.norm(answers) or 1.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """A kernel that was fitted.

    Attributes:
        value: the factorized kernel.
        error: relative, of the layer's answers before the bias and the relu.
        kernel_error: relative, of the kernel.
        biases: the new value of its bias, by path; none where it has none.
    """

    value: Factorized
    error: float
    kernel_error: float
    biases: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """What a network does on a calibration batch.

    Attributes:
        graph: of its function.
        variables: its leaves, by path.
        inputs: the batch, flat.
        layers: what is known of its kernels, by path; not of those inside of loops or in lookups.
    """

    graph: ChannelGraph
    variables: Mapping[str, Any]
    inputs: Sequence[Any]
    layers: Mapping[str, Layer]

    def losses(
        self,
        ladders: Mapping[str, Ladder],
        cut: Callable[[str, Mapping[str, int]], Factorized],
    ) -> dict[str, Callable[[float], float]]:
        """What errors of kernels do to the network's outputs, by path.

        Each kernel is cut alone, at the rung whose error is nearest to `PROBE`, and the relative
        square error of the outputs is taken to grow as its own error's square does: a layer beside
        an identity may bear more than another, which no response of its own tells.

        Args:
            ladders: the errors of ranks, by path.
            cut: decomposes a kernel at some ranks.
        """
        closed = ClosedJaxpr(self.graph.jaxpr, self.graph.body.consts)
        outputs = jax.jit(lambda values: evaluate(closed, values, jaxprs.rebind))
        expected = outputs([*self.variables.values(), *self.inputs])
        power = _power(expected) or 1.0
        losses: dict[str, Callable[[float], float]] = {}
        for path, own in ladders.items():
            ranks, error = min(own.rungs, key=lambda rung: abs(rung[1] - PROBE))
            changed = {path: cut(path, ranks)}
            if path in self.layers:
                one = self._fitted(path, changed[path], self.layers[path].rows, relu=False)
                changed = {path: one.value, **one.biases}
            changed[path] = changed[path].dense()
            found = outputs([*{**self.variables, **changed}.values(), *self.inputs])
            lost = [a - b for a, b in zip(found, expected, strict=True)]
            weight = _power(lost) / power / max(error, LEAST_ERROR) ** 2
            losses[path] = partial(_squared, weight)
        return losses

    def fit(self, made: Mapping[str, Factorized], response: str) -> dict[str, Fitted]:
        """The factorized kernels fitted to what the original network answers, at their ranks.

        Args:
            made: the factorized kernels, decomposed without data. Those of other kinds than
                `FITTED` stay, and so do kernels without samples.
            response: one of `RESPONSES`.
        """
        fits: dict[str, Fitted] = {}
        now = {path: value.dense() for path, value in made.items() if path not in self.layers}

        def take(path: str, rows: np.ndarray) -> None:
            fits[path] = one = self._fitted(path, made[path], rows, relu=response == "relu")
            now.update({path: one.value.dense(), **one.biases})

        def watch(path: str, use: KernelUse, operands: Sequence[Any]) -> None:
            if path in self.layers and path in made and path not in fits:
                take(path, rows_of(use, operands))

        for path in made:
            if path in self.layers and not (response != "linear" and self.layers[path].once):
                take(path, self.layers[path].rows)
        if response != "linear":
            values = [now.get(path, leaf) for path, leaf in self.variables.items()]
            now.clear()  # what comes from here on is only true behind its layer
            run(self.graph, [*values, *self.inputs], watch, changed=now)
        return fits

    def _fitted(self, path: str, value: Factorized, rows: np.ndarray, *, relu: bool) -> Fitted:
        layer = self.layers[path]
        targets, biased = layer.answers, layer.bias is not None
        own = np.zeros(targets.shape[1]) if layer.bias is None else layer.bias
        if value.format.kind != FITTED:
            kernel = matrix(value.dense(), layer.roles)
            bias = own + np.mean(targets - rows @ kernel.astype(np.float32), axis=0, dtype=float)
        else:
            rank = value.ranks["r"]
            if relu and layer.after.relu:
                best = reduced_rank_relu(
                    layer.features(rows),
                    targets + own,
                    rank,
                    bias=biased,
                    kernel=layer.mixture,
                    ridge=RIDGE,
                )
                left, right, bias = best.left, best.right, best.bias
            elif rows is layer.rows:
                left, right, shift = layer.regression.factors(rank)
                bias = own + shift
            else:
                moments = Moments.of(layer.features(rows), targets)
                found = reduced_rank(moments, bias=biased, kernel=layer.mixture, ridge=RIDGE)
                left, right, shift = found.factors(rank)
                bias = own + shift
            left, right = layer.factors(left, right)
            kernel = left @ right
            value = replace(value, cores=tuple(
                jnp.asarray(new.reshape(core.shape), core.dtype)
                for new, core in zip((left, right), value.cores, strict=True)
            ))  # fmt: skip
        biases = {}
        if biased:
            old = self.variables[layer.after.bias]
            new = jnp.asarray((layer.after.sign * bias).reshape(old.shape), old.dtype)
            biases = {layer.after.bias: new}
        lost = np.linalg.norm(layer.kernel - kernel) / (np.linalg.norm(layer.kernel) or 1.0)
        return Fitted(
            value=value, error=layer.error(kernel, rows), kernel_error=float(lost), biases=biases
        )


def calibrate(
    graph: ChannelGraph,
    variables: Mapping[str, Any],
    calibration: Sequence[Any],
    kernels: Mapping[str, Kernel],
) -> Calibration:
    """Runs a network on a calibration batch.

    Args:
        graph: of the function.
        variables: its leaves, by path.
        calibration: its other arguments.
        kernels: those to learn about, by path.

    Raises:
        ValueError: if the arguments have other shapes or types than those that were traced, or are
            not finite.
    """
    inputs = [jnp.asarray(leaf) for leaf in jax.tree.leaves(calibration)]
    traced = graph.jaxpr.invars[len(variables) :]
    asked = [f"{dtype_of(v)}{list(shape_of(v))}" for v in traced]
    found = [f"{x.dtype}{list(x.shape)}" for x in inputs]
    if asked != found:
        raise InputError(
            f"calibration: the graph was traced with inputs {', '.join(asked) or 'none'}, found "
            f"{', '.join(found) or 'none'}; trace it with a batch of this size, or give another"
        )
    if not all(np.isfinite(x).all() for x in inputs if jnp.issubdtype(x.dtype, jnp.inexact)):
        raise InputError("calibration: the inputs hold values that are NaN or infinite")
    roles = {path: kernel.roles for path, kernel in kernels.items()}
    rows = inputs_of(graph, [*variables.values(), *inputs], roles)
    after = following(graph)
    layers = {}
    for path, own in rows.items():
        follows = after.get(path, Following())
        bias = np.asarray(variables[follows.bias], np.float64).ravel() if follows.bias else None
        layers[path] = Layer(
            roles=roles[path],
            kernel=matrix(variables[path], roles[path]),
            rows=own,
            bias=None if bias is None else follows.sign * bias,
            after=follows,
            once=len(kernels[path].uses) == 1,
        )
    return Calibration(graph=graph, variables=variables, inputs=inputs, layers=layers)


def _squared(weight: float, error: float) -> float:
    return weight * error**2


def _power(values: Sequence[Any]) -> float:
    """The sum of the squares of all finite numbers that are no integers."""
    floats = [np.asarray(v, np.float64) for v in values if jnp.issubdtype(v.dtype, jnp.inexact)]
    return sum(float(np.sum(np.square(v), where=np.isfinite(v))) for v in floats)


def matrix(kernel: Any, roles: str) -> Array:
    """The kernel with its axes of roles `s` and `i` as rows, the others as columns."""
    array = np.asarray(kernel).astype(np.float64)
    rows = [k for k, role in enumerate(roles) if role in "si"]
    columns = [k for k in range(array.ndim) if k not in rows]
    lengths = [math.prod(array.shape[k] for k in own) for own in (rows, columns)]
    return array.transpose([*rows, *columns]).reshape(lengths)


def response_ladder(layer: Layer, kernel: Any, kind: str, **shaping: Any) -> Ladder:
    """`options.ladder` with errors of what the layer answers.

    Of kind `svd` those of the reduced-rank regression, for all ranks at once; kernels of other
    kinds are decomposed at some rungs.
    """
    known = ladder(kernel, layer.roles, kind, **shaping)
    if kind == FITTED:
        found = layer.regression
        errors = np.sqrt(found.errors / (found.total or 1.0))
        ranks = {found.least_rank(float(e)) for e in np.geomspace(LEAST_ERROR, MOST_ERROR, RUNGS)}
        return replace(
            known,
            rungs=[
                ({"r": rank}, float(errors[rank])) for rank in sorted(ranks | {1}, reverse=True)
            ],
            error=lambda own: float(errors[min(own["r"], len(errors) - 1)]),
        )
    how = {**shaping, **({"iterations": CP_ITERATIONS} if kind == "cp" else {})}

    def lost(ranks: Mapping[str, int]) -> float:
        made = factorize_stack(kernel, layer.roles, kind, ranks=ranks, **how).value
        return layer.error(matrix(made.dense(), layer.roles))

    some = sorted({round(k) for k in np.linspace(0, len(known.rungs) - 1, DEAR_RUNGS)})
    return interpolated(known, [(known.rungs[k][0], lost(known.rungs[k][0])) for k in some])
