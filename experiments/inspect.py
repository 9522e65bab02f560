"""Shows the channel groups of a network, what they cost, and what is fixed and why.

    python -m experiments.inspect --seed_network=resnet8
    python -m experiments.inspect --model=package.module:attribute --input=1,224,224,3

MODEL is looked for in the current directory first. Its attribute is one of

    a Linen module, its class, or a function without arguments that returns one;
    an NNX module, its class, or a function of `rngs` (called with nnx.Rngs(0)) that returns one;
    a pair (fn, variables) with fn(variables, *inputs), or a function that returns one.

Nothing is computed: weights are abstract, so a large model takes seconds and no memory (only a
function without arguments is called as it is, and makes what it makes).

    --input=1,224,224,3         float32; once for every input, in order
    --input=1,77:int32          another dtype
    --input=mask=1,77:bool      by keyword
    --kwargs=train=False        static keyword arguments, as in a Python call
    --picture=channels.svg      draws the graph; .html is the same with highlighting
    --json                      prints one JSON document instead of the tables

The JSON has the keys

    version, model               1, and what was asked for
    inputs[]                     name (null by position), shape, dtype
    groups[]                     name, width, exact, why_inexact, members[]: path, axis, kind,
                                 produces, consumes
    layers[]                     layer, flops, flops_share, parameters, parameters_share,
                                 operations[]: op, kernel, in, out (widths), in_axis, out_axis
                                 (a number, a group, {"sum": []} or {"product": []}), count
    pins[]                       reason, source (file:line, "" where unknown), axes[]: path, axis,
                                 size; axes of size 1 or 0 are left out
    unknown[]                    primitive, source: operations without a rule
    totals                       equations, seconds, flops, parameters; free_flops and
                                 free_parameters (shares that go when every group has width 0);
                                 halved_flops and halved_parameters (shares that are left when
                                 every group has half its width)
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import inspect
import json
import operator
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import flags
from flax import nnx
from rich.console import Console
from rich.table import Table
from rich.text import Text

import regularizers as reg
from experiments import picture
from experiments.display import humanize
from experiments.networks import SEED_NETWORKS, build
from regularizers.channels import axes as ax
from regularizers.channels import jaxprs
from regularizers.channels.graph import ChannelGraph, layer_name
from regularizers.channels.terms import Pin, atoms
from regularizers.costs.cost import Cost
from regularizers.costs.flops import operation_name

_SEED_INPUT = "1,32,32,3"
_SEED_CLASSES = 10
_DTYPES = (
    "float32", "bfloat16", "float16", "int32", "uint32", "int8", "uint8", "bool",
    "float64", "int64", "int16", "uint16", "complex64",
)  # fmt: skip
_MOST_NAMES = 3  # in one cell
_LONGEST_CAUSE = 300  # characters
_CONSOLE_WIDTH = 160  # where there is no terminal

Function: TypeAlias = tuple[Callable[..., Any], Any]  # fn(variables, *inputs), variables


class InspectError(ValueError):
    """What the person at the keyboard can put right."""


def define_flags() -> flags.FlagValues:
    """The flags of this command, which shares names, and no values, with experiments.run."""
    own = flags.FlagValues()
    flags.DEFINE_string("model", None, "package.module:attribute to inspect.", flag_values=own)
    flags.DEFINE_enum(
        "seed_network", None, list(SEED_NETWORKS), "Or a network of the registry.", flag_values=own
    )
    flags.DEFINE_multi_string(
        "input",
        [],
        f"[NAME=]SIZES[:DTYPE], once per input; {_SEED_INPUT} for a seed network if not given.",
        flag_values=own,
    )
    flags.DEFINE_string(
        "kwargs", "", "Static keyword arguments, e.g. train=False,depth=3.", flag_values=own
    )
    flags.DEFINE_string("picture", None, "Draw into this .svg or .html file.", flag_values=own)
    flags.DEFINE_bool("json", False, "Print one JSON document, nothing else.", flag_values=own)
    flags.DEFINE_integer("verbosity", 0, "1 shows the traceback of an error.", flag_values=own)
    flags.DEFINE_bool("help", False, "Show this help.", short_name="?", flag_values=own)
    return own


# ---- What to inspect


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
        raise InspectError(f"--input={text}: no dtype {name!r}{_near(name, _DTYPES)}")
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


def find_attribute(target: str) -> Any:
    """The object that `package.module:attribute` names.

    Raises:
        InspectError: if there is no such module or attribute.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise InspectError(
            f"--model={target} names no attribute; write package.module:attribute, "
            "e.g. --model=networks:build"
        )
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            raise InspectError(
                f"--model={target}: no module {missing!r}, neither in the current directory "
                "nor installed; run this where `import` would find it"
            ) from error
        raise InspectError(
            f"--model={target}: importing {module_name} fails with {cause(error)}"
        ) from error
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError as error:
        names = [name for name in vars(module) if not name.startswith("_")]
        raise InspectError(
            f"--model={target}: module {module_name} has no {attribute!r}{_near(attribute, names)}"
        ) from error


