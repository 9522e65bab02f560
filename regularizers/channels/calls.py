"""From a user's call `fn(variables, *inputs, **static)` to a flat function of arrays."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from regularizers.channels.flax_values import framework_of, keyed_leaves
from regularizers.errors import InputError, InputTypeError
from regularizers.primitives import jaxprs


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call whose leaves are either arrays, traced as inputs, or static values.

    Attributes:
        fn: the user's function.
        paths: the path of every leaf of the variables.
        variables: those leaves, abstract.
        trained: whether each is a parameter: in the collection `params` if there is one.
        arrays: the arrays among the other arguments.
    """

    fn: Callable[..., Any]
    paths: tuple[str, ...]
    variables: tuple[jax.ShapeDtypeStruct, ...]
    trained: tuple[bool, ...]
    arrays: tuple[Any, ...]
    _variables_tree: Any
    _rest_tree: Any
    _rest: tuple[Any, ...]  # static leaves; _ARRAY where an array goes

    @property
    def structs(self) -> list[jax.ShapeDtypeStruct]:
        """All traced arguments of `flat`, abstract: the variables, then the other arrays."""
        return [*self.variables, *map(abstract, self.arrays)]

    def flat(self, *arrays: Any) -> Any:
        """The user's function of flat arrays."""
        n = len(self.variables)
        rest = iter(arrays[n:])
        leaves = [next(rest) if leaf is _ARRAY else leaf for leaf in self._rest]
        inputs, static = jax.tree.unflatten(self._rest_tree, leaves)
        variables = jax.tree.unflatten(self._variables_tree, arrays[:n])
        return self.fn(variables, *inputs, **static)

    def trace(self, structs: Sequence[Any]) -> tuple[jaxprs.ClosedJaxpr, Any]:
        """The jaxpr of `flat` at some shapes, and the tree of abstract outputs.

        Raises:
            TypeError: if Python code in the function depends on the value of an array.
            ValueError: if it needs the other devices of a `pmap`.
        """
        try:
            return jaxprs.trace(self.flat, *structs)
        except NameError as error:
            if "unbound axis name" not in str(error):
                raise  # the user's own code misses a name
            raise InputError(
                f"cannot trace {getattr(self.fn, '__qualname__', self.fn)!r} here: it talks to "
                f"other devices ({error}), as batch norm with an axis_name does in train mode. "
                "Trace it in evaluation mode, e.g. reg.trace_channels(model.apply, variables, x, "
                "train=False): widths are the same. In train mode call what morph.compact gives "
                "where the model would be called: inside the pmap, vmap or shard_map."
            ) from error
        except NEEDS_VALUES as error:
            cause = str(error).strip().split("\n")[0]
            raise InputTypeError(
                f"cannot trace {getattr(self.fn, '__qualname__', self.fn)!r}: its Python code "
                f"depends on the value of an array. JAX says: {cause} Use jnp.where or "
                "jax.lax.cond there, or pass that argument as a keyword that is no array."
            ) from error

    @property
    def signature(self) -> Hashable | None:
        """What a trace of this call depends on; None where a static value cannot be hashed.

        Equations keep the precision of products that is set while they are traced.
        """
        structs = tuple((s.shape, s.dtype, s.weak_type) for s in self.structs)
        # 1, True and 1.0 are equal, and so are 0.0 and -0.0, but they do not trace alike.
        rest = tuple(
            (type(leaf), repr(leaf) if isinstance(leaf, float) else leaf) for leaf in self._rest
        )
        precision = getattr(jax.config, "jax_default_matmul_precision")  # noqa: B009
        key = (self._variables_tree, self._rest_tree, rest, structs, precision)
        try:
            hash(key)
        except TypeError:
            return None
        return key

    def is_float(self, i: int) -> bool:
        """Whether variable `i` holds numbers that can be pulled to zero."""
        return bool(jnp.issubdtype(self.variables[i].dtype, jnp.inexact))


# What JAX raises where Python code asks for the value of a traced array.
NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


class _Array:
    """Stands where an array goes among static leaves."""


