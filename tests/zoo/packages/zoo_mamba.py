"""mamba2-jax and mamba3-jax: state-space language models in NNX."""

from collections.abc import Callable

import mamba2_jax as mamba2
import mamba3_jax as mamba3
from flax import nnx
from models import Specimen, floats, integers, of_nnx

import regularizers as reg

MAMBA2 = mamba2.Mamba2Config(
    vocab_size=61, hidden_size=32, state_size=12, head_dim=8, chunk_size=4, num_hidden_layers=2
)
MAMBA3 = mamba3.Mamba3Config(
    vocab_size=61, hidden_size=32, state_size=12, head_dim=8, chunk_size=4, num_hidden_layers=2
)
MIMO = mamba3.Mamba3Config(
    vocab_size=61, hidden_size=32, state_size=12, head_dim=8, chunk_size=4, num_hidden_layers=2,
    is_mimo=True, mimo_rank=2,
)  # fmt: skip


def forecaster() -> Specimen:
    model = mamba2.Mamba2Forecaster(
        input_dim=3, d_model=32, n_layers=2, forecast_horizon=5, d_state=12, headdim=8,
        chunk_size=4, rngs=nnx.Rngs(0),
    )  # fmt: skip
    return of_nnx(model, floats(2, 12, 3))


def language(model: nnx.Module) -> Specimen:
    """A language model's logits; its caches are not asked for, and would stay as wide."""
    fn, variables = reg.nnx_function(model)
    return Specimen(
        fn=lambda *arguments: fn(*arguments)["logits"],
        variables=variables,
        inputs=(integers(61, 2, 12),),
    )


MODELS: dict[str, Callable[[], Specimen]] = {
    "mamba2": lambda: language(mamba2.Mamba2ForCausalLM(MAMBA2, rngs=nnx.Rngs(0))),
    "mamba2-forecaster": forecaster,
    "mamba3": lambda: language(mamba3.Mamba3ForCausalLM(MAMBA3, rngs=nnx.Rngs(0))),
    "mamba3-mimo": lambda: language(mamba3.Mamba3ForCausalLM(MIMO, rngs=nnx.Rngs(0))),
}