def function_of(
    model: Any, name: str, inputs: Sequence[Input], kwargs: Mapping[str, Any]
) -> Function:
    """A model as a function and its variables, abstract where the model leaves a choice.

    Raises:
        InspectError: if it is nothing that can be inspected, or cannot be built.
    """
    if inspect.isclass(model) and issubclass(model, nn.Module):
        with _telling(f"cannot build {name}()", "name an instance or a function that makes one"):
            model = model()
    elif _takes_rngs(model):
        with _telling(f"cannot build {name}(rngs=...)", "name a function that takes only rngs"):
            model = _build_nnx(model)
    elif callable(model) and not isinstance(model, nn.Module | nnx.Module):
        with _telling(f"cannot call {name}()", "name a function without arguments, or of rngs"):
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

    with _telling(_cannot_trace(name, inputs), _ADVICE):
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


_ADVICE = (
    "check --input and --kwargs against what the model takes (e.g. --kwargs=train=False); "
    "--verbosity=1 shows the traceback"
)
_VALUES_ADVICE = (
    "the model's Python code depends on the values of arrays: use jnp.where or jax.lax.cond there, "
    "or give that argument by --kwargs; --verbosity=1 shows the traceback"
)


@contextlib.contextmanager
def _telling(what: str, advice: str) -> Iterator[None]:
    """Turns what goes wrong in the user's code into one line: what, JAX's cause, what to do."""
    try:
        yield
    except AssertionError:
        raise  # ours
    except Exception as error:
        if isinstance(
            error, jax.errors.ConcretizationTypeError | jax.errors.TracerArrayConversionError
        ):
            advice = _VALUES_ADVICE
        where = _user_line(error)
        at = f" [{where}]" if where else ""
        raise InspectError(f"{what}: {cause(error)}{at}; {advice}") from error


def _cannot_trace(name: str, inputs: Sequence[Input]) -> str:
    return f"cannot trace {name} at {', '.join(map(str, inputs)) or 'no input'}"


def cause(error: BaseException) -> str:
    """The kind of an error and the first sentence of its message."""
    lines = str(error).strip().splitlines()
    first = lines[0].strip() if lines else ""
    if len(first) > _LONGEST_CAUSE:
        first = first[: _LONGEST_CAUSE - 1] + "…"
    return f"{type(error).__name__}: {first}".rstrip(": .")


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


