import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regularizers.primitives import axes as ax
from regularizers.primitives import terms
from regularizers.primitives.terms import Atom, Product, Solver, Sum, find, freeze, resolve


@pytest.fixture
def solver():
    return Solver()


def named(**sizes):
    return [Atom(size, name=name) for name, size in sizes.items()]


def reasons(term):
    return [atom.pin.reason if atom.pin else None for atom in terms.atoms(term)]


# Atoms


def test_atoms_link(solver):
    a, b, c = (solver.fresh(5) for _ in range(3))
    solver.unify(a, b)
    solver.unify(b, c)
    assert find(a) is find(b) is find(c)
    solver.unify(a, c)  # once more changes nothing
    assert find(a).link is None


def test_linked_atoms_share_their_name(solver):
    (a,), b = named(a=5), solver.fresh(5)
    solver.unify(a, b)
    assert freeze(a) == freeze(b) == "a"


def test_linked_atoms_share_their_pin(solver):
    a, b = solver.fixed(5, "axis of an input"), solver.fresh(5)
    solver.unify(a, b)
    assert reasons(b) == ["axis of an input"]
    c, d = solver.fresh(7), solver.fresh(7)
    solver.unify(c, d)
    solver.pin(c, "sorted along it")
    assert reasons(d) == ["sorted along it"]


def test_first_pin_is_kept_with_its_source(solver):
    a = solver.fresh(5)
    solver.source = ("line 1",)
    solver.pin(a, "first")
    solver.source = ("line 2",)
    solver.pin(a, "second")
    assert (a.pin.reason, a.pin.source) == ("first", ("line 1",))


def test_two_names_cannot_be_one_width(solver):
    a, b = named(a=5, b=5)
    solver.unify(a, b)
    assert reasons(a) == ["ties a to b"]
    assert freeze(a) == freeze(b) == 5


def test_different_sizes_are_never_the_same_axis(solver):
    with pytest.raises(AssertionError, match="widths 5 and 7 cannot be the same axis"):
        solver.unify(solver.fresh(5), solver.fresh(7))


@pytest.mark.parametrize("size", [0, 1])
def test_sizes_0_and_1_are_fixed(solver, size):
    a, b = solver.fresh(size), solver.fresh(size)
    assert reasons(a) == [f"size {size}"]
    solver.unify(a, b)
    assert freeze(a) == freeze(b) == size


def test_find_compresses_paths(solver):
    chain = [Atom(5) for _ in range(4)]
    for a, b in itertools.pairwise(chain):
        a.link = b
    assert find(chain[0]) is chain[-1]
    assert all(atom.link is chain[-1] for atom in chain[:-1])


# Binding


@pytest.mark.parametrize("make", [Sum, Product])
@pytest.mark.parametrize("flip", [False, True])
def test_atom_binds_to_a_term(solver, make, flip):
    term = make(named(a=5, b=7))
    whole = solver.fresh(term.size)
    solver.unify(*((term, whole) if flip else (whole, term)))
    frozen = {Sum: ax.Sum(("a", "b")), Product: ax.Product(("a", "b"))}
    assert freeze(whole) == frozen[make]


def test_pinned_atom_pins_what_it_binds_to(solver):
    a, b = named(a=5, b=7)
    solver.pin(b, "sorted along it")
    solver.unify(solver.fixed(12, "axis of an input"), Sum([a, b]))
    assert reasons(Sum([a, b])) == ["axis of an input", "sorted along it"]


def test_group_that_would_be_split_is_pinned(solver):
    (whole,) = named(whole=12)
    solver.unify(whole, Sum([solver.fresh(5), solver.fresh(7)]))
    assert reasons(whole) == ["splits whole into (5 + 7)"] * 2
    assert freeze(whole) == 12


def test_occurs_check(solver):
    a, nothing = solver.fresh(5), solver.fresh(0)
    solver.unify(a, Sum([a, nothing]))
    assert find(a) is a
    assert reasons(a) == ["cannot align 5 with 5"]


def test_occurs_check_through_links(solver):
    (a,), b, one = named(a=5), solver.fresh(5), solver.fresh(1)
    solver.unify(b, a)
    solver.unify(a, Product([one, b]))
    assert freeze(a) == 5


# Sum ~ Sum


def test_sums_of_equal_boundaries_align(solver):
    left, right = named(a=5, b=7), [solver.fresh(5), solver.fresh(7)]
    solver.unify(Sum(left), Sum(right))
    assert [freeze(part) for part in right] == ["a", "b"]


