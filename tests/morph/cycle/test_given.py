"""A run starts from weights: read from anywhere, checked, measured first, and not trained."""

import json

import flax.linen as nn
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from safetensors.numpy import save_file

import morph
import regularizers as reg
from morph.cycle.config import CycleConfig
from morph.cycle.cycle import Cycle
from morph.cycle.given import fitted, read_start
from morph.cycle.stamp import stamp_of
from morph.cycle.sweep import Sweep
from morph.cycle.workdir import save_variables
from morph.errors import StartError, WorkdirError
from morph.network import linen_network
from morph.training.data import Batch
from morph.training.losses import cosine_distance
from morph.training.task import Task

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 5)).astype(np.float32)


class Net(nn.Module):
    """An embedding of three numbers."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="out")(nn.relu(nn.Dense(16, name="hidden")(x)))


NETWORK = linen_network(Net(), train_kwarg=None)
VARIABLES = jax.device_get(NETWORK.init(jax.random.key(1), X[:1]))
LIKE = jax.eval_shape(NETWORK.init, jax.random.key(0), X[:1])
FLAT = {
    "params.hidden.kernel": VARIABLES["params"]["hidden"]["kernel"],
    "params.hidden.bias": VARIABLES["params"]["hidden"]["bias"],
    "params.out.kernel": VARIABLES["params"]["out"]["kernel"],
    "params.out.bias": VARIABLES["params"]["out"]["bias"],
}


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_weights_are_read_from_anywhere(tmp_path, monkeypatch):
    save_variables(tmp_path / "orbax", VARIABLES)
    save_file(FLAT, tmp_path / "dots.safetensors")
    bare = {name.removeprefix("params.").replace(".", "/"): leaf for name, leaf in FLAT.items()}
    save_file(bare, tmp_path / "slashes.safetensors")
    (tmp_path / "weights.py").write_text("def made():\n    return TREE\n")
    monkeypatch.chdir(tmp_path)
    places = ["orbax", "dots.safetensors", "slashes.safetensors", lambda: VARIABLES, VARIABLES]
    for place in places:
        assert_same(fitted(read_start(place), LIKE), VARIABLES)
    with pytest.raises(StartError, match="cannot be read: NameError: name 'TREE' is not defined"):
        read_start("weights.py:made")


def test_the_state_of_an_nnx_model_is_taken(tmp_path):
    """As it is, and as Orbax keeps it: without collections, statistics and all."""

    def make(rngs):
        return nnx.Sequential(nnx.Linear(5, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs))

    model = make(nnx.Rngs(1))
    _, wanted = reg.nnx_function(model)
    with ocp.StandardCheckpointer() as writer:
        writer.save(tmp_path / "orbax", nnx.state(model))
    like = jax.eval_shape(lambda: reg.nnx_function(make(nnx.Rngs(0)))[1])
    for start in (nnx.state(model), tmp_path / "orbax"):
        assert_same(fitted(read_start(start), like), wanted)


def without(name, **more):
    return {path: leaf for path, leaf in FLAT.items() if path != name} | more


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (
            without("params.out.bias", **{"params.outt.bias": np.zeros(3)}),
            "no 'params/out/bias'; did you mean 'params/outt/bias'",
        ),
        (without("params.out.bias"), "do not fit the network: there is no 'params/out/bias'$"),
        (FLAT | {"params.other": np.zeros(3)}, "the network has no 'params/other'; did you mean"),
        (
            FLAT | {"params.out.bias": np.zeros(4)},
            r"params/out/bias is \[4\] there, and must be \[3\]",
        ),
        (FLAT | {"params.out.bias": np.full(3, np.nan)}, "not finite: params/out/bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused(start, message):
    with pytest.raises(StartError, match=message):
        fitted(start, LIKE)


def test_what_is_no_place_of_weights_is_refused(tmp_path):
    with pytest.raises(StartError, match=r"a directory that Orbax wrote, a file of safetensors"):
        read_start(tmp_path / "nowhere")
    (tmp_path / "broken.safetensors").write_bytes(b"12345678")
    for place in (tmp_path, tmp_path / "broken.safetensors"):
        with pytest.raises(StartError, match="cannot be read: "):
            read_start(place)


CONFIG = CycleConfig(
    penalty="group_lasso",
    shrink_steps=30,
    retrain_steps=10,
    batch_size=16,
    distill=1.0,
    distill_by="embeddings",
    metrics="cosine_similarity",
    loss="cosine_distance",
)


def make(workdir, start, **settings):
    """A student of the given network's embeddings; there are no labels."""
    away = {"spread": lambda outputs, batch: outputs.std(-1)}
    return Cycle(
        network=NETWORK,
        train=Batch(X),
        test=Batch(X[:40]),
        config=CycleConfig(**{**vars(CONFIG), **settings}),
        workdir=workdir,
        start=start,
        task=Task(metrics=away),
    )


def test_the_given_network_is_measured_and_teaches_without_any_label(tmp_path):
    given = jax.tree.map(jax.numpy.asarray, VARIABLES)
    result = make(tmp_path, given).run()
    assert_same(given, VARIABLES)  # it was not donated
    seed, shrunk, tuned = result.outcomes
    assert (seed.steps, shrunk.steps, tuned.steps) == (0, 30, 40)
    outputs = NETWORK.predict(VARIABLES, X[:40])
    assert seed.metrics["spread"] == pytest.approx(float(outputs.std(-1).mean()), rel=1e-5)
    student = result.network.predict(result.variables, X[:40])
    assert cosine_distance(student, outputs) < 0.5 * cosine_distance(-student, outputs)
    assert shrunk.flops <= 0.5 * seed.flops
    against = result.against_seed
    assert against["flops"] == tuned.flops / seed.flops
    assert against["spread"] == tuned.metrics["spread"] - seed.metrics["spread"]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    phases = [json.loads(line)["phase"] for line in lines]
    assert "seed" not in phases
    report = morph.Architecture.load(tmp_path / "architecture.json").report
    assert report["start_fingerprint"] == stamp_of(VARIABLES)
    assert make(tmp_path, given).run().outcomes == result.outcomes  # it is finished
    other = jax.tree.map(lambda leaf: leaf + 1.0, given)
    with pytest.raises(WorkdirError, match="start_fingerprint"):
        make(tmp_path, other).run()


def test_a_sweep_starts_from_weights_too():
    config = CycleConfig(
        penalty="group_lasso", loss="cosine_distance", metrics="cosine_similarity", batch_size=16
    )
    sweep = Sweep(
        network=NETWORK,
        train=Batch(X, X[:, :3]),
        test=Batch(X, X[:, :3]),
        config=config,
        start=VARIABLES,
    )
    sweep.check([0.5])
    first, second = sweep.train_seeds([0, 1])
    assert_same(first.variables, VARIABLES)
    assert first.metrics == second.metrics
    assert sweep.config.seed_steps == 0
