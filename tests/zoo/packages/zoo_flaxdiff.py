"""flaxdiff: diffusion models in Linen."""

from collections.abc import Callable
from typing import Any

from flaxdiff.models import simple_dit, simple_mmdit, simple_unet, simple_vit, ssm_dit
from models import Specimen, floats, of_linen

SMALL = {"patch_size": 4, "emb_features": 32, "num_layers": 2, "num_heads": 4}
ATTENTION = {
    "heads": 2,
    "flash_attention": False,
    "use_projection": False,
    "use_self_and_cross": True,
}


def diffuse(module: Any, size: int = 16) -> Specimen:
    """Images, times and a text of eight tokens."""
    return of_linen(module, floats(2, size, size, 3), floats(2), floats(2, 8, 24))


MODELS: dict[str, Callable[[], Specimen]] = {
    "dit": lambda: diffuse(simple_dit.SimpleDiT(**SMALL)),
    "mmdit": lambda: diffuse(simple_mmdit.SimpleMMDiT(**SMALL)),
    "mmdit-hierarchical": lambda: diffuse(
        simple_mmdit.HierarchicalMMDiT(
            base_patch_size=2, emb_features=(16, 24), num_layers=(1, 1), num_heads=(2, 2)
        )
    ),
    "unet": lambda: diffuse(
        simple_unet.Unet(
            emb_features=32,
            feature_depths=(16, 24),
            num_res_blocks=1,
            norm_groups=4,
            attention_configs=(None, ATTENTION),
        )
    ),
    "uvit": lambda: diffuse(simple_vit.UViT(**SMALL, norm_groups=0, dropout_rate=0.0)),
    "udit": lambda: diffuse(simple_vit.SimpleUDiT(**SMALL)),
    "ssm-dit": lambda: diffuse(
        ssm_dit.HybridSSMAttentionDiT(**SMALL, ssm_state_dim=8, ssm_attention_ratio="1:1")
    ),
}