def test_sums_split_atoms_at_the_boundaries_of_both(solver):
    a, b = solver.fresh(5), solver.fresh(11)
    c, d = solver.fresh(9), solver.fresh(7)
    solver.unify(Sum([a, b]), Sum([c, d]))
    assert [part.size for part in resolve(c).parts] == [5, 4]
    assert [part.size for part in resolve(b).parts] == [4, 7]
    assert find(resolve(c).parts[0]) is find(a)
    assert find(resolve(b).parts[1]) is find(d)
    assert find(resolve(c).parts[1]) is find(resolve(b).parts[0])


def test_cut_of_a_product_cuts_its_outermost_factor(solver):
    rows, inner = solver.fresh(5), solver.fresh(7)
    top, rest = solver.fresh(14), solver.fresh(21)
    solver.unify(Sum([Product([rows, inner])]), Sum([top, rest]))
    assert terms.describe(rows) == "(2 + 3)"
    assert terms.describe(top) == "(2 x 7)"
    assert find(resolve(top).factors[1]) is find(resolve(rest).factors[1]) is inner


def test_cut_inside_a_row_pins(solver):
    rows, inner = solver.fresh(5), solver.fresh(7)
    product = Product([rows, inner])
    first, rest = solver.fresh(11), solver.fresh(24)
    solver.unify(Sum([product]), Sum([first, rest]))
    assert reasons(product) == ["cut at 11, inside (5 x 7)"] * 2
    assert reasons(first) == reasons(rest) == ["cut at 11, inside (5 x 7)"]


def test_empty_parts_do_not_count(solver):
    a, b = named(a=5, b=7)
    c, d = solver.fresh(5), solver.fresh(7)
    solver.unify(Sum([solver.fresh(0), a, b]), Sum([c, solver.fresh(0), d, solver.fresh(0)]))
    assert (freeze(c), freeze(d)) == ("a", "b")


def test_sum_with_itself_shifted(solver):
    a, b = solver.fresh(5), solver.fresh(5)
    solver.unify(Sum([a, b]), Sum([b, a]))
    assert find(a) is find(b)


def test_atom_that_appears_on_both_sides_is_split_once(solver):
    a, b, c = solver.fresh(10), solver.fresh(5), solver.fresh(5)
    solver.unify(Sum([a, a]), Sum([b, c, a]))
    assert terms.describe(a) == "(5 + 5)"
    assert [find(part) for part in resolve(a).parts] == [find(b), find(c)]


# Product ~ Product


def test_products_of_equal_factors_align(solver):
    left, right = named(a=5, b=7), [solver.fresh(5), solver.fresh(7)]
    solver.unify(Product(left), Product(right))
    assert [freeze(factor) for factor in right] == ["a", "b"]


def test_products_split_atoms_by_division(solver):
    a, b = solver.fresh(15), solver.fresh(7)
    c, d = solver.fresh(5), solver.fresh(21)
    solver.unify(Product([a, b]), Product([c, d]))
    assert terms.describe(a) == "(5 x 3)"
    assert terms.describe(d) == "(3 x 7)"
    assert find(resolve(a).factors[0]) is find(c)
    assert find(resolve(a).factors[1]) is find(resolve(d).factors[0])


def test_factors_of_one_do_not_count(solver):
    a, b = named(a=5, b=7)
    c, d = solver.fresh(5), solver.fresh(7)
    solver.unify(Product([solver.fresh(1), a, b]), Product([c, solver.fresh(1), d]))
    assert (freeze(c), freeze(d)) == ("a", "b")


def test_products_that_do_not_divide_pin(solver):
    left, right = Product(named(a=5, b=7)), Product(named(c=7, d=5))
    solver.unify(left, right)
    assert reasons(left) == reasons(right) == ["cannot align a with c"] * 2
    assert freeze(left) == freeze(right) == 35


def test_aligned_factors_stay_free_where_later_ones_do_not_divide(solver):
    (a,) = named(a=11)
    other = solver.fresh(11)
    left = Product([a, solver.fresh(5), solver.fresh(7)])
    right = Product([other, solver.fresh(7), solver.fresh(5)])
    solver.unify(left, right)
    assert freeze(left) == ax.Product(("a", 35))


# Sum ~ Product


