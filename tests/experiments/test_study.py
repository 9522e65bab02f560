"""The shelf of a sweep: a network is whole, or it is trained again."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.study import Shelf
from morph.cycle.members import Trained
from morph.cycle.progress import Outcome
from morph.cycle.workdir import save_variables
from morph.errors import WorkdirError


def outcome(architecture):
    facts = {"name": "shrunk", "accuracy": 0.5, "cost": 1.0, "flops": 1.0, "parameters": 3}
    return Outcome(**facts, widths=architecture.widths, steps=2)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(workdir=tmp_path, report={"dataset": "digits"})


@pytest.fixture
def trained(learned):
    variables = {"params": {"w": jnp.arange(5.0)}}
    record = {"phase": "shrink", "loss": float("nan")}
    return Trained(architecture=learned[1], variables=variables, metrics={}, records=(record,))


def test_variables_that_are_not_those_of_the_file_are_refused(shelf, trained):
    file = shelf.file("shrunk", 0, 0.5)
    assert shelf.outcome(file) is None
    save_variables(file.with_suffix(""), {"params": {"w": jnp.zeros(3)}})  # it was stopped here
    shelf.put(file, trained, [outcome(trained.architecture)])
    like = jax.eval_shape(lambda: trained.variables)
    found = shelf.variables(file, like)
    np.testing.assert_array_equal(found["params"]["w"], trained.variables["params"]["w"])
    assert shelf.outcome(file) == outcome(trained.architecture)
    assert json.loads(file.with_suffix(".jsonl").read_text())["loss"] is None
    save_variables(file.with_suffix(""), {"params": {"w": jnp.ones(5)}})
    with pytest.raises(WorkdirError, match="are of two networks"):
        shelf.variables(file, like)


def test_the_first_of_several_processes_keeps_its_network(shelf, trained):
    file = shelf.file("seed", 0)
    shelf.put(file, trained, [outcome(trained.architecture)])
    before = {path: path.read_bytes() for path in file.parent.rglob("*") if path.is_file()}
    shelf.put(file, trained, [outcome(trained.architecture)])
    assert {path: path.read_bytes() for path in file.parent.rglob("*") if path.is_file()} == before
