"""Blocks: branches that can go as a whole.

A *branch* is a part of the function whose only way out is one operand of a sum (a residual block)
or one segment of a concatenation (a tower). When its last scale or kernel, its *switch*, is
entirely zero, then so is all that it gives, and it can go: the sum keeps its other operand, the
concatenation its other segments, and what only the branch needs is needed no more.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from regularizers.channels.exactness import EVERYTHING, NOTHING, find_inexact
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import Literal, Var, shape_of
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.signs import ZERO
from regularizers.primitives.step import Body, Step
from regularizers.primitives.table import RECORDS
from regularizers.primitives.terms import Axes, Term, atoms

RESIDUAL, TOWER = "residual", "tower"

# Calls that run their jaxpr once, on their operands: a branch may lie inside.
IN_PLACE = frozenset({
    p.jit_p, p.closed_call_p, p.call_p, p.remat_p, p.custom_jvp_call_p, p.custom_vjp_call_p,
    jaxprs.call_hi_primitive_p,
})  # fmt: skip
# The operands of a sum that may be nothing.
SUMS = {p.add_p: (0, 1), p.add_jaxvals_p: (0, 1), p.sub_p: (1,)}

Variables: TypeAlias = frozenset[int]  # positions in the flattened tree
Made: TypeAlias = Variables | None  # what a value is made of; None if of inputs, too


@dataclass(frozen=True, kw_only=True)
class Block:
    """A branch that can go.

    Attributes:
        name: the module that all its variables lie in, or its last layer.
        kind: `residual` (an operand of a sum) or `tower` (a segment of a concatenation).
        variables: the paths of all that nothing else uses; they go with it.
        switch: those of `variables` that silence it when they are zero: its last scale and shift,
            or its last kernel and bias.
        groups: the channel groups that only it produces.
        layers: its products and convolutions.
        rivals: where a concatenation consists of towers that can all go, their names: one of them
            must stay.
    """

    name: str
    kind: str
    variables: tuple[str, ...]
    switch: tuple[str, ...]
    groups: tuple[str, ...]
    layers: tuple[str, ...]
    rivals: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Place:
    """A body that runs once, what its values are made of, and which are variables as they are."""

    body: Body
    made: dict[Var, Made]
    direct: dict[Var, int]
    makers: dict[Var, Step]
    users: dict[Var, list[int]]  # ids of steps; OUTPUT for an output of the body


OUTPUT = 0  # no object has this id


@dataclass
class Survey:
    """Which steps use a variable, and the places that calls run."""

    uses: dict[int, set[int]] = field(default_factory=dict)  # by variable, ids of steps
    inner: dict[int, Place] = field(default_factory=dict)  # by id of the step that calls it

    def walk(
        self, body: Body, made: Sequence[Made], direct: Mapping[Var, int]
    ) -> tuple[Place, list[Made]]:
        """Notes a body, and those that it calls."""
        env: dict[Var, Made] = dict(zip(body.jaxpr.invars, made, strict=True))
        env.update(dict.fromkeys(body.jaxpr.constvars, frozenset()))
        place = Place(body=body, made=env, direct=dict(direct), makers={}, users={})
        for step in body.steps:
            operands = step.eqn.invars
            found = [made_of(env, v) for v in operands]
            if step.primitive in IN_PLACE:
                inner = step.bodies[0]
                own = {
                    w: place.direct[v]
                    for v, w in zip(operands, inner.jaxpr.invars, strict=True)
                    if isinstance(v, Var) and v in place.direct
                }
                self.inner[id(step)], results = self.walk(inner, found, own)
            else:
                results = [_join(found)] * len(step.eqn.outvars)
                for v in operands:
                    if isinstance(v, Var) and v in place.direct:
                        self.uses.setdefault(place.direct[v], set()).add(id(step))
            env.update(zip(step.eqn.outvars, results, strict=True))
            place.makers.update(dict.fromkeys(step.eqn.outvars, step))
            for v in operands:
                if isinstance(v, Var):
                    place.users.setdefault(v, []).append(id(step))
        for v in body.jaxpr.outvars:
            if isinstance(v, Var):
                place.users.setdefault(v, []).append(OUTPUT)
                if v in place.direct:
                    self.uses.setdefault(place.direct[v], set()).add(OUTPUT)
        return place, [made_of(env, v) for v in body.jaxpr.outvars]


def made_of(env: Mapping[Var, Made], v: Var | Literal) -> Made:
    """What a value is made of."""
    return frozenset() if isinstance(v, Literal) else env[v]


def _join(found: Sequence[Made]) -> Made:
    known = [variables for variables in found if variables is not None]
    return frozenset().union(*known) if len(known) == len(found) else None


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A candidate: the steps of a place that lead to one operand and nowhere else."""

    place: Place
    exit: Step
    value: Var
    steps: tuple[Step, ...]


