"""NNX layers whose kernels are tensor networks from the start; see `linen_layers`.

A kernel is one `nnx.Param` that holds a `Factorized` value: optimisers, checkpoints and
transformations go through it to the cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

import flax.linen as nn
import jax.numpy as jnp
from flax import nnx
from flax.typing import PaddingLike, PrecisionLike

from morph.kernels.formats import CORES
from morph.tensorize.flax.apply import (
    Cores,
    Initializer,
    Rank,
    conv_roles,
    evaluated,
)
from regularizers.errors import InputTypeError


class Options(TypedDict, total=False):
    """Arguments that mean what they mean to `nnx.Linear` and `nnx.Conv`."""

    use_bias: bool
    dtype: Any
    param_dtype: Any
    precision: PrecisionLike
    bias_init: Initializer


class ConvOptions(Options, total=False):
    """Arguments that mean what they mean to `nnx.Conv`; there are no groups."""

    padding: PaddingLike
    input_dilation: int | Sequence[int] | None
    kernel_dilation: int | Sequence[int] | None


class FactorizedLayer(nnx.Module):
    """A kernel, a bias, and what Flax's layer does with them.

    Attributes:
        kernel: holds a `Factorized`.
        bias: None without one.
        layer: Linen's layer of the same arguments, which knows what to do with both.
        mode: see `tensorized`.
    """

    def __init__(
        self,
        layer: nn.Dense | nn.Conv,
        cores: Cores,
        shape: tuple[int, ...],
        *,
        mode: str,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the kernel and the bias.

        Args:
            layer: Linen's, not bound.
            cores: the initializer of the kernel.
            shape: of the kernel.
            mode: see `tensorized`.
            rngs: its stream `params` is drawn from.

        Raises:
            ValueError: if the rank or the factors do not fit the kernel; see `Cores`.
        """
        self.kernel = nnx.Param(cores(rngs.params(), shape, layer.param_dtype))
        self.bias: nnx.Param[Any] | None = nnx.data(None)
        if layer.use_bias:
            self.bias = nnx.Param(layer.bias_init(rngs.params(), shape[-1:], layer.param_dtype))
        self.layer, self.mode = layer, mode

    def __call__(self, inputs: Any) -> Any:
        """What Flax's layer makes of its inputs.

        Args:
            inputs: [..., in]; of a convolution [..., *space, in].

        Returns:
            The same with the output's features last.
        """
        params = {"kernel": self.kernel.get_value()}
        if self.bias is not None:
            params["bias"] = self.bias.get_value()
        return evaluated(self.layer, self.mode)({"params": params}, inputs)


class SVDDense(FactorizedLayer):
    """`nnx.Linear` with a kernel of two factors; the bond is `r`.

    Args:
        in_features: of the input.
        out_features: of the output.
        rank: of the bond.
        kernel_init: draws dense kernels, whose mean square this one gets; None: `nnx.Linear`'s own.
        mode: see `tensorized`.
        rngs: its stream `params` is drawn from.
        **options: as of `nnx.Linear`, those of `Options`.

    Example:
        >>> layer = SVDDense(784, 512, rank=8, rngs=nnx.Rngs(0))
        >>> layer.kernel.get_value().parameters
        10368
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rank: Rank,
        kernel_init: Initializer | None = None,
        mode: str = "factorized",
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        layer = nn.Dense(out_features, **_known(options, Options))
        cores = Cores(kind="svd", roles="io", rank=rank, like=kernel_init)
        super().__init__(layer, cores, (in_features, out_features), mode=mode, rngs=rngs)


class TTDense(FactorizedLayer):
    """`nnx.Linear` with a kernel that is a tensor train of matrices, or MPO; bonds `r1`, `r2`, ...

    Args:
        in_features: of the input.
        out_features: of the output.
        rank: of all bonds, or of each by name; see `Cores`.
        cores: how many.
        factors: of the input and of the output, as many of each; as equal as they come if None.
        kernel_init: draws dense kernels, whose mean square this one gets; None: `nnx.Linear`'s own.
        mode: see `tensorized`.
        rngs: its stream `params` is drawn from.
        **options: as of `nnx.Linear`, those of `Options`.

    Example:
        >>> layer = TTDense(784, 512, rank=1, factors=((28, 28), (32, 16)), rngs=nnx.Rngs(0))
        >>> layer.kernel.get_value().parameters
        1344
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rank: Rank,
        cores: int = CORES,
        factors: Sequence[Sequence[int]] | None = None,
        kernel_init: Initializer | None = None,
        mode: str = "factorized",
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        layer = nn.Dense(out_features, **_known(options, Options))
        initializer = Cores(
            kind="tt", roles="io", rank=rank, like=kernel_init, cores=cores, factors=factors
        )
        super().__init__(layer, initializer, (in_features, out_features), mode=mode, rngs=rngs)


