"""Answers on the test set: counted against labels, or as tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import morph
from experiments import tested
from experiments.report.answers import answers_section, metrics_table
from morph.errors import DataError


class Told:
    """Gives what it is told to."""

    def __init__(self, predict):
        self.predict = predict


def test_a_confusion_matrix_counts_every_example(monkeypatch):
    monkeypatch.setattr(tested, "_ROWS", 2)
    given, labels = np.array([0, 2, 1, 2, 2]), np.array([0, 1, 1, 2, -1])
    one_hot = Told(lambda variables, x: variables * jax.nn.one_hot(x, 3))
    whole = morph.Batch(given, labels)
    counts = [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    assert tested.tested(one_hot, 2.0, whole) == {"confusion": counts}
    batches = [whole.rows(slice(0, 3)), (given[3:], labels[3:])]
    assert tested.tested(one_hot, 2.0, batches) == {"confusion": counts}
    page = answers_section({"confusion": counts})
    assert "3 of 4 test examples" in page
    assert page.count("<strong>1</strong>") == 3
    assert "50.0 %" in page
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert tested.tested(one_hot, 2.0, whole) == {}


def test_texts_go_on_with_the_likeliest_token(monkeypatch):
    monkeypatch.setattr(tested, "SAMPLES", 2)
    monkeypatch.setattr(tested, "LENGTH", 6)
    tokens = np.array([[1, 2, 3, 4], [4, 3, 2, 1], [0, 0, 0, 0]])

    def sums(variables, x):  # of this token and the one before
        return jax.nn.one_hot((x + jnp.roll(x, 1, axis=1)) % variables, 9)

    known, other = Told(sums), Told(lambda variables, x: sums(variables, x)[:, 0])
    given = tested.prompts(known, 9, morph.Batch(tokens))
    np.testing.assert_array_equal(given, tokens[:2, :3])
    found = tested.written(
        {"a": (known, 9), "b": (known, 5)}, given, lambda row: "".join(map(str, row))
    )
    assert found["texts"][0] == {"given": "123", "a": "584371", "b": "033140"}
    assert "584371" in answers_section(found)
    with pytest.raises(DataError, match=r"of tokens \[2, 9\] this one gives \[2, 9\]"):
        tested.prompts(other, 9, morph.Batch(tokens))


def test_tokens_are_shown_beside_what_is_predicted(monkeypatch):
    monkeypatch.setattr(tested, "SAMPLES", 1)
    ids = np.arange(8, dtype=np.int32).reshape(2, 4)
    batch = morph.Batch({"ids": ids, "mask": ids > 0})
    following = Told(lambda variables, x: jax.nn.one_hot(x["ids"] + 1, 9))
    found = tested.tested(following, None, [batch])
    assert found == {"samples": [{"given": [0, 1, 2, 3], "predicted": [1, 2, 3, 4]}]}
    assert "1 2 3 4" in answers_section(found)


def test_other_outputs_and_many_classes_are_left_out():
    x, labels = np.ones((3, 2), np.float32), np.zeros(3, int)
    for predict, y in (
        (lambda variables, x: {"a": x}, labels),
        (lambda variables, x: x, x),  # a regression
        (lambda variables, x: jax.numpy.tile(x, 20), labels),
        (lambda variables, x: x[..., None], None),  # no tokens among the inputs
    ):
        assert tested.tested(Told(predict), None, morph.Batch(x, y)) == {}
    assert answers_section({}) == ""


def test_metrics_have_a_table_where_there_are_several():
    assert metrics_table([{"name": "seed", "metrics": {"accuracy": 0.5}}]) == ""
    rows = [{"name": "seed", "metrics": {"accuracy": 0.5, "mean_iou": 0.25}}, {"name": "uniform"}]
    page = metrics_table(rows)
    assert "mean iou" in page
    assert page.count("–") == 2