def find_blocks(
    body: Body,
    paths: Sequence[str],
    trained: Sequence[bool],
    producers: Mapping[str, Collection[str]],
    exact: Collection[Term],
    layer_of: Callable[[Step], str | None],
) -> dict[str, Block]:
    """The blocks of a function, in its order, by name.

    Args:
        body: the inferred function; its first inputs are the variables.
        paths: of the variables.
        trained: whether each is a parameter.
        producers: for each channel group the paths of the variables that produce it.
        exact: the atoms of groups that may be shrunk exactly.
        layer_of: the layer of a product or convolution; None for any other step.
    """
    survey = Survey()
    inputs = [frozenset({i}) if i < len(paths) else None for i in range(len(body.inputs))]
    top, _ = survey.walk(
        body, inputs, {v: i for i, v in enumerate(body.jaxpr.invars[: len(paths)])}
    )
    exits: list[tuple[Step, list[Block]]] = []
    ends: set[int] = set()  # ids of the steps where blocks end
    for place, step in _in_order(survey, top):
        found: list[tuple[bool, int, Block]] = []
        for branch in _branches(place, step):
            block = _block(survey, branch, paths, trained, producers, exact, layer_of)
            if block is not None:
                is_trunk = any(id(inner) in ends for inner in _all_steps(branch.steps))
                found.append((is_trunk, -len(block.layers), block))
        if step.primitive in SUMS:  # one of two branches that meet is the trunk, or the shortcut
            found = sorted(found, key=lambda one: one[:2])[:1]
        if found:
            ends.add(id(step))
        exits.append((step, [block for *_, block in found]))
    return _named(exits)


def _in_order(survey: Survey, place: Place) -> Iterator[tuple[Place, Step]]:
    """All steps of a place and of those that it calls, in the order of the function."""
    for step in place.body.steps:
        if id(step) in survey.inner:
            yield from _in_order(survey, survey.inner[id(step)])
        yield place, step


def _branches(place: Place, step: Step) -> Iterator[Branch]:
    """The branches that end at a step."""
    operands = step.eqn.invars
    if step.primitive in SUMS:
        if len({shape_of(v) for v in operands}) > 1:
            return  # one is broadcast: without the other the sum has another shape
        ends = SUMS[step.primitive]
    elif step.primitive is p.concatenate_p:
        ends = tuple(range(len(operands)))
    else:
        return
    if any(made_of(place.made, v) is not None for v in operands):
        return  # a bias, a constant
    for i in ends:
        value = operands[i]
        assert isinstance(value, Var)  # a literal is made of nothing
        steps = _leading_to(place, step, value)
        if steps:
            yield Branch(place=place, exit=step, value=value, steps=steps)


def _leading_to(place: Place, exit_: Step, value: Var) -> tuple[Step, ...]:
    """The steps whose every result goes nowhere but into the operand `value` of `exit_`."""
    if [v for v in exit_.eqn.invars if v is value] != [value]:
        return ()
    inside: set[int] = set()
    wanted = {value}
    found: list[Step] = []
    if place.users[value] != [id(exit_)]:
        return ()
    for step in _before(place, exit_):
        results = step.eqn.outvars
        if wanted.isdisjoint(results) or step.eqn.effects:
            continue
        if all(v is value or inside.issuperset(place.users.get(v, ())) for v in results):
            inside.add(id(step))
            found.append(step)
            wanted.update(v for v in step.eqn.invars if isinstance(v, Var))
    return tuple(found[::-1])


def _before(place: Place, step: Step) -> Iterator[Step]:
    steps = place.body.steps
    position = next(i for i, other in enumerate(steps) if other is step)
    return iter(steps[:position][::-1])


def _block(
    survey: Survey,
    branch: Branch,
    paths: Sequence[str],
    trained: Sequence[bool],
    producers: Mapping[str, Collection[str]],
    exact: Collection[Term],
    layer_of: Callable[[Step], str | None],
) -> Block | None:
    """The branch as a block, if it has a product of its own and can be silenced."""
    inside = list(_all_steps(branch.steps))
    layers = tuple(dict.fromkeys(filter(None, map(layer_of, inside))))
    ids = {id(step) for step in inside}
    own = [i for i in range(len(paths)) if ids.issuperset(survey.uses.get(i, {OUTPUT}))]
    variables = {paths[i] for i in own}
    if not layers or not any(trained[i] for i in own):
        return None
    groups = tuple(name for name, made in producers.items() if variables.issuperset(made))
    kind = TOWER if branch.exit.primitive is p.concatenate_p else RESIDUAL
    if kind == TOWER and not _is_free(branch, groups, exact):
        return None
    candidates = (_last(survey, branch.place, branch.value, ids), frozenset(own))
    for candidate in candidates:
        switch = [i for i in sorted(candidate or ()) if i in own and trained[i]]
        if switch and _silences(branch, switch):
            return Block(
                name="",
                kind=kind,
                variables=tuple(paths[i] for i in own),
                switch=tuple(paths[i] for i in switch),
                groups=groups,
                layers=layers,
            )
    return None