_ARRAY = _Array()


def bind_call(
    fn: Callable[..., Any], variables: Any, inputs: Sequence[Any], static: Mapping[str, Any]
) -> Call:
    """Sorts the leaves of a call into arrays and static values.

    Raises:
        ValueError: if `variables` holds no arrays.
        TypeError: if `fn` is no function of variables, or a leaf of `variables` is not an array.
    """
    check_function(fn)
    paths, leaves, tree = flat_paths(variables)
    if not leaves:
        raise InputError(
            "the variables hold no arrays; pass what the function takes as its first argument, "
            "e.g. model.init(...) for Linen or the state of reg.nnx_function(model) for NNX."
        )
    for path, leaf in zip(paths, leaves, strict=True):
        if not is_array(leaf):
            raise InputTypeError(
                f"leaf {path!r} of the variables is {leaf!r}, not an array with a shape and dtype; "
                "pass it as a keyword argument if it is static."
            )
    collections = {path.split("/", 1)[0] for path in paths}
    rest, rest_tree = jax.tree.flatten((tuple(inputs), dict(static)))
    return Call(
        fn=fn,
        paths=tuple(paths),
        variables=tuple(map(abstract, leaves)),
        trained=tuple("params" not in collections or p.startswith("params/") for p in paths),
        arrays=tuple(leaf for leaf in rest if is_array(leaf)),
        _variables_tree=tree,
        _rest_tree=rest_tree,
        _rest=tuple(_ARRAY if is_array(leaf) else leaf for leaf in rest),
    )


def check_function(fn: Any) -> None:
    """Raises a TypeError with the right call if `fn` is a model, not a function of variables."""
    name = type(fn).__name__
    if framework_of(fn) == "linen":
        raise InputTypeError(
            f"{name} is a Linen module, not a function of its variables: pass its apply, as in "
            "reg.trace_channels(model.apply, variables, x) and morph.compact(model.apply, arch)."
        )
    if framework_of(fn) == "nnx":
        raise InputTypeError(
            f"{name} is an NNX module, not a function of its variables: "
            "fn, variables = reg.nnx_function(model), then reg.trace_channels(fn, variables, x)."
        )
    held = () if isinstance(fn, jax.tree_util.Partial) else jax.tree.leaves(fn)
    if any(map(is_array, held)):
        raise InputTypeError(
            f"{name} holds its arrays itself: pass a function of them. For Equinox: params, static "
            "= eqx.partition(model, eqx.is_array), and fn = lambda params, x: "
            "eqx.combine(params, static)(x)."
        )


def is_array(leaf: Any) -> bool:
    """True for arrays, tracers and abstract arrays; False for Python scalars."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    """Shape, dtype and weak type of an array, as JAX computes with it: float64 only under x64."""
    weak = bool(getattr(leaf, "weak_type", False))
    dtype = jax.dtypes.canonicalize_dtype(leaf.dtype, allow_extended_dtype=True)
    return jax.ShapeDtypeStruct(leaf.shape, dtype, weak_type=weak)


def flat_paths(tree: Any) -> tuple[list[str], list[Any], Any]:
    """The leaves of a tree, their paths as text (`params/Dense_0/kernel`), and its structure.

    Boxes of Flax (`nn.with_partitioning`) do not show, and an NNX state is told by collection, so
    that a variable has one path however it is held.
    """
    entries = keyed_leaves(tree)
    paths = [joined_path(path) for path, _ in entries]
    return paths, [leaf for _, leaf in entries], jax.tree.structure(tree)


def joined_path(path: Sequence[Any]) -> str:
    """The keys of a leaf as text (`params/Dense_0/kernel`)."""
    return "/".join(map(_key, path))


def _key(key: Any) -> str:
    match key:
        case jax.tree_util.DictKey() | jax.tree_util.FlattenedIndexKey():
            return str(key.key)
        case jax.tree_util.SequenceKey():
            return str(key.idx)
        case jax.tree_util.GetAttrKey():
            return key.name
    return str(key)
