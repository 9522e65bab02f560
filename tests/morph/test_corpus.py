"""The corpus: for every network the compact function equals the masked one, and groups are golden.

Networks are in `tests/corpus`, one per structural idea that is met in the wild.
"""

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corpus.case import normal
from corpus.costs import COSTS
from corpus.description import GOLDEN, describe, golden_file, render
from corpus.networks import NETWORKS
from corpus.soundness import compare, compare_traced, draw_alive, fill

import morph
import regularizers as reg
from regularizers.primitives import jaxprs

# fnet: said, and nothing that a width of a group could change.
pytestmark = pytest.mark.filterwarnings("ignore:fft has no price")

TOLERANCE = 1e-5  # of values and of gradients
# Networks that multiply weights with weights, or with constants such as an initial state.
WEIGHTS_ALONE = {
    "energy", "low_rank", "perceiver", "recurrent_attention", "settled", "spectral_norm",
}  # fmt: skip
# Only their values are compared: others have every equation of theirs, see the test.
REPEATED = {
    "autoregressive", "bilinear", "convnext", "diffusion_unet", "film", "frequencies", "gated_mlp",
    "gated_recurrence", "ghost", "graph_messages", "group_norm", "grouped_queries", "highway",
    "hourglass", "hypernetwork", "inception", "instance_norm", "lora", "maxout", "mixer",
    "multimodal", "nnx_lora", "nnx_mixer", "nnx_resnet", "nnx_siamese", "perceiver",
    "pixel_shuffle", "resnet_v1", "resnet_v2", "selective_kernel", "shufflenet_v1", "shufflenet_v2",
    "squeeze_excite", "squeezenet", "static_arguments", "talking_heads", "tcn", "tied_autoencoder",
    "tied_lm", "unet", "vae", "weight_norm",
}  # fmt: skip


@functools.cache
def case_of(name):
    return NETWORKS[name]()


@functools.cache
def graph_of(name, mode):
    case = case_of(name)
    call = case.train if mode == "train" else case.eval
    return reg.trace_channels(case.fn, case.variables, *case.inputs, **call)


def modes_of(name):
    return ["eval"] if case_of(name).train is None else ["eval", "train"]


def kinds_of(jaxpr):
    """Primitive, function and ranks of operands of every equation."""
    for eqn in jaxpr.eqns:
        ranks = tuple(len(jaxprs.shape_of(v)) for v in eqn.invars)
        yield eqn.primitive, eqn.params.get("name"), ranks
        for body in jaxprs.bodies_of(eqn):
            yield from kinds_of(body.jaxpr)


def test_gradients_of_every_kind_of_equation_are_compared():
    kinds = {name: set(kinds_of(graph_of(name, modes_of(name)[-1]).jaxpr)) for name in NETWORKS}
    compared = set[Any]().union(*(kinds[name] for name in NETWORKS if name not in REPEATED))
    assert not REPEATED - kinds.keys()
    assert not {name: kinds[name] - compared for name in REPEATED if kinds[name] - compared}


@pytest.mark.parametrize("name", NETWORKS)
def test_compact_equals_masked(name):
    """In eval mode and, where there is one, in train mode; gradients in the mode that trains."""
    case, modes = case_of(name), modes_of(name)
    for mode in modes:
        call = case.train if mode == "train" else case.eval
        slopes = mode == modes[-1] and name not in REPEATED
        graph = graph_of(name, mode)
        comparison = compare_traced(
            graph, case.fn, case.variables, case.inputs, call, gradients=slopes
        )
        assert comparison.values <= TOLERANCE, mode
        assert not slopes or comparison.gradients <= TOLERANCE, mode
        assert comparison.resized == comparison.exact, mode
        # Something shrank, or it says what is missing.
        assert comparison.exact or comparison.unknown, mode


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_of_an_architecture_equal_those_of_the_compacted_function(name):
    """All costs: at an architecture's widths, and of the small function traced anew."""
    case = case_of(name)
    for mode in modes_of(name):
        call = case.train if mode == "train" else case.eval
        graph = graph_of(name, mode)
        arch = morph.shrink(graph, draw_alive(graph, np.random.default_rng(0), 0.5))
        fn = morph.compact(case.fn, arch, rescale_means=True)
        small = reg.trace_channels(fn, arch.take(case.variables), *case.inputs, **call)
        for kind, build in COSTS.items():
            expected = build(small)()
            assert build(graph)(arch.widths) == pytest.approx(expected, rel=1e-9), (mode, kind)


@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_do_all_the_products(name):
    """What costs of kernels are made of, but for products that no input takes part in."""
    for mode in modes_of(name):
        graph = graph_of(name, mode)
        by_kernel = reg.cost_of_work(graph, "flops", "FLOP", lambda work, form: work.flops)
        assert (by_kernel() == reg.flops(graph)()) == (name not in WEIGHTS_ALONE), mode
        assert by_kernel() <= reg.flops(graph)()


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_are_golden(name):
    """In both modes. After a change: `python -m corpus.regenerate`, and read the difference."""
    golden = golden_file(name).read_text(encoding="utf-8")
    for mode in modes_of(name):
        assert render(describe(graph_of(name, mode))) + "\n" == golden, mode


