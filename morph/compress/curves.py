"""How much each layer can lose: accuracy against sparsity, one layer at a time.

Source: Han et al. 2015, section 3 and figure 6: without retraining.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from morph.compress.sparsities import Layerwise, given, kernels_of, name_of
from morph.compress.training import evaluated
from morph.kernels.compressed import unpacked
from morph.network import NETWORK, VARIABLES, Network, Variables
from morph.training.data import BATCH, Batch
from morph.training.evaluate import Evaluator
from morph.training.metrics import METRICS
from regularizers.checks import NAMES, all_of, checked, number, whole
from regularizers.errors import InputError

SPARSITIES = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.94, 0.97, 0.99)


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What a scan found.

    Attributes:
        accuracy: of the network as it was.
        sparsities: that every layer was pruned to, rising.
        accuracies: at these, by the path of the kernel that was pruned.
        examples: how many the accuracies are of.
    """

    accuracy: float
    sparsities: tuple[float, ...]
    accuracies: Mapping[str, tuple[float, ...]]
    examples: int

    def tolerable(self, loss: float = 0.01) -> dict[str, float]:
        """The largest sparsity of each layer, up to which accuracy falls by at most `loss`.

        Of the sparsities scanned; 0 where the first costs more.

        Raises:
            ValueError: if `loss` is negative.
        """
        if not loss >= 0.0:
            raise InputError(f"sensitivity: the loss of accuracy is {loss}; it must be 0 or more")
        least = self.accuracy - loss - 1e-9  # rounding of shares of examples
        found = {}
        for name, accuracies in self.accuracies.items():
            falls = np.flatnonzero(np.asarray(accuracies) < least)
            count = int(falls[0]) if len(falls) else len(accuracies)
            found[name] = self.sparsities[count - 1] if count else 0.0
        return found

    def distribution(self, loss: float = 0.01) -> Layerwise:
        """Layers keep what they need, scaled by one factor to the sparsity that is asked for.

        Args:
            loss: of accuracy, that pruning one layer alone may cost.

        Example:
            >>> scan.distribution(0.01)  # doctest: +SKIP
        """
        return given({name: 1.0 - sparsity for name, sparsity in self.tolerable(loss).items()})

    def __str__(self) -> str:
        """A table of accuracies in per cent."""
        head = ["sparsity", *(f"{sparsity:.0%}" for sparsity in self.sparsities)]
        rows = [
            [name, *(f"{100 * accuracy:.1f}" for accuracy in own)]
            for name, own in self.accuracies.items()
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in (head, *rows)
        )


@checked(
    network=NETWORK,
    variables=VARIABLES,
    data=BATCH,
    sparsities=all_of(
        number(least=0.0, below=1.0), "a sequence of numbers of at least 0 and below 1"
    ),
    patterns=NAMES,
    examples=whole(least=1),
)
def sensitivity(
    network: Network,
    variables: Variables,
    data: Batch,
    *,
    sparsities: Sequence[float] = SPARSITIES,
    patterns: Collection[str] | None = None,
    examples: int = 2000,
) -> Sensitivity:
    """Prunes one kernel at a time, and counts what the network still gets right.

    The network is compiled once, whatever the layers and sparsities.

    Args:
        network: of variables that may hold compressed kernels; they are looked at as dense ones.
        variables: of the trained network.
        data: to count on; of the training set, to choose sparsities by it.
        sparsities: to prune to.
        patterns: which kernels, as of `pruned`; all if None.
        examples: how many of `data`, evenly spaced; all if there are fewer.

    Raises:
        ValueError: if a sparsity is none, there are no data, or a pattern matches nothing.
    """
    points = tuple(sorted(set(sparsities)))
    if not data.examples:
        raise InputError("sensitivity: the data hold no examples")
    chosen = np.linspace(0, data.examples - 1, min(examples, data.examples)).astype(int)
    sample = jax.tree.map(np.asarray, data).rows(chosen)
    evaluator = Evaluator(sample, {"accuracy": METRICS["accuracy"]})
    predict = jax.jit(evaluated(network).predict)
    whole = unpacked(variables)

    def accuracy(params: Any) -> float:
        return evaluator.measure(predict, {**whole, "params": params})["accuracy"]

    def without(name: str, kernel: np.ndarray, order: np.ndarray, sparsity: float) -> Any:
        sparse = kernel.copy()
        sparse.flat[order[round((1.0 - sparsity) * kernel.size) :]] = 0
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: sparse if name_of(path) == name else leaf, whole["params"]
        )

    found = {}
    for name, leaf in kernels_of(whole["params"], patterns).items():
        kernel = np.asarray(leaf)
        order = np.argsort(-np.abs(kernel), axis=None, kind="stable")
        found[name] = tuple(accuracy(without(name, kernel, order, point)) for point in points)
    return Sensitivity(
        accuracy=accuracy(whole["params"]),
        sparsities=points,
        accuracies=found,
        examples=len(chosen),
    )
