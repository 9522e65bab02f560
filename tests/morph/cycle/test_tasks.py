"""Any task runs the main road: trees go in and come out, a stream is measured, terms add up."""

import itertools
import json

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

import morph
from morph.cycle.config import CycleConfig
from morph.cycle.cycle import Cycle
from morph.errors import DataError
from morph.training.data import Batch
from morph.training.losses import masked_cross_entropy, responses
from morph.training.metrics import METRICS, mean_of
from morph.training.task import Task

TOKENS, LENGTH = 7, 5


class Tagger(nn.Module):
    """Tells of every token a class, and of every sentence an embedding."""

    @nn.compact
    def __call__(self, ids, mask, *, train=False):
        del train
        x = nn.relu(nn.Dense(24)(nn.Embed(TOKENS, 8)(ids)))
        weight = jnp.expand_dims(mask, -1)
        embedding = nn.Dense(3, name="embedding")((x * weight).sum(1) / weight.sum(1))
        return {"logits": nn.Dense(TOKENS, name="head")(x), "embedding": embedding}


def batch_of(number, size=16):
    rng = np.random.default_rng(number)
    ids = rng.integers(0, TOKENS, (size, LENGTH)).astype(np.int32)
    mask = (np.arange(LENGTH) < rng.integers(2, LENGTH + 1, (size, 1))).astype(np.float32)
    labels = {"tags": np.where(mask > 0, (ids + 1) % TOKENS, -1), "length": mask.sum(1)}
    return Batch({"ids": ids, "mask": mask}, labels)


class Endless:
    """A pipeline."""

    def batches(self, start):
        return map(batch_of, itertools.count(start))


def loss(outputs, batch):
    """Tags, and lengths as the norm of embeddings."""
    norm = jnp.abs(outputs["embedding"]).sum(-1)
    return {
        "tags": masked_cross_entropy(outputs["logits"], batch.y["tags"]),
        "length": 0.1 * jnp.square(norm - batch.y["length"]).mean(),
    }


def right(outputs, batch):
    """Of tokens that are no padding."""
    return outputs["logits"].argmax(-1) == batch.y["tags"], batch.x["mask"]


TASK = Task(loss=loss, metrics={"tags": mean_of(right)}, distill=responses)
TEST = [batch_of(1000), batch_of(1001, 11)]
CONFIG = CycleConfig(
    penalty="group_lasso",
    seed_steps=40,
    shrink_steps=40,
    retrain_steps=10,
    batch_size=16,
    learning_rate=0.3,
    distill=0.5,
)


def make(workdir, task=TASK, train=None, test=TEST, **settings):
    config = CycleConfig(**{**vars(CONFIG), **settings})
    network = morph.linen_network(Tagger())
    train = Endless() if train is None else train
    return Cycle(network=network, train=train, test=test, config=config, workdir=workdir, task=task)


def test_a_tagger_of_masked_tokens_shrinks_and_keeps_what_it_says(tmp_path):
    result = make(tmp_path).run()
    seed, shrunk, tuned = result.outcomes
    assert shrunk.flops <= 0.5 * seed.flops
    assert shrunk.logit_difference < 1e-5
    assert shrunk.same_predictions is None
    assert seed.accuracy is None
    assert min(seed.metrics["tags"], tuned.metrics["tags"]) > 0.9
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert records[0]["loss"] == pytest.approx(records[0]["loss_tags"] + records[0]["loss_length"])
    assert records[-1]["loss_distill"] < records[-1]["loss"]
    outputs = [result.network.predict(result.variables, batch.x) for batch in TEST]
    said = np.concatenate([one["logits"].argmax(-1) for one in outputs])
    tags = np.concatenate([batch.y["tags"] for batch in TEST])
    assert tuned.metrics["tags"] == pytest.approx((said == tags)[tags >= 0].mean())


ONE = batch_of(0, 32)
TUPLE = ONE._replace(x=(ONE.x["ids"], ONE.x["mask"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": Task(loss=lambda o, b: o["embedding"])}, r"loss .* must be a scalar.*\[16, 3\]"),
        ({"task": Task(loss=lambda o, b: {"a": o["embedding"]})}, r"term 'a', must be a scalar"),
        ({"task": Task(loss=lambda o, b: {})}, "has no terms"),
        ({"task": Task(loss=lambda o, b: o["logit"])}, "cannot be computed.*KeyError: 'logit'"),
        (
            {"task": Task(metrics={"mine": lambda o, b: o})},
            "the loss cross_entropy takes one array",
        ),
        (
            {
                "task": Task(
                    loss=loss, distill=responses, metrics={"m": lambda o, b: o["logits"][0]}
                )
            },
            r"metric 'm': a metric gave shape \(5, 7\) for a batch of 16",
        ),
        ({"task": Task(loss=loss)}, "distill_by is 'logits', which takes one array"),
        (
            {"task": Task(loss=loss), "distill": 0.0},
            "the metric 'accuracy' cannot be computed of outputs",
        ),
        ({"train": ONE._replace(y=None)}, "labels of the training set are none, of the test set"),
        ({"train": TUPLE}, r"inputs of the training set are \(int32\[32, 5\], .* same structure"),
        ({"train": TUPLE, "test": TUPLE._replace(x=TUPLE.x[0])}, "same structure"),
        ({"train": TUPLE._replace(x=TUPLE.x[:1]), "test": TUPLE._replace(x=TUPLE.x[:1])}, "mask"),
        ({"mixup": 0.2, "train": ONE}, "mixup is 0.2, which blends inputs; int32 cannot"),
        ({"augment": "flip", "train": ONE}, "augment is 'flip', which needs images"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_any_training(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        make(tmp_path / "new", **changes).run()
    assert not (tmp_path / "new").exists()


def test_a_loss_that_wants_labels_says_that_there_are_none(tmp_path):
    images = Batch(np.ones((32, 4), np.float32))
    network = morph.linen_network(nn.Dense(3), train_kwarg=None)
    cycle = Cycle(network=network, train=images, test=images, config=CONFIG, workdir=tmp_path)
    with pytest.raises(DataError, match="compares outputs with labels, but the training set has"):
        cycle.run()
    cycle.task = Task(loss=lambda outputs, batch: (outputs - batch.y).mean(), metrics=METRICS)
    with pytest.raises(DataError, match="have no labels: y is None"):
        cycle.run()