@pytest.mark.parametrize("flip", [False, True])
def test_sum_distributes_over_the_outermost_factor(solver, flip):
    a, b = solver.fresh(14), solver.fresh(21)
    rows, inner = solver.fresh(5), Atom(7, name="inner")
    total, product = Sum([a, b]), Product([rows, inner])
    solver.unify(*((product, total) if flip else (total, product)))
    assert [part.size for part in resolve(rows).parts] == [2, 3]
    assert freeze(a) == ax.Product((2, "inner"))
    assert freeze(b) == ax.Product((3, "inner"))


def test_sum_that_no_row_divides_pins(solver):
    total, product = Sum(named(a=11, b=24)), Product(named(c=5, d=7))
    solver.unify(total, product)
    assert reasons(total) == reasons(product) == ["cannot align (a + b) with (c x d)"] * 2


def test_empty_sum_and_empty_product(solver):
    product = Product([solver.fresh(5), solver.fresh(0)])
    solver.unify(Sum([solver.fresh(0), solver.fresh(0)]), product)
    assert freeze(product) == 0


def test_products_of_nothing(solver):
    left = Product([solver.fresh(0), solver.fresh(7)])
    right = Product([solver.fresh(5), solver.fresh(0)])
    solver.unify(left, right)
    assert freeze(left) == freeze(right) == 0


# Normal forms


def test_merge_and_concatenation_are_flat(solver):
    a, b, c = named(a=5, b=7, c=11)
    assert terms.merge([a]) is a
    assert terms.concatenation([a]) is a
    assert terms.merge([terms.merge([a, b]), c]).factors == (a, b, c)
    assert terms.concatenation([a, terms.concatenation([b, c])]).parts == (a, b, c)
    assert terms.merge([]).size == 1
    assert terms.concatenation([]).size == 0


def test_freeze_joins_what_is_fixed(solver):
    (a,) = named(a=5)
    axis = Sum([Product([solver.fresh(2), a, solver.fresh(3), solver.fresh(7)]), solver.fresh(4)])
    assert freeze(axis) == ax.Sum((ax.Product((2, "a", 21)), 4))
    assert str(freeze(axis)) == "((2 x a x 21) + 4)"


def test_sizes_are_python_integers(solver):
    assert type(freeze(solver.fixed(np.int64(5), "padded"))) is int


def test_freeze_of_a_pinned_group_is_its_size(solver):
    (a,) = named(a=5)
    solver.pin(a, "sorted along it")
    assert freeze(a) == 5


# Any sequence of unifications


@st.composite
def networks_of_terms(draw):
    """Terms over a shared pool of atoms, and pairs of equal size to be unified."""
    solver = Solver()
    pool = [solver.fresh(draw(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7]))) for _ in range(5)]
    made = list(pool)
    for _ in range(draw(st.integers(2, 8))):
        few = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3))
        made.append(draw(st.sampled_from([Sum, Product]))(few))
    sizes = {term.size for term in made}
    for size in sizes:
        made += [solver.fresh(size) for _ in range(draw(st.integers(0, 2)))]
    pairs = [(a, b) for i, a in enumerate(made) for b in made[:i] if a.size == b.size]
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=8)) if pairs else []
    return solver, made, chosen


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(networks_of_terms())
def test_sizes_stay_consistent(drawn):
    solver, made, pairs = drawn
    seeds = [term.size for term in made]
    for a, b in pairs:
        solver.unify(a, b)
    free = {atom for term in made for atom in terms.atoms(term) if atom.pin is None}
    for i, atom in enumerate(sorted(free, key=id)):
        atom.name = f"g{i}"
    widths = {atom.name: atom.size for atom in free}
    for term, seed in zip(made, seeds, strict=True):
        assert ax.size(freeze(term), widths) == seed
        assert resolve(term).size == seed
    # Whatever the widths become, what was unified stays of one size.
    halved = {name: max(1, width // 2) for name, width in widths.items()}
    grown = {name: 3 * width + i for i, (name, width) in enumerate(widths.items())}
    for other in (halved, grown):
        for a, b in pairs:
            assert ax.size(freeze(a), other) == ax.size(freeze(b), other)


@settings(derandomize=True, database=None, deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([1, 2, 3, 5, 7]), min_size=1, max_size=5))
def test_axis_of_a_reshape_to_one_axis_and_back_is_its_own(sizes):
    solver = Solver()
    before, after = [solver.fresh(n) for n in sizes], [solver.fresh(n) for n in sizes]
    flat = solver.fresh(math.prod(sizes))
    solver.unify(flat, terms.merge(before))
    solver.unify(terms.merge(after), flat)
    for a, b in zip(before, after, strict=True):
        assert a.size == 1 or find(a) is find(b)
