"""Trained ternary quantization: kernels of three values, two of which are learned.

Source: Zhu, Han, Mao, Dally 2017, "Trained ternary quantization", section 3. The derivative with
respect to Wn has the sign that follows from weights being -Wn; equation 7 leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt

from morph.kernels.compressed import Compressed, Shared
from regularizers.channels.graph import GRAPH, ChannelGraph
from regularizers.channels.parts import layer_name
from regularizers.checks import NAMES, checked, number
from regularizers.errors import InputError
from regularizers.patterns import matching

THRESHOLD = 0.05  # the paper's, for CIFAR-10 and ImageNet
ENDS = {"first": 0, "last": -1}


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def ternary(
    latent: Float[Array, "*shape"],
    positive: Float[Array, ""],
    negative: Float[Array, ""],
    threshold: float,
) -> Float[Array, "*shape"]:
    """Wp where a weight is above threshold * max|w|, -Wn where it is below minus that, else 0.

    Gradients (equations 7 and 8): Wp and Wn get the sums over their members; a weight gets its own
    times Wp, Wn, or 1 where it is zero.

    Args:
        latent: the weights.
        positive: Wp.
        negative: Wn.
        threshold: a share of the largest magnitude.
    """
    above, below = _members(latent, threshold)
    zero = jnp.zeros((), latent.dtype)
    return jnp.where(above, positive, jnp.where(below, -negative, zero))


def _members(latent: Any, threshold: float) -> tuple[Any, Any]:
    bound = threshold * jnp.max(jnp.abs(latent), initial=0.0)
    return latent > bound, latent < -bound


def _forward(latent: Any, positive: Any, negative: Any, threshold: float) -> tuple[Any, Any]:
    value = ternary(latent, positive, negative, threshold)
    return value, (latent, positive, negative)


def _backward(threshold: float, residuals: Any, g: Any) -> tuple[Any, Any, Any]:
    latent, positive, negative = residuals
    above, below = _members(latent, threshold)
    one = jnp.ones((), latent.dtype)
    scale = jnp.where(above, positive, jnp.where(below, negative, one))
    return g * scale, jnp.sum(g, where=above), -jnp.sum(g, where=below)


ternary.defvjp(_forward, _backward)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class Ternary(Compressed):
    """A kernel of three values, trained through weights of full precision.

    Attributes:
        latent: the weights; which value stands for each is read off anew at every use.
        positive: Wp.
        negative: Wn; the kernel holds -Wn.
        threshold: a share of the largest magnitude; weights within it are zero.
    """

    latent: Float[Array, "*shape"]
    positive: Float[Array, ""]
    negative: Float[Array, ""]
    threshold: float = field(default=THRESHOLD, metadata={"static": True})

    @classmethod
    def of(cls, kernel: Float[Array, "*shape"], threshold: float = THRESHOLD) -> Ternary:
        """The closest one: Wp and Wn are the means of what they stand for.

        A side without weights takes the other's mean; a kernel of zeros stays zero, with scales 1.
        """
        above, below = _members(kernel, threshold)
        sizes = jnp.abs(kernel)
        own = [jnp.sum(sizes, where=side) / jnp.maximum(side.sum(), 1) for side in (above, below)]
        other = jnp.maximum(*own)
        other = jnp.where(other > 0, other, jnp.ones_like(other))
        positive, negative = (jnp.where(one > 0, one, other) for one in own)
        return cls(latent=kernel, positive=positive, negative=negative, threshold=threshold)

    def dense(self) -> Array:
        """The kernel of three values."""
        return ternary(self.latent, self.positive, self.negative, self.threshold)

    @property
    def codes(self) -> UInt[Array, "*shape"]:
        """0 for zero, 1 for Wp, 2 for -Wn."""
        above, below = _members(self.latent, self.threshold)
        return (above + 2 * below).astype(jnp.uint8)

    def frozen(self) -> Shared:
        """The three values alone, bit for bit the same kernel."""
        return Shared(centroids=jnp.stack([self.positive, -self.negative]), codes=self.codes)


@checked(graph=GRAPH, kernels=NAMES, keep=NAMES, threshold=number(least=0.0, below=1.0))
def ternarized(
    graph: ChannelGraph,
    variables: Any,
    *,
    kernels: str | Sequence[str] = "*",
    keep: str | Sequence[str] = ("first", "last"),
    threshold: float = THRESHOLD,
) -> Any:
    """The variables with ternary kernels, to be trained: by `morph.compress.training.train`.

    From scratch: give it fresh variables; fine-tuned: trained ones.

    Args:
        graph: of the function, from `reg.trace_channels`.
        variables: what it was traced with, as arrays.
        kernels: patterns of layers or variables; of kernels that products and convolutions use.
        keep: which of them stay as they are: `first` and `last` in the order of the function, and
            patterns.
        threshold: a share of every kernel's largest magnitude, 0 to 1.

    Raises:
        ValueError: if a pattern matches nothing, nothing would be ternary, the threshold is no such
            share, or a kernel is not finite.

    Example:
        >>> import flax.linen as nn, regularizers as reg
        >>> model, x = nn.Sequential([nn.Dense(5), nn.Dense(4), nn.Dense(3)]), jnp.ones((1, 7))
        >>> variables = model.init(jax.random.key(0), x)
        >>> values = ternarized(reg.trace_channels(model.apply, variables, x), variables)
        >>> values["params"]["layers_1"]["kernel"].frozen().codes.dtype
        dtype('uint8')
    """
    order = list(dict.fromkeys(o.kernel for o in graph.operations if o.kernel))
    chosen = {order[i] for i in matching(kernels, order, "kernels")}
    kept = [keep] if isinstance(keep, str) else list(keep)
    chosen -= {order[ENDS[name]] for name in kept if name in ENDS}
    patterns = [name for name in kept if name not in ENDS]
    chosen -= {order[i] for i in matching(patterns, order, "keep")}
    if not chosen:
        layers = ", ".join(map(layer_name, order))
        raise InputError(f"no kernel would be ternary: keep={keep!r} names all of {layers}")
    leaves, treedef = graph.leaves(variables)
    found = []
    for path, leaf in leaves.items():
        if path in chosen and not bool(jnp.isfinite(leaf).all()):
            raise InputError(f"{path} holds values that are NaN or infinite")
        found.append(Ternary.of(leaf, threshold) if path in chosen else leaf)
    return jax.tree.unflatten(treedef, found)
