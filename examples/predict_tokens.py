"""A decoder that predicts the next token, and an encoder that fills masked ones in, both shrunk.

    morph run --model=examples/predict_tokens.py:decoder \
        --data=examples/predict_tokens.py:data --loss=examples/predict_tokens.py:next_token \
        --metrics=examples/predict_tokens.py:told,examples/predict_tokens.py:perplexity ...

is what this file runs, with few steps, and then the same with `encoder` and `masked_tokens`. Inputs
are tokens with a mask: sentences have different lengths. There are no labels: tokens are their own.
"""

import tempfile
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import morph
from experiments import run
from morph.training import masked_cross_entropy

TOKENS, LENGTH, MASK = 12, 16, 11


class Transformer(nn.Module):
    """One block: attention to what came before, or to all, and a perceptron."""

    causal: bool = True

    @nn.compact
    def __call__(self, ids, mask, train: bool = False):
        width = 24
        x = nn.Embed(TOKENS, width)(ids) + self.param(
            "positions", nn.initializers.normal(0.1), (1, LENGTH, width)
        )
        seen = nn.make_attention_mask(mask, mask)
        if self.causal:
            seen = nn.combine_masks(seen, nn.make_causal_mask(ids))
        y = nn.LayerNorm()(x)
        x += nn.MultiHeadDotProductAttention(num_heads=2, name="attention")(y, mask=seen)
        x += nn.Dense(width, name="down")(nn.gelu(nn.Dense(64, name="up")(nn.LayerNorm()(x))))
        return nn.Dense(TOKENS, name="head")(nn.LayerNorm()(x))


decoder, encoder = Transformer(causal=True), Transformer(causal=False)


def sentences(number: int, size: int = 32) -> morph.Batch:
    """Sentences that count up by 1 or 3, modulo 11, of different lengths."""
    rng = np.random.default_rng(number)
    start, step = rng.integers(0, 11, (size, 1)), rng.choice([1, 3], (size, 1))
    ids = ((start + step * np.arange(LENGTH)) % 11).astype(np.int32)
    mask = np.arange(LENGTH) < rng.integers(6, LENGTH + 1, (size, 1))
    return morph.Batch({"ids": ids, "mask": mask})


class Sentences:
    """An endless pipeline; the same number is always the same batch."""

    def batches(self, start: int):
        number = start
        while True:
            yield sentences(number)
            number += 1


class Held:
    """An evaluation set that comes in batches, again at every pass."""

    def __iter__(self):
        return map(sentences, range(1_000_000, 1_000_004))


def data():
    return Sentences(), Held()


def following(batch: morph.Batch):
    """The next token of each, -1 where there is none."""
    ids, mask = batch.x["ids"], batch.x["mask"]
    return jnp.where(mask[:, 1:] & mask[:, :-1], ids[:, 1:], -1)


def next_token(logits, batch):
    """Cross-entropy of the next token."""
    return masked_cross_entropy(logits[:, :-1], following(batch))


def told(logits, batch):
    """The share of next tokens that are told: values and their weights."""
    y = following(batch)
    return logits[:, :-1].argmax(-1) == y, y >= 0


perplexity = morph.Metric(
    measure=lambda logits, batch: (
        next_token(logits, batch) * (following(batch) >= 0).sum(),
        (following(batch) >= 0).sum(),
    ),
    compute=lambda state: np.exp(state[0] / state[1]),
    lower=True,
)


def hidden(key, batch):
    """A sixth of the tokens become MASK; these are the labels. Drawn anew in every step."""
    ids, mask = batch.x["ids"], batch.x["mask"]
    chosen = jax.random.bernoulli(key, 1 / 6, ids.shape) & mask
    y = jnp.where(chosen, ids, -1)
    return morph.Batch({"ids": jnp.where(chosen, MASK, ids), "mask": mask}, y)


def masked_data():
    """The same sentences; in the evaluation set what is masked stays the same."""
    mask = partial(hidden, jax.random.key(0))
    return Masked(), [jax.tree.map(np.asarray, mask(batch)) for batch in Held()]


class Masked(Sentences):
    """Without labels yet: they are made in the step."""

    def batches(self, start: int):
        for batch in super().batches(start):
            yield batch._replace(y=batch.x["ids"])


masked_tokens = morph.Task(
    loss=lambda logits, batch: masked_cross_entropy(logits, batch.y), augment=hidden
)

TRAINING = [
    "--optimizer=adamw", "--learning_rate=0.01", "--shrink_learning_rate=0.005",
    "--seed_steps=200", "--shrink_steps=200", "--retrain_steps=50", "--batch_size=32",
    "--penalty=group_lasso", "--budget=0.6",
]  # fmt: skip


def launch(model: str, own_data: str, loss: str, metrics: str) -> None:
    """The command, in this process."""
    here = __file__
    flags = [f"--model={here}:{model}", f"--data={here}:{own_data}", f"--loss={here}:{loss}"]
    flags += [f"--metrics={metrics}", *TRAINING, f"--workdir={tempfile.mkdtemp()}"]
    run.main(["predict_tokens.py", *flags])


if __name__ == "__main__":
    launch("decoder", "data", "next_token", f"{__file__}:told,{__file__}:perplexity")
    launch("encoder", "masked_data", "masked_tokens", "masked_accuracy")
