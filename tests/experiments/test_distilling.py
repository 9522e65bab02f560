"""Distillation: it learns, it goes on where it was stopped, and it keeps to its folder."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.distilling import Distillation
from morph.errors import WorkdirError
from morph.training.losses import responses

rng = np.random.default_rng(0)
TEACHER = {"params": {"kernel": jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)}}
START = {"params": {"kernel": jnp.zeros((4, 3), jnp.float32)}}
HELD_OUT = rng.normal(size=(50, 5)).astype(np.float32)


def teacher(variables, x):
    return x @ variables["params"]["kernel"]


def student(variables, x):
    return teacher(variables, x[:, :4])


def batch(step):
    rows = 7 if step % 2 else 11  # shapes may differ
    return np.random.default_rng(step).normal(size=(rows, 5)).astype(np.float32)


def look(variables):
    return {"off": float(responses(student(variables, HELD_OUT), teacher(TEACHER, HELD_OUT)))}


LESSON = Distillation(
    teacher=teacher, taught_by=TEACHER, student=student, loss=responses, batch=batch, steps=60,
    rate=0.1, every=25,
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return LESSON.run(START, tmp_path_factory.mktemp("whole"), look, told={"budget": 0.8})


def test_it_learns_what_can_be_learned(whole):
    learned, curve = whole
    assert [point["step"] for point in curve] == [0, 25, 50, 60]
    assert curve[0]["off"] == pytest.approx(1.0)
    best = np.square(np.asarray(TEACHER["params"]["kernel"])[4]).sum()  # what the fifth input adds
    best /= np.square(np.asarray(TEACHER["params"]["kernel"])).sum()
    assert curve[-1]["off"] < 1.3 * best < 0.8
    assert np.all(np.diff([point["cpu_s"] for point in curve]) > 0.0)
    assert not TEACHER["params"]["kernel"].is_deleted()
    assert not np.any(START["params"]["kernel"])
    np.testing.assert_allclose(look(learned)["off"], curve[-1]["off"])


def test_stopped_it_goes_on_to_the_same_end(whole, tmp_path):
    seen = []

    def stops(variables):
        seen.append(variables)
        if len(seen) == 3:  # after step 50
            raise KeyboardInterrupt
        return look(variables)

    with pytest.raises(KeyboardInterrupt):
        LESSON.run(START, tmp_path, stops, told={"budget": 0.8})
    learned, curve = LESSON.run(START, tmp_path, look, told={"budget": 0.8})
    jax.tree.map(np.testing.assert_array_equal, learned, whole[0])
    assert [point["off"] for point in curve] == [point["off"] for point in whole[1]]
    again, _ = LESSON.run(START, tmp_path, look, told={"budget": 0.8})
    jax.tree.map(np.testing.assert_array_equal, again, learned)
    other = dataclasses.replace(LESSON, rate=0.2)
    with pytest.raises(WorkdirError, match=r"rate: 0.1 there, 0.2 asked for"):
        other.run(START, tmp_path, look, told={"budget": 0.8})
