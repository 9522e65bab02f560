"""Unification of widths: the solver behind channel inference.

A *term* describes one axis of one array while inference is running: an `Atom` (an unknown width),
a `Sum` of terms (concatenation), a `Product` of terms (row-major merge) or a `Permuted` term.
`Solver.unify` makes two terms the same width, position by position; `Solver.pin` says that a width
may not change.

    atom ~ atom        link
    atom ~ term        bind (occurs check)
    Sum ~ Sum          align boundaries, splitting atoms
    Product ~ Product  align factors, splitting atoms by division
    Sum ~ Product      distribute over the outermost factor where the sizes allow it
    Permuted ~ term    the inner term with the other in the inverse order
    anything else      pin both

All of it is near linear: union-find with path compression.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from regularizers.primitives import axes
from regularizers.primitives.facts import Fact
from regularizers.primitives.orders import (
    Order,
    composed,
    inverse,
    is_identity,
    segments,
    transposed,
)

# JAX's source infos of an equation and of the calls around it, the innermost first.
Source: TypeAlias = tuple[Any, ...] | None


@dataclass(frozen=True)
class Pin:
    """Why a width may not change, and JAX's records of the user's source line (if any)."""

    reason: str
    source: Source = None


class Atom:
    """An unknown width. `link` is what it was unified with, `name` a group it must stay."""

    __slots__ = ("link", "name", "pin", "size")

    def __init__(self, size: int, pin: Pin | None = None, name: str | None = None) -> None:
        self.size = int(size)  # params of equations hold numpy integers too
        self.pin = pin
        self.name = name
        self.link: Term | None = None


class Sum:
    """A concatenation of terms."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: Iterable[Term]) -> None:
        self.parts: tuple[Term, ...] = tuple(parts)
        self.size: int = sum(part.size for part in self.parts)


class Product:
    """A row-major merge of terms, the outermost first."""

    __slots__ = ("factors", "size")

    def __init__(self, factors: Iterable[Term]) -> None:
        self.factors: tuple[Term, ...] = tuple(factors)
        self.size: int = math.prod(factor.size for factor in self.factors)


class Permuted:
    """A term whose positions are in another order."""

    __slots__ = ("inner", "order", "size")

    def __init__(self, inner: Term, order: Order) -> None:
        self.inner = inner
        self.order = order
        self.size: int = inner.size


Term: TypeAlias = Atom | Sum | Product | Permuted
Axes: TypeAlias = tuple[Term, ...]


def find(term: Term) -> Term:
    """The term that `term` stands for: an unlinked atom, a Sum or a Product."""
    root = term
    while isinstance(root, Atom) and root.link is not None:
        root = root.link
    while isinstance(term, Atom) and term.link is not None and term.link is not root:
        term.link, term = root, term.link  # path compression
    return root


def _parts(term: Term) -> list[Term]:
    """`term` as a flat list of concatenated terms, empty ones dropped."""
    term = find(term)
    if isinstance(term, Sum):
        return [piece for part in term.parts for piece in _parts(part)]
    if isinstance(term, Permuted) and not isinstance(whole := resolve(term), Permuted):
        return _parts(whole)
    return [term] if term.size else []


def _factors(term: Term) -> list[Term]:
    """`term` as a flat list of merged terms, those of size 1 dropped."""
    term = find(term)
    if isinstance(term, Product):
        return [piece for factor in term.factors for piece in _factors(factor)]
    if isinstance(term, Permuted) and not isinstance(whole := resolve(term), Permuted):
        return _factors(whole)
    return [term] if term.size != 1 else []


def resolve(term: Term) -> Term:
    """`term` in normal form: flat Sums of flat Products of unlinked atoms."""
    term = find(term)
    if isinstance(term, Sum):
        return concatenation(resolve(part) for part in _parts(term))
    if isinstance(term, Product):
        return merge(resolve(factor) for factor in _factors(term))
    return permuted(term.inner, term.order) if isinstance(term, Permuted) else term


def permuted(term: Term, order: Order) -> Term:
    """`term` in another order: its parts or factors are where it only moves those."""
    term = resolve(term)
    if is_identity(order):
        return term
    if isinstance(term, Permuted):
        return permuted(term.inner, composed(term.order, order))
    if isinstance(term, Sum):
        parts = segments([part.size for part in term.parts], order)
        if parts is not None:
            return concatenation(
                permuted(concatenation(term.parts[k] for k in mixed), inside)
                for mixed, inside in parts
            )
    if isinstance(term, Product):
        factors = transposed([factor.size for factor in term.factors], order)
        if factors is not None:
            return merge(permuted(term.factors[k], factors[1][k]) for k in factors[0])
    return Permuted(term, order)


