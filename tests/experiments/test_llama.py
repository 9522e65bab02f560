"""The llama family: rotary positions, the cache, what can shrink; and SmolLM2's own weights."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import morph
import regularizers as reg
from experiments.pretrained import smollm2
from experiments.pretrained.llama import (
    LLAMA3_8B,
    Llama,
    LlamaConfig,
    next_token_loss,
    rotated,
)
from morph.errors import DataError

TINY = LlamaConfig(
    vocabulary=23, width=10, blocks=2, heads=6, kv_heads=3, head_width=4, hidden=7, tied=True
)
MODEL = Llama(TINY)
STEPS = 3


@pytest.fixture(scope="module")
def tokens():
    return jnp.asarray(np.random.default_rng(0).integers(0, TINY.vocabulary, (2, 5)), jnp.int32)


@pytest.fixture(scope="module")
def variables(tokens):
    return MODEL.init(jax.random.key(0), tokens)


@pytest.fixture(scope="module")
def graph(variables, tokens):
    return reg.trace_channels(MODEL.apply, variables, tokens)


def generate(variables, tokens):
    return MODEL.apply(variables, tokens, STEPS, method="generate")


def likeliest(variables, tokens, found):
    """What follows each token but those of the prompt, everything read again."""
    logits = jax.jit(MODEL.apply)(variables, jnp.concatenate([tokens, found], axis=1))
    return logits[:, -STEPS - 1 : -1].argmax(-1)


def test_neighbouring_channels_turn_as_a_complex_number():
    x = np.random.default_rng(1).normal(size=(2, 5, 3, 4)).astype(np.float32)
    positions = np.asarray([0, 1, 2, 3, 7])
    complex_ = x[..., ::2] + 1j * x[..., 1::2]
    angle = positions[:, None] * np.asarray([[1.0, 0.1]])
    turned = complex_ * np.exp(1j * angle)[None, :, None]
    found = rotated(jnp.asarray(x), jnp.asarray(positions), 100.0)
    np.testing.assert_allclose(found[..., ::2], turned.real, atol=1e-5)
    np.testing.assert_allclose(found[..., 1::2], turned.imag, atol=1e-5)


def test_no_token_sees_those_behind_it(variables, tokens):
    other = tokens.at[:, 3].set(tokens[:, 3] ^ 1)
    one, two = MODEL.apply(variables, tokens), MODEL.apply(variables, other)
    np.testing.assert_allclose(one[:, :3], two[:, :3], atol=1e-6)
    assert np.abs(one[:, 3:] - two[:, 3:]).min(axis=-1).max() > 1e-5


def test_the_loss_is_that_of_the_tokens_to_come(variables, tokens):
    logits = np.asarray(MODEL.apply(variables, tokens), np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    own = [[shares[i, t, tokens[i, t + 1]] for t in range(4)] for i in range(2)]
    found = next_token_loss(MODEL.apply)(variables, tokens)
    np.testing.assert_allclose(found, -np.log(own).mean(), rtol=1e-5)


def test_with_the_cache_it_says_what_it_says_without(variables, tokens):
    found = jax.jit(generate)(variables, tokens)
    np.testing.assert_array_equal(found, likeliest(variables, tokens, found))


def test_every_width_is_free(graph):
    assert not graph.unknown
    assert all(group.exact for group in graph.groups.values())
    found = sorted(group.width for group in graph.groups.values())
    per_block = [2, 2, 3, 4, 7]  # rotary pairs, heads of a kv head, kv heads, values, hidden
    assert found == sorted([*per_block, *per_block, TINY.width])
    assert len(graph.blocks) == 2 * TINY.blocks


def test_a_small_network_generates_with_its_small_cache(graph, variables, tokens):
    rng = np.random.default_rng(2)
    alive = {
        name: np.isin(np.arange(width), rng.permutation(width)[: max(1, width - 1)])
        for name, width in graph.widths.items()
    }
    arch = morph.shrink(graph, alive)
    small = arch.take(variables)
    found = jax.jit(morph.compact(generate, arch))(small, tokens)
    masked = graph.mask(variables, alive)
    np.testing.assert_array_equal(found, likeliest(masked, tokens, found))


def test_eight_billion_parameters_in_shape():
    model, tokens = Llama(LLAMA3_8B), jax.ShapeDtypeStruct((1, 8), "int32")
    variables = jax.eval_shape(model.init, jax.random.key(0), tokens)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 8_030_261_248


class Letters:
    """A tokenizer of single bytes."""

    def tokens(self, text):
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)


def test_pieces_of_fortunes_are_told_apart_and_must_be_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "load_words", lambda data_dir: Letters())
    (tmp_path / "fortunes").mkdir()
    for name, count in (("art", 300), ("literature", 9000), ("wisdom", 9000)):
        (tmp_path / "fortunes" / name).write_text(name[0] * count)
    known, unseen = smollm2.data(str(tmp_path))
    assert known.x.shape == known.y.shape == (2, smollm2.LENGTH)
    assert unseen.x.shape == (smollm2.HELD_OUT, smollm2.LENGTH)
    assert set(np.unique(known.x)) == {ord("a")}
    np.testing.assert_array_equal(unseen.x[:, 1:], unseen.y[:, :-1])
    (tmp_path / "fortunes" / "art").write_text("a")
    with pytest.raises(DataError, match="too short: 1 tokens, of which 1 pieces of 129"):
        smollm2.data(str(tmp_path))


def real(load):
    """What must be there in CI, and may be absent elsewhere."""
    try:
        return load()
    except FileNotFoundError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


def test_smollm2_has_its_tensors_and_its_words():
    _, variables = real(smollm2.load)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 134_515_008
    words = real(smollm2.load_words)
    text = "In 2024\nthe capital of France is Paris."
    tokens = words.tokens(text)
    assert words.text(tokens) == text
    assert len(tokens) == 14  # digits are one token each
    with pytest.raises(TypeError, match="one text; got a list"):
        words.tokens([text])
