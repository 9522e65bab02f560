"""What the layers of Linen and NNX share: cores to start with, and their evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from morph.kernels.factorized import Factorized
from morph.kernels.formats import CORES, FORMATS
from morph.kernels.initial import initial_variance, random_factorized
from morph.kernels.ranks import attainable, choose_ranks
from morph.kernels.tensorized import tensorized
from regularizers.errors import InputError

Rank: TypeAlias = int | Mapping[str, int]
Initializer: TypeAlias = Callable[..., Any]  # of Flax: (key, shape, dtype) to an array
SAMPLES = 2**16  # that the mean square of an initializer is estimated from, at least


@dataclass(frozen=True, kw_only=True)
class Cores:
    """An initializer, in Flax's sense, of a factorized kernel.

    Attributes:
        kind: of its format; see `morph.kernels.formats`.
        roles: of the kernel's axes.
        rank: of every bond, cut to what the other axes of a core can tell apart; or one for each
            bond by name, as {"r_in": 4, "r_out": 5}, which has to be attainable.
        like: an initializer of dense kernels; the kernel gets the mean square of what it draws. If
            it draws zeros, the last core is zero and the others are not, so that all can be
            trained. None: `fan_in`.
        fan_in: the roles of the axes whose lengths' product is one over the kernel's variance.
        cores: of a tensor train.
        factors: of a tensor train; see `formats.tt`.
    """

    kind: str
    roles: str
    rank: Rank
    like: Initializer | None = None
    fan_in: str = "si"
    cores: int = CORES
    factors: Sequence[Sequence[int]] | None = None

    def __call__(self, key: Any, shape: Sequence[int], dtype: Any = jnp.float32) -> Factorized:
        """Draws the cores.

        Args:
            key: a random key of JAX.
            shape: of the dense kernel.
            dtype: of the cores.

        Raises:
            ValueError: if the rank is not a whole number of at least 1, is not attainable, or is
                for other bonds; if the factors do not multiply to the shape.
        """
        own = {"cores": self.cores, "factors": self.factors} if self.kind == "tt" else {}
        format, most = FORMATS[self.kind](shape, self.roles, **own)
        if self.rank is None or isinstance(self.rank, str):
            raise InputError(
                f"rank of a layer is a number, or one for each of {list(format.bonds)}, found "
                f"{self.rank!r}; ranks from data are for kernels that exist, see `factorize`."
            )
        wanted, _ = choose_ranks(format, {}, self.rank)
        ranks = attainable(format, most, wanted)
        if isinstance(self.rank, Mapping) and ranks != wanted:
            raise InputError(
                f"ranks {wanted} are more than a {self.kind} kernel of shape {list(shape)} can "
                f"use, which is {ranks}; ask for these, or for one number, which is clipped."
            )
        usual = initial_variance(shape, "".join("oi"[role in self.fan_in] for role in self.roles))
        variance = usual if self.like is None else mean_square(self.like, tuple(shape))
        value = random_factorized(key, format, {**most, **ranks}, variance or usual, dtype)
        if variance:
            return value
        return replace(value, cores=(*value.cores[:-1], jnp.zeros_like(value.cores[-1])))


@lru_cache(maxsize=256)
def mean_square(initializer: Initializer, shape: tuple[int, ...]) -> float:
    """The mean of the squares of what an initializer of Flax draws, by drawing.

    Example:
        >>> round(mean_square(nn.initializers.lecun_normal(), (50, 8)), 3)
        0.02
    """
    with jax.ensure_compile_time_eval():  # also where the caller is being traced
        keys = jax.random.split(jax.random.key(0), -(-SAMPLES // math.prod(shape)))
        drawn = jax.vmap(lambda key: initializer(key, shape, jnp.float32))(keys)
        return float(jnp.mean(jnp.square(drawn)))


@lru_cache(maxsize=1024)
def evaluated(layer: nn.Module, mode: str) -> Callable[..., Any]:
    """The `apply` of a layer of Flax for a factorized kernel; kept, and its traces with it.

    Args:
        layer: one of Linen's own, not bound. What it does with the kernel is found in it.
        mode: see `tensorized`.
    """
    return tensorized(layer.apply, mode=mode)


def conv_roles(kernel_size: Sequence[int]) -> str:
    """Of a kernel [*window, in, out]."""
    return "s" * len(kernel_size) + "io"
