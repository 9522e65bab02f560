"""What is faster is measured once."""

import jax
from kernel_cases import assert_close, factorized, normal

import morph
from morph.kernels import measure
from morph.kernels.tensorized import settled


def test_auto_measures_once_and_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured = []
    own = measure._measure
    monkeypatch.setattr(measure, "_measure", lambda *a: measured.append(a[1]) or own(*a))
    variables, x = {"k": factorized("svd", (40, 30), "io")}, normal(5, 40)
    fn = morph.tensorized(lambda variables, x: x @ variables["k"], mode="auto")
    found = jax.jit(fn)(variables, x)
    assert_close(found, x @ variables["k"].dense())
    fn(variables, x)
    assert len(measured) == 1
    measure._known.cache_clear()  # as a new process
    fn(variables, x)
    assert len(measured) == 1
    fn(variables, normal(6, 40))
    assert len(measured) == 2


def test_settled_keeps_what_is_faster_factorized(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fastest = {"first": "einsum", "last": "dense"}

    def measured(ways, eqn, taken):
        assert set(ways) == {"factorized", "einsum", "reconstructed", "dense"}
        which = {(40, 30): "first", (30, 20): "last"}[taken["dense"][1].shape]
        return {name: float(name != fastest[which]) for name in ways}

    monkeypatch.setattr(measure, "_measure", measured)
    variables = {
        "first": factorized("tt", (40, 30), "io"),
        "last": factorized("svd", (20, 30), "io"),
        "bias": normal(1, 20),
    }
    x = normal(5, 40)
    fn = lambda v, x: x @ v["first"] @ v["last"].T + v["bias"]  # noqa: E731
    found = settled(fn, variables, x)
    assert_close(found["last"], variables["last"].dense())
    assert found["first"].format == variables["first"].format
    assert_close(morph.tensorized(fn)(found, x), morph.tensorized(fn)(variables, x))
