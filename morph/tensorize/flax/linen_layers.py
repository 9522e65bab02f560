"""Linen layers whose kernels are tensor networks from the start.

Each stands where Flax's layer of the same arguments stood, and asks for a `rank`. Its kernel is one
`Factorized` value under the same name, so the variables look like those that
`TensorizePlan.factorize` makes of a dense network's. What else a layer does, its padding or its
types, is left to Flax's own layer, evaluated by `tensorized`.

Sources: Novikov et al. 2015, "Tensorizing neural networks" (TT); Kim et al. 2015 (Tucker-2);
Lebedev et al. 2014 (CP); Khrulkov et al. 2019, "Tensorized embedding layers".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import PaddingLike, PrecisionLike

from morph.kernels.formats import CORES
from morph.tensorize.flax.apply import (
    Cores,
    Initializer,
    Rank,
    conv_roles,
    evaluated,
)


class FactorizedDense(nn.Module):
    """What dense layers share.

    Attributes:
        features: of the output.
        use_bias: as of `nn.Dense`; so are `dtype`, `param_dtype`, `precision` and `bias_init`.
        kernel_init: draws dense kernels, whose mean square this one gets; None: `nn.Dense`'s own.
        rank: of all bonds, or of each by name; see `Cores`.
        mode: see `tensorized`.
    """

    features: int
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer | None = None
    bias_init: Initializer = nn.initializers.zeros_init()
    rank: Rank = field(kw_only=True)
    mode: str = field(default="factorized", kw_only=True)

    @nn.compact
    def __call__(self, inputs: Any) -> Any:
        """The product with the last axis; all others are batch axes.

        Args:
            inputs: [..., in].

        Returns:
            [..., features].

        Raises:
            ValueError: if the rank or the factors do not fit the kernel; see `Cores`.
        """
        layer = nn.Dense(
            self.features,
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            precision=self.precision,
            parent=None,
        )
        return _evaluate(self, layer, self._cores(), (inputs.shape[-1], self.features), inputs)

    def _cores(self) -> Cores:
        """The initializer of the kernel."""
        raise NotImplementedError


class SVDDense(FactorizedDense):
    """`nn.Dense` with a kernel of two factors; the bond is `r`.

    Example:
        >>> layer = SVDDense(512, rank=8)
        >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 784)))
        >>> variables["params"]["kernel"].parameters
        10368
    """

    def _cores(self) -> Cores:
        return Cores(kind="svd", roles="io", rank=self.rank, like=self.kernel_init)


class TTDense(FactorizedDense):
    """`nn.Dense` with a kernel that is a tensor train of matrices, or MPO; bonds `r1`, `r2`, ...

    Attributes:
        cores: how many.
        factors: of the input and of the output, as many of each; as equal as they come if None.

    Example:
        >>> layer = TTDense(512, rank=1, factors=((28, 28), (32, 16)))
        >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 784)))
        >>> variables["params"]["kernel"].parameters
        1344
    """

    cores: int = field(default=CORES, kw_only=True)
    factors: Sequence[Sequence[int]] | None = field(default=None, kw_only=True)

    def _cores(self) -> Cores:
        return Cores(
            kind="tt",
            roles="io",
            rank=self.rank,
            like=self.kernel_init,
            cores=self.cores,
            factors=self.factors,
        )


class FactorizedConv(nn.Module):
    """What convolutions share; there are no groups.

    Attributes:
        features: of the output.
        kernel_size: of the window; so are `strides`, `padding`, `input_dilation`,
            `kernel_dilation`, `use_bias`, `dtype`, `param_dtype`, `precision` and `bias_init` as
            of `nn.Conv`.
        kernel_init: draws dense kernels, whose mean square this one gets; None: `nn.Conv`'s own.
        rank: of all bonds, or of each by name; see `Cores`.
        mode: see `tensorized`.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] | None = 1
    padding: PaddingLike = "SAME"
    input_dilation: int | Sequence[int] | None = 1
    kernel_dilation: int | Sequence[int] | None = 1
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer | None = None
    bias_init: Initializer = nn.initializers.zeros_init()
    rank: Rank = field(kw_only=True)
    mode: str = field(default="factorized", kw_only=True)

    @nn.compact
    def __call__(self, inputs: Any) -> Any:
        """The convolution.

        Args:
            inputs: [..., *space, in].

        Returns:
            [..., *space, features].

        Raises:
            ValueError: if the rank does not fit the kernel; see `Cores`.
        """
        size = self.kernel_size
        window = (size,) if isinstance(size, int) else tuple(size)
        layer = nn.Conv(
            self.features,
            window,
            strides=self.strides,
            padding=self.padding,
            input_dilation=self.input_dilation,
            kernel_dilation=self.kernel_dilation,
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            precision=self.precision,
            parent=None,
        )
        cores = Cores(
            kind=self._kind(), roles=conv_roles(window), rank=self.rank, like=self.kernel_init
        )
        shape = (*window, inputs.shape[-1], self.features)
        return _evaluate(self, layer, cores, shape, inputs)

    def _kind(self) -> str:
        """The kernel's format."""
        raise NotImplementedError


