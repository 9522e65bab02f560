"""A model of the user's own, from what is typed on a command line to a function and variables."""

from __future__ import annotations

import ast
import contextlib
import inspect
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

import regularizers as reg
from experiments import datasets
from experiments.networks import build
from morph.network import Network, linen_network, nnx_network
from regularizers.errors import MorphError
from regularizers.messages import cause, near

_DTYPES = (
    "float32", "bfloat16", "float16", "int32", "uint32", "int8", "uint8", "bool",
    "float64", "int64", "int16", "uint16", "complex64",
)  # fmt: skip

Function: TypeAlias = tuple[Callable[..., Any], Any]  # fn(variables, *inputs), variables


class InspectError(MorphError, ValueError):
    """What the person at the keyboard can put right."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """One `--input`: an array's shape and dtype, and its keyword if it has one."""

    name: str | None
    struct: jax.ShapeDtypeStruct

    def __str__(self) -> str:
        return f"{self.struct.dtype}{list(self.struct.shape)}"


def parse_input(text: str) -> Input:
    """Reads `[NAME=]SIZES[:DTYPE]`.

    Raises:
        InspectError: if it is nothing of this form.

    Example:
        >>> print(parse_input("mask=1,77:bool"))
        bool[1, 77]
    """
    name, _, rest = text.rpartition("=")
    sizes, colon, dtype = rest.partition(":")
    form = "an input is [NAME=]SIZES[:DTYPE], e.g. 1,224,224,3 or tokens=1,77:int32"
    if name and not name.strip().isidentifier():
        raise InspectError(f"--input={text}: {name!r} is no name; {form}")
    try:
        shape = tuple(int(size) for size in sizes.split(",")) if sizes.strip() else ()
    except ValueError:
        raise InspectError(f"--input={text}: {sizes!r} are no sizes; {form}") from None
    if (not shape and not colon) or any(size < 1 for size in shape):
        raise InspectError(f"--input={text}: sizes must be positive, found {sizes!r}; {form}")
    return Input(
        name=name.strip() or None, struct=jax.ShapeDtypeStruct(shape, _dtype(text, dtype, colon))
    )


def _dtype(text: str, name: str, given: str) -> Any:
    if given and name not in _DTYPES:
        raise InspectError(f"--input={text}: no dtype {name!r}{near(name, _DTYPES)}")
    return jax.dtypes.canonicalize_dtype(name or "float32")


def parse_kwargs(text: str) -> dict[str, Any]:
    """Reads static keyword arguments as they stand in a Python call.

    Raises:
        InspectError: if they are not literals.

    Example:
        >>> parse_kwargs("train=False,axes=(1,2)")
        {'train': False, 'axes': (1, 2)}
    """
    form = "--kwargs takes NAME=LITERAL,..., e.g. train=False,name='x'"
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name):
            raise InspectError(f"--kwargs={text}: a value without a name; {form}")
        found = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        if isinstance(error, InspectError):
            raise
        raise InspectError(f"--kwargs={text} cannot be read; {form}") from None
    if None in found:
        raise InspectError(f"--kwargs={text}: ** is not taken; {form}")
    return {str(name): value for name, value in found.items()}


def function_of(
    model: Any, name: str, inputs: Sequence[Input], kwargs: Mapping[str, Any]
) -> Function:
    """A model as a function and its variables, abstract where the model leaves a choice.

    Raises:
        InspectError: if it is nothing that can be inspected, or cannot be built.
    """
    if inspect.isclass(model) and issubclass(model, nn.Module):
        with telling(f"cannot build {name}()", "name an instance or a function that makes one"):
            model = model()
    elif _takes_rngs(model):
        with telling(f"cannot build {name}(rngs=...)", "name a function that takes only rngs"):
            model = _build_nnx(model)
    elif callable(model) and not isinstance(model, nn.Module | nnx.Module):
        with telling(f"cannot call {name}()", "name a function without arguments, or of rngs"):
            model = model()
    if isinstance(model, nn.Module):
        return _linen_function(model, name, inputs, kwargs)
    if isinstance(model, nnx.Module):
        return reg.nnx_function(_with_streams(model))
    if isinstance(model, tuple) and len(model) == 2 and callable(model[0]):
        fn, variables = model
        return fn, variables
    raise InspectError(
        f"{name} is {_article(type(model).__name__)}; --model must name a Linen or NNX module, its "
        "class, a pair (fn, variables), or a function that returns one of these"
    )


