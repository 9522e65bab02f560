"""Tunix: language models in NNX."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from models import Specimen, integers, of_nnx
from tunix.models.gemma import model as gemma
from tunix.models.gemma3 import model as gemma3
from tunix.models.llama3 import model as llama3
from tunix.models.qwen2 import model as qwen2
from tunix.models.qwen3 import model as qwen3

SIZES = {
    "num_layers": 2,
    "embed_dim": 32,
    "hidden_dim": 48,
    "num_heads": 4,
    "head_dim": 8,
    "num_kv_heads": 2,
}
QWEN = {"vocab_size": 61, "rope_theta": 10_000, "norm_eps": 1e-6}


def decoder(model: nnx.Module) -> Specimen:
    positions = np.tile(np.arange(10, dtype=np.int32), (2, 1))
    mask = np.tril(np.ones((1, 10, 10), bool))  # of any batch
    return of_nnx(model, integers(61, 2, 10), positions, cache=None, attention_mask=mask)


def gemma1(**options: Any) -> Specimen:
    config = gemma.ModelConfig(
        num_embed=61,
        final_logit_softcap=options.pop("softcap", None),
        attention_types=(gemma.AttentionType.GLOBAL, gemma.AttentionType.LOCAL_SLIDING),
        use_post_attn_norm=False,
        use_post_ffw_norm=False,
        sliding_window_size=4,
        **(SIZES | options),
    )
    return decoder(gemma.Gemma(config, rngs=nnx.Rngs(0)))


MODELS: dict[str, Callable[[], Specimen]] = {
    "gemma": lambda: gemma1(num_kv_heads=1),
    "gemma-grouped": lambda: gemma1(softcap=30.0),
    "gemma3": lambda: decoder(
        gemma3.Gemma3(
            gemma3.ModelConfig(
                num_embed=61, sliding_window_size=4, param_dtype=jnp.float32, **SIZES
            ),
            rngs=nnx.Rngs(0),
        )
    ),
    "llama3": lambda: decoder(llama3.Llama3(llama3.ModelConfig(**SIZES, **QWEN), rngs=nnx.Rngs(0))),
    "qwen2": lambda: decoder(qwen2.Qwen2(qwen2.ModelConfig(**SIZES, **QWEN), rngs=nnx.Rngs(0))),
    "qwen3": lambda: decoder(qwen3.Qwen3(qwen3.ModelConfig(**SIZES, **QWEN), rngs=nnx.Rngs(0))),
    "qwen3-tied": lambda: decoder(
        qwen3.Qwen3(qwen3.ModelConfig(**SIZES, **QWEN, use_tied_embedding=True), rngs=nnx.Rngs(0))
    ),
    "qwen3-moe": lambda: decoder(
        qwen3.Qwen3(
            qwen3.ModelConfig(**SIZES, **QWEN, num_experts=4, num_experts_per_tok=2),
            rngs=nnx.Rngs(0),
        )
    ),
}
