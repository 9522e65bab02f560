"""What a network says on the test set, example by example: for the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from morph.errors import DataError
from morph.network import Network, Variables
from morph.training.data import Batch, as_batch, first_of

MOST_CLASSES = 20  # that a table shows
SAMPLES, LENGTH = 3, 32  # sequences, and tokens of each
_ROWS = 500  # of a whole test set, at a time


def tested(network: Network, variables: Variables, test: Batch | Iterable[Batch]) -> dict[str, Any]:
    """Answers on the test set, counted or as they are.

    Args:
        network: at the widths of the variables.
        variables: its own.
        test: the test set: whole, or what gives its batches.

    Returns:
        Of a classifier with few classes `confusion`, [classes, classes]: how many examples of each
        class (rows) were given each class (columns). Of a network that gives logits for every token
        `samples`: the tokens that it was `given` and those that it `predicted`. Else nothing, and
        nothing in a run of several processes, of which one alone cannot run it.
    """
    if jax.process_count() > 1:
        return {}
    predict = jax.jit(network.predict)
    confusion: np.ndarray | None = None
    for batch in _batches(test):
        logits = predict(variables, batch.x)
        if not isinstance(logits, jax.Array):
            return {}
        labels = np.asarray(batch.y) if jax.tree_util.all_leaves([batch.y]) else None
        if logits.ndim == 3:
            return _samples(np.asarray(logits.argmax(-1)), batch.x)
        classes = logits.shape[-1] if logits.ndim == 2 else 0
        if labels is None or labels.ndim != 1 or not 1 < classes <= MOST_CLASSES:
            return {}
        if not np.issubdtype(labels.dtype, np.integer):
            return {}
        confusion = np.zeros((classes, classes), int) if confusion is None else confusion
        known = (labels >= 0) & (labels < classes)
        np.add.at(confusion, (labels[known], np.asarray(logits.argmax(-1))[known]), 1)
    return {} if confusion is None else {"confusion": confusion.tolist()}


def prompts(
    network: Network, variables: Any, test: Batch | Iterable[Batch]
) -> Int[np.ndarray, "n t"]:
    """The beginning of the first test sequences, for `written`.

    Args:
        network: that tells the next token.
        variables: its own, or abstract ones.
        test: the test set.

    Raises:
        DataError: if inputs are no tokens, or outputs no logits of each next one.
    """
    x = first_of(test, "test set").x
    if getattr(x, "ndim", 0) != 2 or not np.issubdtype(x.dtype, np.integer):
        raise DataError(
            "--text_of is for networks that are given tokens, integers [n, t]; the test set has "
            f"inputs {jax.tree.map(np.shape, x)}"
        )
    given = np.asarray(x[:SAMPLES, : LENGTH // 2], np.int32)
    room = jax.ShapeDtypeStruct((len(given), given.shape[1] + LENGTH), given.dtype)
    shape = getattr(jax.eval_shape(network.predict, variables, room), "shape", ())
    if len(shape) != 3 or shape[:2] != room.shape:
        raise DataError(
            "--text_of is for networks that give logits of each next token, [n, t, vocabulary]; "
            f"of tokens {list(room.shape)} this one gives {list(shape) or 'no array'}"
        )
    return given


def written(
    networks: Mapping[str, tuple[Network, Variables]],
    given: Int[np.ndarray, "n t"],
    text_of: Callable[[np.ndarray], str],
) -> dict[str, Any]:
    """How networks go on after some tokens, with the most likely token each time, as texts.

    Args:
        networks: by name, at the widths of their variables; no token sees those behind it.
        given: of `prompts`.
        text_of: tokens -> the text that they are.

    Returns:
        `texts`: of each prompt what was `given`, and by each network's name what follows.
    """
    found = [{"given": text_of(row)} for row in given]
    for name, (network, variables) in networks.items():
        for told, row in zip(found, _continued(network, variables, given), strict=True):
            told[name] = text_of(row)
    return {"texts": found}


def _continued(
    network: Network, variables: Variables, given: Int[np.ndarray, "n t"]
) -> Int[np.ndarray, "n steps"]:
    length = given.shape[1]

    def step(tokens: Any, position: Any) -> tuple[Any, None]:
        likeliest = network.predict(variables, tokens)[:, position - 1].argmax(-1)
        return tokens.at[:, position].set(likeliest.astype(tokens.dtype)), None

    def whole(tokens: Any) -> Any:
        return jax.lax.scan(step, tokens, length + jnp.arange(LENGTH))[0]

    room = jnp.pad(jnp.asarray(given), ((0, 0), (0, LENGTH)))
    return np.asarray(jax.jit(whole)(room)[:, length:])


def _batches(test: Batch | Iterable[Batch]) -> Iterable[Batch]:
    if not isinstance(test, Batch):
        return map(as_batch, test)
    return (test.rows(slice(i, i + _ROWS)) for i in range(0, test.examples, _ROWS))


def _samples(predicted: np.ndarray, x: Any) -> dict[str, Any]:
    """The first sequences, if inputs are tokens."""
    given = [
        np.asarray(leaf)
        for leaf in jax.tree.leaves(x)
        if np.shape(leaf) == predicted.shape and np.issubdtype(np.asarray(leaf).dtype, np.integer)
    ]
    if not given:
        return {}
    rows = zip(given[0][:SAMPLES, :LENGTH], predicted[:SAMPLES, :LENGTH], strict=True)
    return {"samples": [{"given": a.tolist(), "predicted": b.tolist()} for a, b in rows]}