def _takes_rngs(model: Any) -> bool:
    if isinstance(model, nn.Module | nnx.Module | tuple) or not callable(model):
        return False
    if inspect.isclass(model) and issubclass(model, nnx.Module):
        return True
    with contextlib.suppress(TypeError, ValueError):
        return "rngs" in inspect.signature(model).parameters
    return False


def _build_nnx(build: Callable[..., Any]) -> Any:
    return nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0)))


def _linen_function(
    module: nn.Module, name: str, inputs: Sequence[Input], kwargs: Mapping[str, Any]
) -> Function:
    positional, named = arguments(inputs)
    rngs = {"params": jax.random.key(0)}  # answers for every stream that is not named
    static = {k: value for k, value in kwargs.items() if k != "mutable"}  # of apply, not of init

    def initialise(given: Sequence[Any], by_name: Mapping[str, Any]) -> Any:
        return module.init(rngs, *given, **by_name, **static)

    def apply(variables: Any, *given: Any, **rest: Any) -> Any:
        return module.apply(variables, *given, rngs=rngs, **rest)

    with telling(cannot_trace(name, inputs), ADVICE):
        return apply, jax.eval_shape(initialise, positional, named)


def _with_streams(model: nnx.Module) -> nnx.Module:
    """An abstract NNX model whose random streams are real: they are no variables."""
    graphdef, *(streams, state) = nnx.split(model, nnx.RngState, ...)

    def real(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.zeros(leaf.shape, leaf.dtype)
        return jax.random.split(jax.random.key(0), leaf.shape) if leaf.shape else jax.random.key(0)

    return nnx.merge(graphdef, jax.tree.map(real, streams), state)


def arguments(inputs: Sequence[Input]) -> tuple[list[Any], dict[str, Any]]:
    """The arrays by position, and by keyword."""
    positional = [given.struct for given in inputs if given.name is None]
    return positional, {given.name: given.struct for given in inputs if given.name is not None}


ADVICE = (
    "check --input and --kwargs against what the model takes (e.g. --kwargs=train=False); "
    "--verbosity=1 shows the traceback"
)
VALUES_ADVICE = (
    "the model's Python code depends on the values of arrays: use jnp.where or jax.lax.cond there, "
    "or give that argument by --kwargs; --verbosity=1 shows the traceback"
)


@contextlib.contextmanager
def telling(what: str, advice: str) -> Iterator[None]:
    """Turns what goes wrong in the user's code into one line: what, JAX's cause, what to do."""
    try:
        yield
    except AssertionError:
        raise  # ours
    except Exception as error:  # the user's model may raise anything while it is traced
        if isinstance(
            error, jax.errors.ConcretizationTypeError | jax.errors.TracerArrayConversionError
        ):
            advice = VALUES_ADVICE
        where = _user_line(error)
        at = f" [{where}]" if where else ""
        raise InspectError(f"{what}: {cause(error)}{at}; {advice}") from error


def cannot_trace(name: str, inputs: Sequence[Input]) -> str:
    """What went wrong, for a message."""
    return f"cannot trace {name} at {', '.join(map(str, inputs)) or 'no input'}"


def _user_line(error: BaseException) -> str:
    """The innermost line of the user's own code that an error passed through."""
    here = Path(__file__).resolve()
    others = [here, Path(os.__file__).resolve().parent]  # the standard library
    others += [here.parent.parent / package for package in ("regularizers", "morph")]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename).resolve()
        foreign = "site-packages" in path.parts or frame.filename.startswith("<")
        if not foreign and not any(path.is_relative_to(other) for other in others):
            return f"{frame.filename}:{frame.lineno}"
    return ""


def _article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def network_of(name: str, dataset: datasets.Dataset, width: float) -> Network:
    """The seed network of that name for a data set, Linen or NNX alike."""
    return network_for(name, dataset.train_images.shape[1:], dataset.num_classes, width)


def network_for(name: str, input_shape: tuple[int, ...], num_classes: int, width: float) -> Network:
    """The seed network of that name for images [height, width, channels] of so many classes."""
    height, across, channels = input_shape
    shape = (height, across, channels)
    model = build(name, input_shape=shape, num_classes=num_classes, width=width)
    return linen_network(model) if isinstance(model, nn.Module) else nnx_network(model)
