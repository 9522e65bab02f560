"""dantinox: one transformer backbone in NNX with many attentions."""

from collections.abc import Callable
from typing import Any

from dantinox.core.config import ModelConfig
from dantinox.core.model import Transformer
from flax import nnx
from models import Specimen, integers

import regularizers as reg


def transformer(**options: Any) -> Specimen:
    sizes = {"dim": 32, "n_heads": 4, "num_blocks": 2, "vocab_size": 61, "max_context": 32}
    model = Transformer(ModelConfig(**(sizes | options)), nnx.Rngs(0))
    fn, variables = reg.nnx_function(model)
    return Specimen(
        fn=lambda *arguments: fn(*arguments, deterministic=True).logits,
        variables=variables,
        inputs=(integers(61, 2, 10),),
    )


MODELS: dict[str, Callable[[], Specimen]] = {
    "mha": transformer,
    "gqa": lambda: transformer(attention="gqa", kv_heads=2, norm="layernorm"),
    "mla": lambda: transformer(attention="mla", down_dim_q=20, down_dim_kv=20, rope_dim=8),
    "differential": lambda: transformer(differential=True),
    "linear": lambda: transformer(causal=False, use_linear_attention=True),
    "moe": lambda: transformer(ffn="moe"),
    "moe-latent": lambda: transformer(ffn="moe", moe_latent=True, moe_latent_dim=12),
    "sliding": lambda: transformer(sliding_window=True, pos_encoding="learned", weight_tying=False),
    "lora": lambda: transformer(use_lora=True, lora_rank=4, lora_targets="all"),
}