class FactorizedConv(FactorizedLayer):
    """`nnx.Conv` with a factorized kernel of one of the formats.

    Args:
        kind: of the format.
        in_features: of the input.
        out_features: of the output.
        kernel_size: of the window.
        strides: of the window.
        rank: of all bonds, or of each by name; see `Cores`.
        kernel_init: draws dense kernels, whose mean square this one gets; None: `nnx.Conv`'s own.
        mode: see `tensorized`.
        rngs: its stream `params` is drawn from.
        **options: as of `nnx.Conv`, those of `ConvOptions`.
    """

    def __init__(
        self,
        kind: str,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] | None = 1,
        *,
        rank: Rank,
        kernel_init: Initializer | None = None,
        mode: str = "factorized",
        rngs: nnx.Rngs,
        **options: Unpack[ConvOptions],
    ) -> None:
        window = (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)
        layer = nn.Conv(out_features, window, strides=strides, **_known(options, ConvOptions))
        cores = Cores(kind=kind, roles=conv_roles(window), rank=rank, like=kernel_init)
        shape = (*window, in_features, out_features)
        super().__init__(layer, cores, shape, mode=mode, rngs=rngs)


class TuckerConv(FactorizedConv):
    """`nnx.Conv` with a small convolution between a factor of the input and one of the output.

    Its bonds are `r_in` and `r_out`; of full Tucker `r_s0`, `r_s1`, `r_i0` and `r_o0`.

    Args:
        *args: of `FactorizedConv`, without the kind.
        full: a factor for each axis of the window too.
        **kwargs: of `FactorizedConv`.

    Example:
        >>> layer = TuckerConv(16, 32, (3, 3), rank={"r_in": 4, "r_out": 8}, rngs=nnx.Rngs(0))
        >>> layer.kernel.get_value().parameters
        608
    """

    def __init__(self, *args: Any, full: bool = False, **kwargs: Any) -> None:
        super().__init__("tucker" if full else "tucker2", *args, **kwargs)


class CPConv(FactorizedConv):
    """`nnx.Conv` with a sum of rank-one kernels: 1x1, depthwise along each axis, 1x1; bond `r`.

    Args:
        *args: of `FactorizedConv`, without the kind.
        **kwargs: of `FactorizedConv`.

    Example:
        >>> layer = CPConv(16, 32, (3, 3), rank=6, rngs=nnx.Rngs(0))
        >>> layer.kernel.get_value().parameters
        324
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("cp", *args, **kwargs)


class TTEmbed(nnx.Module):
    """`nnx.Embed` with a table that is a tensor train of matrices; bonds `r1`, `r2`, ...

    Args:
        num_embeddings: rows of the table.
        features: of the output.
        rank: of all bonds, or of each by name; see `Cores`.
        cores: how many.
        factors: of the rows and of the features, as many of each; as equal as they come if None.
        dtype: of the output; that of the cores if None.
        param_dtype: of the cores.
        embedding_init: draws dense tables, whose mean square this one gets; None: `nnx.Embed`'s.
        mode: see `tensorized`.
        rngs: its stream `params` is drawn from.

    Example:
        >>> layer = TTEmbed(1000, 64, rank=8, rngs=nnx.Rngs(0))
        >>> layer.embedding.get_value().shape
        (1000, 64)
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        rank: Rank,
        cores: int = CORES,
        factors: Sequence[Sequence[int]] | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        embedding_init: Initializer | None = None,
        mode: str = "factorized",
        rngs: nnx.Rngs,
    ) -> None:
        initializer = Cores(
            kind="tt",
            roles="io",
            rank=rank,
            like=embedding_init,
            fan_in="o",  # as `nnx.Embed` has it: a row has norm 1
            cores=cores,
            factors=factors,
        )
        shape = (num_embeddings, features)
        self.embedding = nnx.Param(initializer(rngs.params(), shape, param_dtype))
        self.layer = nn.Embed(num_embeddings, features, dtype=dtype, param_dtype=param_dtype)
        self.mode = mode

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
        variables = {"params": {"embedding": self.embedding.get_value()}}
        return evaluated(self.layer, self.mode)(variables, inputs, method=method)


def _known(options: Any, kind: type[Options]) -> Any:
    """The options, none of which Flax's layer may take where this one does not."""
    if unknown := sorted(options.keys() - kind.__annotations__.keys()):
        known = ", ".join(kind.__annotations__)
        raise InputTypeError(
            f"{', '.join(unknown)} is not an option of this layer; it takes {known}."
        )
    return options
