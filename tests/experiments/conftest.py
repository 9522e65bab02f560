"""Working directories as runs leave them, made in no time."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

import morph
import regularizers as reg
from experiments import datasets, networks
from experiments.models import network_of
from morph.architecture.architecture import Architecture
from morph.cycle.workdir import save_variables

NETWORK = "mlp"
CONFIG = {"seed_network": NETWORK, "dataset": "digits", "budget": 0.5, "seed": 0, "width": 0.05}


def outcome(name, accuracy, architecture, cost, **more):
    widths = architecture.widths
    flops = float(cost(widths))
    priced = {"cost": flops, "flops": flops, "parameters": sum(architecture.parameters().values())}
    rest = {"steps": 10, "width_multiplier": None, "logit_difference": None}
    return {"name": name, "accuracy": accuracy, "widths": widths, **priced, **rest, **more}


@pytest.fixture(scope="session")
def learned():
    """A seed network's architecture, a narrower one, and what widths cost."""
    model = networks.build(NETWORK, input_shape=(8, 8, 1), num_classes=10, width=0.05)
    x = jax.ShapeDtypeStruct((1, 8, 8, 1), "float32")
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    graph = reg.trace_channels(model.apply, variables, x)
    alive = {name: np.arange(width) % 3 > 0 for name, width in graph.widths.items()}
    return Architecture.of_seed(graph), morph.shrink(graph, alive), reg.flops(graph)


@pytest.fixture
def make_run(tmp_path, learned):
    """Makes the working directory of a run; `finished=False` as it is before its end."""

    def make(name, *, accuracy=0.9, finished=True, seconds=83.4, **config):
        place = tmp_path / name
        place.mkdir()
        asked = {**CONFIG, **config}
        (place / "config.json").write_text(json.dumps(asked))
        records = [
            {"phase": "seed", "phase_index": 0, "step": 10, "loss": 1.5, "test_accuracy": 0.7},
            {"phase": "shrink", "phase_index": 1, "step": 5, "loss": 0.5, "cost_ratio": 0.8,
             "target_ratio": 0.7, "strength": 0.1},
        ]  # fmt: skip
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (place / "metrics.jsonl").write_text(lines + ("" if finished else '{"phase": "shr'))
        if not finished:
            return place
        seed, small, cost = learned
        outcomes = [
            outcome("seed", 0.95, seed, cost),
            outcome("shrunk", accuracy, small, cost, logit_difference=1e-7, same_predictions=True),
        ]
        facts = {
            **{name: asked[name] for name in ("seed_network", "dataset", "width")},
            "data_fingerprint": "25bb209edf45b400",
            "target": "flops",
            "unit": "FLOP",
            "seed_cost": float(cost()),
            "config": {"batch_size": 32, "seed": asked["seed"]},
            "outcomes": outcomes,
        }
        replace(small, report=facts).save(place / "architecture.json")
        results = {**facts, "command": "python -m experiments.run --x='<b>'", "seconds": seconds}
        results |= {"device": "cpu", "python": "3.11", "versions": {"jax": "0"}}
        (place / "results.json").write_text(json.dumps(results))
        return place

    return make


@pytest.fixture
def run(make_run):
    """A run that left variables, too."""
    workdir = make_run("run")
    architecture = Architecture.load(workdir / "architecture.json")
    data = datasets.load("digits")
    network = network_of(NETWORK, data, CONFIG["width"]).resized(architecture)
    save_variables(
        workdir / "variables", jax.jit(network.init)(jax.random.key(0), data.train_images[:1])
    )
    return workdir