def _all_steps(steps: Sequence[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        for inner in step.bodies:
            yield from _all_steps(inner.steps)


def _is_free(branch: Branch, groups: Sequence[str], exact: Collection[Term]) -> bool:
    """Whether all channels of a segment are its own, and may go."""
    operand = next(k for k, v in enumerate(branch.exit.eqn.invars) if v is branch.value)
    axes: Axes = branch.exit.operands[operand]
    found = list(atoms(axes[branch.exit.eqn.params["dimension"]]))
    return all(atom in exact and atom.name in groups for atom in found)


def _last(survey: Survey, place: Place, value: Var | Literal, ids: set[int]) -> Variables | None:
    """The variables next to the exit that every summand of a value is a multiple of."""
    if made_of(place.made, value) is not None:
        return made_of(place.made, value)
    assert isinstance(value, Var)
    step = place.makers.get(value)
    if step is None or id(step) not in ids:
        return None  # it comes from outside
    operands = step.eqn.invars
    if id(step) in survey.inner:
        inner = survey.inner[id(step)]
        position = step.eqn.outvars.index(value)
        within = {id(s) for s in inner.body.steps}
        outcome = _last(survey, inner, inner.body.jaxpr.outvars[position], within)
        if outcome is not None or len(operands) != 1:
            return outcome
        return _last(survey, place, operands[0], ids)  # a function of one value, e.g. relu
    record = RECORDS.get(step.primitive)
    if step.primitive is p.mul_p or (record is not None and record.contracts):
        weights = [made_of(place.made, v) for v in operands]
        known = next((w for w in weights if w), None)
        if known:
            return known
        return next(filter(None, (_last(survey, place, v, ids) for v in operands)), None)
    if step.primitive in SUMS and any(isinstance(v, Literal) and v.val for v in operands):
        return None
    parts = [_last(survey, place, v, ids) for v in operands if not isinstance(v, Literal)]
    if step.primitive is p.div_p:
        parts = parts[:1]
    return _join(parts)


def _silences(branch: Branch, switch: Sequence[int]) -> bool:
    """Whether the value is zero once these variables are."""
    place = branch.place
    made = {v for step in branch.steps for v in step.eqn.outvars}
    used = {v for step in branch.steps for v in step.eqn.invars if isinstance(v, Var)}
    outside = [v for v in used if v not in made]
    consts = dict(zip(place.body.jaxpr.constvars, place.body.consts, strict=True))
    given = [v for v in outside if v not in consts]
    constants = {v: consts[v] for v in outside if v in consts}
    part = replace(
        place.body,
        jaxpr=jaxprs.part_of(place.body.jaxpr, constants, given, [branch.value]),
        consts=tuple(constants.values()),
        inputs=(),
        const_axes=(),
        outputs=(),
        steps=branch.steps,
    )
    signs = [EVERYTHING if place.direct.get(v) in switch else NOTHING for v in given]
    return find_inexact(part, (), signs).signs[id(part)][branch.value].whole == ZERO


def _named(exits: Sequence[tuple[Step, Sequence[Block]]]) -> dict[str, Block]:
    """The blocks by name: the module of their own, else their last layer, numbered if need be."""
    blocks = [block for _, found in exits for block in found]
    modules = [_module(block.variables) for block in blocks]
    often = Counter(modules)
    wanted = [
        module if module and often[module] == 1 else block.layers[-1]
        for module, block in zip(modules, blocks, strict=True)
    ]
    shared, seen = Counter(wanted), Counter[str]()
    names = []
    for name in wanted:
        names.append(name if shared[name] == 1 else f"{name}[{seen[name]}]")
        seen[name] += 1
    named: dict[str, Block] = {}
    rest = iter(names)
    for step, found in exits:
        own = [next(rest) for _ in found]
        rivals = tuple(own) if len(own) == len(step.eqn.invars) else ()
        for name, block in zip(own, found, strict=True):
            named[name] = replace(block, name=name, rivals=rivals)
    return named


def _module(paths: Sequence[str]) -> str:
    """The innermost module that all the variables lie in, without the collection."""
    inside = [path.split("/")[1:-1] for path in paths]
    shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*inside, strict=False))
    return "/".join(parts[0] for parts in shared)
