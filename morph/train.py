"""One jitted training step, batches that any step number can recompute, and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state
from jaxtyping import Array, Float, Int

from morph.network import Network, Variables


class TrainingDivergedError(FloatingPointError):
    """The loss is not a number any more."""


class TrainState(train_state.TrainState):
    """Flax's train state with the collections beside `params` (batch statistics and the like)."""

    collections: Any = None

    @property
    def variables(self) -> Variables:
        """All collections, as the network takes them."""
        return {"params": self.params, **self.collections}

    @classmethod
    def of(
        cls, network: Network, variables: Variables, tx: optax.GradientTransformation
    ) -> TrainState:
        """A state at step 0."""
        collections = {name: value for name, value in variables.items() if name != "params"}
        return cls.create(
            apply_fn=network.forward, params=variables["params"], tx=tx, collections=collections
        )


class Batch(NamedTuple):
    """Inputs and labels, numpy or JAX."""

    x: Any  # [n, ...]
    y: Any  # int [n]


def cross_entropy(logits: Float[Array, "n k"], y: Int[Array, " n"]) -> Float[Array, ""]:
    """Mean softmax cross-entropy, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


Loss = Callable[[Any, Any], Float[Array, ""]]


def make_step(
    loss: Loss = cross_entropy,
) -> Callable[[TrainState, Batch, Any, Any], tuple[TrainState, Float[Array, ""]]]:
    """The jitted step `(state, data, index, key) -> (state, loss)`.

    Args:
        loss: `(logits, y) -> scalar`.

    Returns:
        The step. `data` stays on the device, `index` int [batch] picks from it; the key makes the
        step's randomness together with the state's step number. The state is donated.
    """

    @partial(jax.jit, donate_argnums=0)
    def step(
        state: TrainState, data: Batch, index: Any, key: Any
    ) -> tuple[TrainState, Float[Array, ""]]:
        x, y = data.x[index], data.y[index]
        own = jax.random.fold_in(key, state.step)

        def objective(params: Any) -> tuple[Float[Array, ""], Variables]:
            logits, updates = state.apply_fn({"params": params, **state.collections}, x, own)
            return loss(logits, y), updates

        (value, updates), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        state = state.apply_gradients(grads=grads)
        return state.replace(collections={**state.collections, **updates}), value

    return step


def batches(
    examples: int, batch_size: int, *, seed: int, start: int
) -> Iterator[Int[np.ndarray, " batch"]]:
    """Endless shuffled batches, from step `start` on; the same for the same seed, always.

    Every epoch is a new permutation; its last, incomplete batch is left out.
    """
    size = min(batch_size, examples)
    per_epoch = examples // size
    epoch, offset = divmod(start, per_epoch)
    while True:
        order = np.random.default_rng((seed, epoch)).permutation(examples)
        for i in range(offset, per_epoch):
            yield order[i * size : (i + 1) * size]
        epoch, offset = epoch + 1, 0


@dataclass(frozen=True)
class Evaluator:
    """Runs a network over a whole data set, in batches of one compiled size."""

    data: Batch
    batch_size: int = 500

    def logits(self, predict: Callable[[Variables, Any], Any], variables: Variables) -> np.ndarray:
        """The logits [examples, classes]; `predict` is best jitted by who calls this often."""
        count = len(self.data.x)
        size = min(self.batch_size, count)
        parts = []
        for start in range(0, count, size):
            index = np.minimum(np.arange(start, start + size), count - 1)  # pads the last batch
            parts.append(np.asarray(predict(variables, self.data.x[index]))[: count - start])
        return np.concatenate(parts)

    def accuracy(self, logits: Float[np.ndarray, "n k"]) -> float:
        """The share of examples whose largest logit is the label's."""
        return float((logits.argmax(-1) == np.asarray(self.data.y)).mean())


def check_finite(value: float, *, step: int, phase: str) -> None:
    """Raises if a loss is not finite.

    Raises:
        TrainingDivergedError: with the step and what to try.
    """
    if not np.isfinite(value):
        raise TrainingDivergedError(
            f"the loss is {value} at step {step} of phase {phase!r}. Try a smaller learning rate, "
            "a longer warm-up, gradient clipping, or look for NaN and huge values in the data."
        )


def momentum_sgd(
    learning_rate: float, steps: int, *, weight_decay: float = 1e-4, warmup: int | None = None
) -> optax.GradientTransformation:
    """Nesterov momentum 0.9, linear warm-up, cosine decay; weight decay on kernels only."""
    ramp = min(steps // 10, 500) if warmup is None else warmup
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, ramp, max(steps, ramp + 1))
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_kernels),
        optax.sgd(schedule, momentum=0.9, nesterov=True),
    )


def _kernels(params: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) > 1, params)