def test_every_golden_file_belongs_to_a_network():
    assert {file.stem for file in GOLDEN.glob("*.json")} == set(NETWORKS)


def test_rendered_json_is_json():
    data = {"b": ["long " * 10] * 3, "a": {"c": [1, {"sum": ["x", 2]}], "d": True}, "empty": {}}
    text = render(data)
    assert json.loads(text) == data
    assert max(map(len, text.splitlines())) <= 100


# The comparison itself: each of these must be noticed.


def perceptron(v, x):
    h = jax.nn.relu(x @ v["first"])
    return {"out": h @ v["second"], "largest": (h @ v["second"]).argmax(-1)}


VARIABLES = fill(
    {
        name: jax.ShapeDtypeStruct(s, jnp.float32)
        for name, s in [("first", (5, 7)), ("second", (7, 3))]
    },
    np.random.default_rng(0),
)


def spoiled(monkeypatch, spoil):
    """Compares with a compact function whose outputs are changed."""
    honest = morph.compact

    def compact(fn, arch):
        return lambda v, *inputs: spoil(v, honest(fn, arch)(v, *inputs))

    monkeypatch.setattr(morph, "compact", compact)
    return compare(perceptron, VARIABLES, normal(2, 5))


def test_what_is_right_passes(monkeypatch):
    comparison = spoiled(monkeypatch, lambda v, out: out)
    assert comparison.values <= TOLERANCE
    assert comparison.gradients <= TOLERANCE
    assert (comparison.groups, comparison.exact, comparison.resized) == (1, 1, 1)
    assert (comparison.parameters_seed, comparison.parameters_small) == (8 * 7, 8 * 4)


def test_values_that_differ_are_seen(monkeypatch):
    def spoil(v, out):
        return {**out, "out": out["out"].at[0, 0].mul(1.0 + 1e-3)}

    assert spoiled(monkeypatch, spoil).values > TOLERANCE


def test_gradients_that_differ_are_seen(monkeypatch):
    def spoil(v, out):
        extra = 1e-3 * v["second"].sum()
        return {**out, "out": out["out"] + (extra - jax.lax.stop_gradient(extra))}

    comparison = spoiled(monkeypatch, spoil)
    assert comparison.values <= TOLERANCE < comparison.gradients


def test_values_that_are_not_finite_are_seen(monkeypatch):
    comparison = spoiled(monkeypatch, lambda v, out: {**out, "out": out["out"] * jnp.nan})
    assert comparison.values == np.inf


def test_integers_that_differ_are_seen(monkeypatch):
    with pytest.raises(AssertionError, match="largest"):
        spoiled(monkeypatch, lambda v, out: {**out, "largest": out["largest"] + 1})


def test_an_output_that_is_missing_is_seen(monkeypatch):
    with pytest.raises(AssertionError, match="outputs differ: largest, out and out"):
        spoiled(monkeypatch, lambda v, out: {"out": out["out"]})


@pytest.mark.parametrize(
    ("factor", "message"),
    [(np.inf, "'out' of the masked function is not finite"), (0.0, "all outputs .* are zero")],
)
def test_a_function_that_gives_nothing_to_compare_is_refused(factor, message):
    def fn(v, x):
        return {"out": perceptron(v, x)["out"] * factor}

    with pytest.raises(ValueError, match=message):
        compare(fn, VARIABLES, normal(2, 5))


def test_a_share_of_the_channels_is_kept_of_what_is_prunable():
    def fn(v, x):
        return jax.nn.relu(jax.nn.relu(x @ v["a"]) @ v["b"]) @ v["c"]

    shapes = {"a": (5, 7), "b": (7, 11), "c": (11, 3)}
    structs = {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in shapes.items()}
    variables = fill(structs, np.random.default_rng(0))
    for keep, kept in ((0.0, 1), (0.4, 3), (1.0, 6)):
        found = compare(fn, variables, normal(2, 5), keep=keep, gradients=False, prunable="a")
        assert (found.groups, found.resized) == (1, 1)
        assert found.parameters_small == 5 * kept + kept * 11 + 11 * 3
        assert np.isnan(found.gradients)


def test_filled_variables():
    structs = {
        "var": jax.ShapeDtypeStruct((50,), jnp.float32),
        "half": jax.ShapeDtypeStruct((2, 3), jnp.bfloat16),
        "waves": jax.ShapeDtypeStruct((2, 3), jnp.complex64),
        "index": jax.ShapeDtypeStruct((), jnp.int32),
        "given": jnp.asarray([3, 4]),
    }
    filled = fill(structs, np.random.default_rng(0))
    assert {name: leaf.dtype for name, leaf in filled.items()} == {
        name: leaf.dtype for name, leaf in structs.items()
    }
    assert filled["var"].min() >= 0.5
    assert filled["half"].all()
    assert filled["waves"].imag.all()
    assert filled["index"] == 0
    assert list(filled["given"]) == [3, 4]