class TuckerConv(FactorizedConv):
    """`nn.Conv` with a small convolution between a factor of the input and one of the output.

    Attributes:
        full: a factor for each axis of the window too.

    Its bonds are `r_in` and `r_out`; of full Tucker `r_s0`, `r_s1`, `r_i0` and `r_o0`.

    Example:
        >>> layer = TuckerConv(32, (3, 3), rank={"r_in": 4, "r_out": 8})
        >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 8, 8, 16)))
        >>> variables["params"]["kernel"].parameters
        608
    """

    full: bool = field(default=False, kw_only=True)

    def _kind(self) -> str:
        return "tucker" if self.full else "tucker2"


class CPConv(FactorizedConv):
    """`nn.Conv` with a sum of rank-one kernels: 1x1, depthwise along each axis, 1x1; bond `r`.

    Example:
        >>> layer = CPConv(32, (3, 3), rank=6)
        >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 8, 8, 16)))
        >>> variables["params"]["kernel"].parameters
        324
    """

    def _kind(self) -> str:
        return "cp"


class TTEmbed(nn.Module):
    """`nn.Embed` with a table that is a tensor train of matrices; bonds `r1`, `r2`, ...

    Attributes:
        num_embeddings: rows of the table.
        features: of the output; so are `dtype` and `param_dtype` as of `nn.Embed`.
        embedding_init: draws dense tables, whose mean square this one gets; None: `nn.Embed`'s own.
        rank: of all bonds, or of each by name; see `Cores`.
        cores: how many.
        factors: of the rows and of the features, as many of each; as equal as they come if None.
        mode: see `tensorized`.

    Example:
        >>> layer = TTEmbed(1000, 64, rank=8)
        >>> variables = layer.init(jax.random.key(0), jnp.arange(3))
        >>> variables["params"]["embedding"].shape
        (1000, 64)
    """

    num_embeddings: int
    features: int
    dtype: Any = None
    param_dtype: Any = jnp.float32
    embedding_init: Initializer | None = None
    rank: Rank = field(kw_only=True)
    cores: int = field(default=CORES, kw_only=True)
    factors: Sequence[Sequence[int]] | None = field(default=None, kw_only=True)
    mode: str = field(default="factorized", kw_only=True)

    def setup(self) -> None:
        """Makes the table."""
        cores = Cores(
            kind="tt",
            roles="io",
            rank=self.rank,
            like=self.embedding_init,
            fan_in="o",  # as `nn.Embed` has it: a row has norm 1
            cores=self.cores,
            factors=self.factors,
        )
        shape = (self.num_embeddings, self.features)
        self.embedding: Any = self.param("embedding", cores, shape, self.param_dtype)

    def __call__(self, inputs: Any) -> Any:
        """The rows of some numbers.

        Args:
            inputs: whole numbers, of any shape.

        Returns:
            [*shape, features].
        """
        return self._evaluate(inputs, "__call__")

    def attend(self, query: Any) -> Any:
        """The products with all rows, e.g. logits.

        Args:
            query: [..., features].

        Returns:
            [..., num_embeddings].
        """
        return self._evaluate(query, "attend")

    def _evaluate(self, inputs: Any, method: str) -> Any:
        layer = nn.Embed(
            self.num_embeddings,
            self.features,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            parent=None,
        )
        variables = {"params": {"embedding": self.embedding}}
        return evaluated(layer, self.mode)(variables, inputs, method=method)


def _evaluate(
    module: FactorizedDense | FactorizedConv,
    layer: nn.Module,
    cores: Cores,
    shape: tuple[int, ...],
    inputs: Any,
) -> Any:
    """What a layer makes of its inputs with the variables of a module."""
    params = {"kernel": module.param("kernel", cores, shape, module.param_dtype)}
    if module.use_bias:
        params["bias"] = module.param(
            "bias", module.bias_init, (module.features,), module.param_dtype
        )
    return evaluated(layer, module.mode)({"params": params}, inputs)