def concatenation(parts: Iterable[Term]) -> Term:
    """The Sum of `parts`, or the part itself where there is one."""
    flat = [piece for part in parts for piece in _parts(part)]
    return flat[0] if len(flat) == 1 else Sum(flat)


def merge(factors: Iterable[Term]) -> Term:
    """The Product of `factors`, or the factor itself where there is one."""
    flat = [piece for factor in factors for piece in _factors(factor)]
    return flat[0] if len(flat) == 1 else Product(flat)


def _in_order(term: Term) -> tuple[Atom | None, Order]:
    """The atom that a term is, in some order; None if it is more than one."""
    term = resolve(term)
    inner, order = (
        (term.inner, term.order) if isinstance(term, Permuted) else (term, tuple(range(term.size)))
    )
    return (inner if isinstance(inner, Atom) else None), order


def atoms(term: Term) -> Iterator[Atom]:
    """The unlinked atoms of `term`, in order, with repetitions."""
    term = find(term)
    if isinstance(term, Atom):
        yield term
    elif isinstance(term, Permuted):
        yield from atoms(term.inner)
    else:
        for child in term.parts if isinstance(term, Sum) else term.factors:
            yield from atoms(child)


def describe(term: Term) -> str:
    """A short text for messages, e.g. `(7 x 64)`."""
    term = resolve(term)
    if isinstance(term, Sum):
        return "(" + " + ".join(map(describe, term.parts)) + ")"
    if isinstance(term, Product):
        return "(" + " x ".join(map(describe, term.factors)) + ")"
    if isinstance(term, Permuted):
        return f"{describe(term.inner)} in another order"
    return term.name or str(term.size)


Moves: TypeAlias = dict[int, Order]  # by axis