def _near(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    if close:
        return "; did you mean " + " or ".join(map(repr, close)) + "?"
    some = ", ".join(map(repr, known[:8]))
    return f"; known are {some}{', ...' if len(known) > 8 else ''}" if known else ""


def _article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


# ---- What was found


@dataclass(frozen=True, kw_only=True)
class PinnedAxis:
    """One axis of a variable, or a stretch of it, whose width is fixed."""

    path: str
    axis: int
    size: int


@dataclass(frozen=True, kw_only=True)
class PinGroup:
    """The axes that are fixed for one reason at one line."""

    reason: str
    source: str
    axes: tuple[PinnedAxis, ...]


def pins_of(graph: ChannelGraph) -> list[PinGroup]:
    """All fixed axes of variables, by reason and source line, the most frequent first."""
    found: dict[tuple[str, str], dict[PinnedAxis, None]] = {}
    lines: dict[Pin, str] = {}
    for variable, terms in zip(graph.variables.values(), graph._terms, strict=True):
        for k, term in enumerate(terms):
            for atom in atoms(term):
                if atom.pin is not None and atom.size > 1:
                    if atom.pin not in lines:
                        lines[atom.pin] = jaxprs.source_line(atom.pin.source)
                    axis = PinnedAxis(path=variable.path, axis=k, size=atom.size)
                    found.setdefault((atom.pin.reason, lines[atom.pin]), {})[axis] = None
    groups = [
        PinGroup(reason=reason, source=source, axes=tuple(axes))
        for (reason, source), axes in found.items()
    ]
    return sorted(groups, key=lambda group: -len(group.axes))


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that is shown about a network."""

    model: str
    inputs: tuple[Input, ...]
    graph: ChannelGraph
    flops: Cost
    parameters: Cost
    pins: tuple[PinGroup, ...]
    equations: int
    seconds: float


def make_report(model: str, inputs: Sequence[Input], graph: ChannelGraph, seconds: float) -> Report:
    """Everything about a graph that took so many seconds to trace."""
    return Report(
        model=model,
        inputs=tuple(inputs),
        graph=graph,
        flops=reg.flops(graph),
        parameters=reg.model_size(graph),
        pins=tuple(pins_of(graph)),
        equations=picture.count_equations(graph._body.jaxpr),
        seconds=seconds,
    )


def totals_of(report: Report) -> dict[str, float]:
    """The last lines of a report: costs of the seed, and how much of them is free."""
    nothing = dict.fromkeys(report.graph.groups, 0)
    half = {name: width / 2 for name, width in report.graph.widths.items()}
    totals: dict[str, float] = {
        "equations": report.equations,
        "seconds": round(report.seconds, 3),
        "flops": report.flops(),
        "parameters": report.parameters(),
    }
    for name, cost in (("flops", report.flops), ("parameters", report.parameters)):
        totals[f"free_{name}"] = 1 - _over(cost(nothing), cost())
        totals[f"halved_{name}"] = _over(cost(half), cost())
    return totals


def _over(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


def layers_of(report: Report) -> list[dict[str, Any]]:
    """Every layer with its operations and costs: first those with a product, in order."""
    graph = report.graph
    rows: dict[str, dict[str, Any]] = {}
    operations: dict[str, dict[Any, dict[str, Any]]] = {}
    names = [*graph.layers, *(layer_name(v.path) for v in graph.variables.values() if v.trained)]
    for name in dict.fromkeys(names):
        rows[name] = {"layer": name, "operations": [], "flops": 0.0, "flops_share": 0.0}
        rows[name] |= {"parameters": 0.0, "parameters_share": 0.0}
    for operation in graph.operations:
        kind, kernel, into, out = operation_name(operation)
        merged = operations.setdefault(operation.layer, {})
        shown = merged.setdefault(
            (kind, kernel, into, out),
            {
                "op": kind,
                "kernel": list(kernel),
                "in": int(ax.size(into, graph.widths)),
                "out": int(ax.size(out, graph.widths)),
                "in_axis": ax.to_json(into),
                "out_axis": ax.to_json(out),
                "count": 0,
            },
        )
        shown["count"] += operation.count
    for name, merged in operations.items():
        rows[name]["operations"] = list(merged.values())
    for key, cost in (("flops", report.flops), ("parameters", report.parameters)):
        for line in cost.table():
            rows[line.layer][key] += line.cost
            rows[line.layer][f"{key}_share"] += line.share
    return list(rows.values())


def to_json(report: Report) -> dict[str, Any]:
    """The report as JSON; its keys are in this module's documentation."""
    return {
        "version": 1,
        "model": report.model,
        "inputs": [
            {"name": i.name, "shape": list(i.struct.shape), "dtype": str(i.struct.dtype)}
            for i in report.inputs
        ],
        "groups": [asdict(group) for group in report.graph.groups.values()],
        "layers": layers_of(report),
        "pins": [asdict(group) for group in report.pins],
        "unknown": [
            {"primitive": name, "source": source} for name, source in report.graph.unknown.items()
        ],
        "totals": totals_of(report),
    }


# ---- How it is shown


def show(report: Report, console: Console) -> None:
    """Prints the tables and the totals."""
    console.print(group_table(report.graph))
    console.print()
    console.print(layer_table(report))
    console.print()
    if report.pins:
        console.print(pin_table(report.pins))
        console.print()
    for name, source in report.graph.unknown.items():
        where = f" [{source}]" if source else ""
        console.print(
            Text(f"no rule for {name}: all that it touches is fixed{where}", "red"), soft_wrap=True
        )
    totals = totals_of(report)
    console.print(
        f"{report.model}: {report.equations:,} equations, traced and inferred in "
        f"{report.seconds:.2f} s. Free: {totals['free_flops']:.1%} of "
        f"{humanize(totals['flops'], 'FLOP')}, {totals['free_parameters']:.1%} of "
        f"{humanize(totals['parameters'])} parameters; the rest is what fixed widths cost. With "
        f"every group halved: {totals['halved_flops']:.1%} of the FLOPs, "
        f"{totals['halved_parameters']:.1%} of the parameters.",
        soft_wrap=True,
        highlight=False,
    )


def group_table(graph: ChannelGraph) -> Table:
    """Every group: its width, whether dead channels are exactly zero, and who shares it."""
    table = Table(title="Channel groups", title_justify="left")
    table.add_column("group", overflow="fold")
    table.add_column("width", justify="right")
    for column in ("exact", "produced by", "consumed by"):
        table.add_column(column, overflow="fold")
    for group in graph.groups.values():
        members = [member for member in group.members if member.kind != "statistic"]
        table.add_row(
            Text(group.name),
            str(group.width),
            Text("yes") if group.exact else Text(f"no: {group.why_inexact}", "dark_orange"),
            _few(layer_name(m.path) for m in members if m.produces),
            _few(layer_name(m.path) for m in members if m.consumes),
        )
    return table


def layer_table(report: Report) -> Table:
    """Every layer with a product; all others, which only hold parameters, in one last row."""
    table = Table(title="Layers", title_justify="left")
    for column in ("layer", "op", "in → out"):
        table.add_column(column, overflow="fold")
    for column in ("FLOPs", "share", "parameters", "share"):
        table.add_column(column, justify="right")
    layers = layers_of(report)
    for layer in layers:
        if layer["operations"]:
            first, *more = layer["operations"]
            kernel = "×".join(map(str, first["kernel"]))
            times = f" +{len(more)}" if more else f" ×{first['count']}" * (first["count"] > 1)
            op = f"{first['op']} {kernel}".strip() + times
            table.add_row(
                Text(layer["layer"]), op, f"{first['in']} → {first['out']}", *_costs(layer)
            )
    others = [layer for layer in layers if not layer["operations"]]
    if others:
        keys = ("flops", "flops_share", "parameters", "parameters_share")
        rest = {key: sum(layer[key] for layer in others) for key in keys}
        name = f"{len(others)} without a product: {_few(layer['layer'] for layer in others)}"
        table.add_row(Text(name), "", "", *_costs(rest))
    return table


def _costs(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return (
        humanize(row["flops"]),
        f"{row['flops_share']:.1%}",
        humanize(row["parameters"]),
        f"{row['parameters_share']:.1%}",
    )


def pin_table(pins: Sequence[PinGroup]) -> Table:
    """What is fixed: the reason, the line of the user's code, how many axes and which."""
    table = Table(title="Fixed widths", title_justify="left")
    table.add_column("reason", overflow="fold")
    table.add_column("axes", justify="right")
    table.add_column("e.g.", overflow="fold")
    table.add_column("where", overflow="fold")
    for pin in pins:
        examples = _few(f"{axis.path}[{axis.axis}] = {axis.size}" for axis in pin.axes)
        table.add_row(Text(pin.reason), str(len(pin.axes)), examples, Text(pin.source))
    return table


def _few(names: Iterator[str]) -> Text:
    distinct = list(dict.fromkeys(names))
    more = f", +{len(distinct) - _MOST_NAMES}" if len(distinct) > _MOST_NAMES else ""
    return Text(", ".join(distinct[:_MOST_NAMES]) + more)


# ---- The command


def run(options: flags.FlagValues) -> None:
    """Does what the flags ask for.

    Raises:
        InspectError: if it cannot be done.
    """
    if (options.model is None) == (options.seed_network is None):
        raise InspectError(
            "give either --model=package.module:attribute or --seed_network=NAME, "
            f"found {'neither' if options.model is None else 'both'}"
        )
    if options.picture:
        _check_picture(options.picture)
    inputs = [parse_input(text) for text in options.input]
    if options.seed_network and not inputs:
        inputs = [parse_input(_SEED_INPUT)]
    if not inputs:
        raise InspectError(
            "no --input; give the shape of every input of the model, e.g. --input=1,224,224,3 or "
            "--input=1,77:int32"
        )
    kwargs = parse_kwargs(options.kwargs)
    name = options.model or options.seed_network
    model = find_attribute(name) if options.model else _seed_network(name, inputs)
    started = time.monotonic()
    fn, variables = function_of(model, name, inputs, kwargs)
    positional, named = arguments(inputs)
    with _telling(_cannot_trace(name, inputs), _ADVICE):
        graph = reg.trace_channels(fn, variables, *positional, **named, **kwargs)
    report = make_report(name, inputs, graph, time.monotonic() - started)
    if options.picture:
        picture.save(graph, options.picture, title=name)
    if options.json:
        print(json.dumps(to_json(report), indent=2))
        return
    show(report, Console(width=None if sys.stdout.isatty() else _CONSOLE_WIDTH))
    if options.picture:
        print(f"Drawn: {options.picture}")


def _seed_network(name: str, inputs: Sequence[Input]) -> Any:
    shape = inputs[0].struct.shape
    if len(inputs) > 1 or len(shape) != 4:
        raise InspectError(
            f"--seed_network={name} takes one --input of batch, height, width, channels, e.g. "
            f"{_SEED_INPUT}; found {' and '.join(map(str, inputs))}"
        )
    height, width, channels = shape[1:]
    return build(name, input_shape=(height, width, channels), num_classes=_SEED_CLASSES)


def _check_picture(path: str) -> None:
    """Raises before any work is done."""
    try:
        picture.writer_of(path)
    except ValueError as error:
        raise InspectError(f"--picture={path}: {error}") from None
    if not Path(path).parent.is_dir():
        raise InspectError(f"--picture={path}: there is no directory {str(Path(path).parent)!r}")


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.inspect`; `argv[0]` is the program's name."""
    options = define_flags()
    verbose = False
    try:
        rest = options(argv)
        verbose = options.verbosity > 0
        if options.help:
            print(f"{__doc__}\n{options.get_help()}")
            return
        if len(rest) > 1:
            raise InspectError(f"unexpected arguments: {' '.join(rest[1:])}; flags start with --")
        run(options)
    except (InspectError, flags.Error, OSError) as error:
        if verbose:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv)
