"""What a plan says of kernels that lose much."""

import warnings

import numpy as np
import pytest

import morph
import regularizers as reg

M, N, K = 6, 9, 4
LARGE = "factorized kernels lose"


@pytest.fixture(scope="module")
def dense():
    """Noise, and a kernel of rank 2."""
    rng = np.random.default_rng(0)
    v = {
        "noise": rng.normal(size=(M, N)).astype(np.float32),
        "z": (rng.normal(size=(N, 2)) @ rng.normal(size=(2, K))).astype(np.float32),
    }

    def fn(v, x):
        return np.tanh(1.0) * (x @ v["noise"]) @ v["z"]

    return v, reg.trace_channels(fn, v, np.ones((1, M), np.float32))


@pytest.mark.parametrize(
    "asked",
    [{"rank": 1}, {"budget": 0.4}, {"energy": 0.99, "rank": None, "kind": {"z": "svd"}}],
    ids=str,
)
def test_large_errors_are_warned_of_once(dense, asked):
    v, graph = dense
    asked = {"kind": "svd", **asked}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        plan = morph.tensorize_plan(graph, v, **asked)
    lossy = {path: k.error for path, k in plan.kernels.items() if k.error > 0.5}
    assert len(told) == bool(lossy)
    assert ("energy" not in asked) == bool(lossy)
    if lossy:
        (one,) = told
        assert one.category is morph.LossyPlanWarning
        assert one.filename == __file__
        assert f"{len(lossy)} of {len(plan.kernels)} {LARGE}" in str(one.message)
        assert f"noise {lossy['noise']:.0%}" in str(one.message)
        assert 'kind={"noise": "dense", "*": "auto"}' in str(one.message)


def test_a_loss_that_was_asked_for_is_not_warned_of(dense):
    v, graph = dense
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loose = morph.tensorize_plan(graph, v, kind="svd", error=0.85)
        morph.tensorize_plan(graph, v, kind="svd", energy=0.3)
    assert max(kernel.error for kernel in loose.kernels.values()) > 0.5
    assert f"{LARGE.removeprefix('factorized ')} more than 50%" in str(loose)


def test_of_candidates_only_the_one_that_stays_is_warned_of(dense):
    v, graph = dense
    x = np.random.default_rng(1).normal(size=(1, M)).astype(np.float32)
    with pytest.warns(morph.LossyPlanWarning) as told:
        morph.tensorize_plan(
            graph, v, kind="svd", rank=1, calibration=(x,), evaluate=lambda cores: 1.0
        )
    assert len(told) == 1


def test_the_notes_of_a_kernel_say_what_it_loses(dense):
    v, graph = dense
    plan = morph.tensorize_plan(graph, v, kind={"noise": "svd", "*": "dense"}, rank=1)
    error = plan.kernels["noise"].error
    assert f"loses {error:.0%} of its norm: train on" in plan.kernels["noise"].notes[0]
    good = morph.tensorize_plan(graph, v, kind={"z": "svd", "*": "dense"}, rank=2)
    assert good.kernels["z"].notes == ()