class Solver:
    """Holds the context that rules and unification need: what is being traced right now."""

    def __init__(self, facts: Sequence[Fact] = ()) -> None:
        self.source: Source = None  # of the equation at hand
        self.facts = facts  # of its operands; none where nothing is known
        self.moves: Moves = {}  # axes of its first operand that it puts into another order

    def fresh(self, size: int) -> Atom:
        """A new unknown width. A width of 0 or 1 is fixed: it broadcasts, it does not count."""
        return Atom(size, Pin(f"size {size}", self.source) if size <= 1 else None)

    def fixed(self, size: int, reason: str) -> Atom:
        """A new width that may not change."""
        return Atom(size, Pin(reason, self.source))

    def pin(self, term: Term, reason: str) -> None:
        """Says that the width of `term` may not change. The first reason given is kept."""
        for atom in atoms(term):
            if atom.pin is None:
                atom.pin = Pin(reason, self.source)

    def unify(self, a: Term, b: Term) -> None:
        """Makes `a` and `b` the same width, position by position."""
        a, b = find(a), find(b)
        if a is b:
            return
        if a.size != b.size:
            raise AssertionError(f"widths {a.size} and {b.size} cannot be the same axis")
        if isinstance(a, Atom):
            if isinstance(b, Atom):
                self._link(a, b)
            else:
                self._bind(a, b)
        elif isinstance(b, Atom):
            self._bind(b, a)
        elif isinstance(a, Permuted):
            self._reorder(a, b)
        elif isinstance(b, Permuted):
            self._reorder(b, a)
        elif a.size <= 1:  # nothing to align, and an empty factor divides nothing
            self._give_up(a, b)
        elif isinstance(a, Sum) and isinstance(b, Sum):
            self._align(deque(_parts(a)), deque(_parts(b)), self._cut)
        elif isinstance(a, Product) and isinstance(b, Product):
            self._align(deque(_factors(a)), deque(_factors(b)), self._divide)
        elif isinstance(a, Sum) and isinstance(b, Product):
            self._distribute(a, b)
        elif isinstance(a, Product) and isinstance(b, Sum):
            self._distribute(b, a)

    def _link(self, a: Atom, b: Atom) -> None:
        if a.name is not None and b.name is not None and a.name != b.name:
            reason = f"ties {a.name} to {b.name}"
            self.pin(a, reason)
            self.pin(b, reason)
        b.pin = b.pin or a.pin
        b.name = b.name or a.name
        a.link = b

    def _bind(self, atom: Atom, term: Term) -> None:
        if any(leaf is atom for leaf in atoms(term)):
            self._give_up(atom, term)
            return
        if atom.name is not None:
            self.pin(atom, f"splits {atom.name} into {describe(term)}")
        if atom.pin is not None:
            for leaf in atoms(term):
                leaf.pin = leaf.pin or atom.pin
        atom.link = term

    def _reorder(self, term: Permuted, other: Term) -> None:
        """x in another order ~ other: x ~ other in the order that takes that back."""
        left, right = resolve(term), permuted(other, inverse(term.order))
        if isinstance(left, Permuted) and isinstance(other, Permuted) and left.order == other.order:
            self.unify(left.inner, other.inner)
        elif not isinstance(left, Permuted):  # what it is made of has become known
            self.unify(left, other)
        elif isinstance(find(left.inner), Atom) or not isinstance(right, Permuted):
            self.unify(left.inner, right)
        elif isinstance(other, Permuted) and isinstance(find(other.inner), Atom):
            self.unify(other.inner, permuted(left, inverse(other.order)))
        else:
            self._give_up(left, other)

    def _align(
        self,
        left: deque[Term],
        right: deque[Term],
        split: Callable[[Term, int], tuple[Term, Term] | None],
    ) -> None:
        """Walks two flat lists in step, splitting the larger head where the sizes differ."""
        unpack = _parts if split == self._cut else _factors
        while left and right:
            for queue in (left, right):  # an earlier step may have split this atom meanwhile
                queue.extendleft(reversed(unpack(queue.popleft())))
            p, q = left.popleft(), right.popleft()
            if p.size == q.size:
                self.unify(p, q)
                continue
            longer, shorter = (p, q) if p.size > q.size else (q, p)
            halves = split(longer, shorter.size)
            if halves is None:
                self._give_up(p, q, *left, *right)
                return
            self.unify(shorter, halves[0])
            (left if longer is p else right).appendleft(halves[1])

    def _cut(self, term: Term, size: int) -> tuple[Term, Term]:
        """Splits `term` into its first `size` positions and the rest."""
        atom, order = _in_order(term)
        if atom is not None:
            halves = self._piece(atom, size), self._piece(atom, atom.size - size)
            self._bind(atom, permuted(Sum(halves), inverse(order)))
            return halves
        term = find(term)
        if isinstance(term, Product):
            outer, *inner = _factors(term)
            rest = math.prod(factor.size for factor in inner)
            if size % rest == 0:
                first, second = self._cut(outer, size // rest)
                return merge([first, *inner]), merge([second, *inner])
        parts = _parts(term)
        if len(parts) > 1:
            before: list[Term] = []
            while size >= parts[0].size:
                size -= parts[0].size
                before.append(parts.pop(0))
            if size:
                first, second = self._cut(parts.pop(0), size)
                before.append(first)
                parts.insert(0, second)
            return concatenation(before), concatenation(parts)
        self.pin(term, f"cut at {size}, inside {describe(term)}")
        pin = next(atoms(term)).pin
        return Atom(size, pin), Atom(term.size - size, pin)

    def _divide(self, term: Term, outer: int) -> tuple[Term, Term] | None:
        """Splits `term` into `outer` rows of equal length; None where it cannot be done."""
        atom, order = _in_order(term)
        if atom is None or atom.size % outer:
            return None
        halves = self._piece(atom, outer), self._piece(atom, atom.size // outer)
        self._bind(atom, permuted(Product(halves), inverse(order)))
        return halves

    def _piece(self, atom: Atom, size: int) -> Atom:
        return Atom(size, atom.pin or self.fresh(size).pin)

    def _distribute(self, total: Sum, product: Product) -> None:
        """a + b ~ p x r, where r divides a and b: p becomes p1 + p2, a ~ p1 x r, b ~ p2 x r."""
        parts, (outer, *inner) = _parts(total), _factors(product)
        rest = math.prod(factor.size for factor in inner)
        if any(part.size % rest for part in parts):
            self._give_up(total, product)
            return
        for part in parts[:-1]:
            head, outer = self._cut(outer, part.size // rest)
            self.unify(part, merge([head, *inner]))
        self.unify(parts[-1], merge([outer, *inner]))

    def _give_up(self, *terms: Term) -> None:
        reason = "cannot align " + " with ".join(map(describe, terms[:2]))
        for term in terms:
            self.pin(term, reason)


def freeze(term: Term) -> axes.Axis:
    """`term` as an immutable `Axis`: named atoms become groups, all others their seed size."""
    term = find(term)
    if isinstance(term, Sum):
        return axes.make_sum([freeze(part) for part in _parts(term)])
    if isinstance(term, Product):
        return axes.make_product([freeze(factor) for factor in _factors(term)])
    if isinstance(term, Permuted):
        whole = permuted(term.inner, term.order)
        if not isinstance(whole, Permuted):
            return freeze(whole)
        return axes.make_permuted(freeze(whole.inner), whole.order)
    return term.size if term.pin is not None or term.name is None else term.name
