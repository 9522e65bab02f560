"""Is a native model the seed network at new widths? Its trace says so, equation by equation."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeAlias

import flax
import jax
import numpy as np

import regularizers
from morph.architecture.architecture import Architecture
from morph.errors import NativeError
from morph.modules.widths import as_seed
from morph.resize.compact import fixed_inputs, make_plan
from morph.resize.sizes import Sizes, thaw
from regularizers.channels.calls import abstract, bind_call
from regularizers.channels.inference import Inference
from regularizers.channels.means import find_means
from regularizers.primitives import jaxprs
from regularizers.primitives.sources import from_here, source_line
from regularizers.primitives.step import Body, Step
from regularizers.primitives.terms import Atom

# Where code is that is not the user's.
FOREIGN = (
    *(Path(str(package.__file__)).parent for package in (flax, jax, regularizers)),
    Path(__file__).parent,
    Path(contextlib.__file__),
)

# Of every equation of a trace, in order: its literal operands.
Numbers: TypeAlias = list[tuple[Any, ...]]


class Expectation:
    """The trace of one call of the seed network: what a native model's trace has to look like.

    Attributes:
        numbers: the literals of the seed's trace.
        scopes: the layer of each.
        of_means: which of them means divide by.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        architecture: Architecture,
        variables: Any,
        inputs: Sequence[Any],
        static: Mapping[str, Any],
    ) -> None:
        """Traces and infers the call of the seed network; `variables` are the seed's."""
        self._architecture, self._variables = architecture, variables
        self._inputs, self._static = inputs, static
        call = bind_call(fn, variables, inputs, static)
        groups = {n: Atom(group.seed_width, name=n) for n, group in architecture.groups.items()}
        terms = [
            tuple(thaw(axis, groups) for axis in architecture.variables[path].axes)
            for path in call.paths
        ]
        rest = [abstract(array) for array in call.arrays]
        closed, _ = jaxprs.trace(call.flat, *call.structs)
        inference = Inference()
        body = inference.run(closed, [*terms, *fixed_inputs(inference, rest)])
        self._body = make_plan(architecture, groups, inference, body, "call").body
        self.numbers: Numbers = _compare(body, closed.jaxpr, Sizes.at(as_seed(architecture)))
        steps, divisors = list(_steps(body)), _divisors(body)
        self.scopes = [jaxprs.scope(step.eqn) for step in steps]
        self.of_means = {i for i, step in enumerate(steps) if id(step) in divisors}

    def check(self, fn: Callable[..., Any], architecture: Architecture) -> Numbers:
        """Traces `fn` at the widths of `architecture` and compares.

        Every equation must be the seed's, and everything that it computes must have the seed's
        shape with each axis at its new width. Numbers in equations, e.g. the divisors of means,
        may differ.

        Returns:
            The literals of its trace.

        Raises:
            NativeError: if it cannot be traced, or at the first equation that differs.
        """
        variables = architecture.abstract(self._variables)
        call = bind_call(fn, variables, self._inputs, self._static)
        try:
            closed, _ = jaxprs.trace(call.flat, *call.structs)
        except Exception as error:  # whatever the user's code raises at another width
            raise NativeError(_why(error)) from error
        return _compare(self._body, closed.jaxpr, Sizes.at(architecture))


def _compare(body: Body, jaxpr: jaxprs.Jaxpr, sizes: Sizes) -> Numbers:
    numbers: Numbers = []
    for step, eqn in zip_longest(body.steps, jaxprs.live_equations(jaxpr)):
        if step is None or eqn is None or step.primitive is not eqn.primitive:
            wanted, found = (e.primitive.name if e else "the end" for e in (step, eqn))
            where = _where(eqn or step.eqn)
            raise NativeError(f"{where} the seed computes {wanted}, the small model {found}")
        for axes, result in zip(step.results, eqn.outvars, strict=True):
            wanted, found = sizes.shape(axes), jaxprs.shape_of(result)
            if wanted != found:
                raise NativeError(
                    f"{_where(eqn)} the result of {eqn.primitive.name} should have shape "
                    f"{list(wanted)}, found {list(found)}"
                )
        if eqn.primitive is jaxprs.primitives.slice_p:
            _compare_starts(step.operands[0], step.eqn, eqn, sizes)
        for part, inner in zip(step.bodies, jaxprs.bodies_of(eqn), strict=True):
            numbers += _compare(part, inner.jaxpr, sizes)
        literals = (v for v in eqn.invars if isinstance(v, jaxprs.Literal))
        numbers.append(tuple(np.asarray(v.val).item() for v in literals))
    return numbers


def _steps(body: Body) -> Iterator[Step]:
    """All steps in the order of `_compare`'s numbers."""
    for step in body.steps:
        for part in step.bodies:
            yield from _steps(part)
        yield step


def _divisors(body: Body) -> set[int]:
    """The `id` of every step that divides a mean, or only prepares the number for it."""
    means, found = find_means(body), set()
    makers = {v: step for step in _steps(body) for v in step.eqn.outvars}
    for step in _steps(body):
        if id(step) not in means:
            continue
        maker: Step | None = step
        v = step.eqn.invars[means[id(step)].operand]
        while maker is not None:
            found.add(id(maker))
            maker = None if isinstance(v, jaxprs.Literal) else makers.get(v)
            v = maker.eqn.invars[0] if maker is not None and maker.eqn.invars else v
    return found


def _compare_starts(axes: Any, seed: jaxprs.JaxprEqn, eqn: jaxprs.JaxprEqn, sizes: Sizes) -> None:
    """Slices of the right length may still start at the wrong channel."""
    wanted = [sizes.prefix(t, n) for t, n in zip(axes, seed.params["start_indices"], strict=True)]
    found = list(eqn.params["start_indices"])
    if wanted != found:
        raise NativeError(f"{_where(eqn)} a slice should start at {wanted}, but starts at {found}")


def _where(eqn: jaxprs.JaxprEqn) -> str:
    layer, line = jaxprs.scope(eqn), source_line((eqn.source_info,))
    return " ".join(["in", *([repr(layer)] if layer else []), *([f"[{line}]"] if line else [])])


def _why(error: Exception) -> str:
    """What an exception says, and the user's line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(map(Path(f.filename).is_relative_to, FOREIGN))]
    at = f" [{from_here(own[-1].filename)}:{own[-1].lineno} ({own[-1].name})]" if own else ""
    first = next(iter(str(error).splitlines()), "")
    return f"its code raises {type(error).__name__}: {first}{at}"
