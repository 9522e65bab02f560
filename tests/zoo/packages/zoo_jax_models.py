"""jax-models: vision models in Linen."""

from collections.abc import Callable
from typing import Any

from jax_models.models import (
    cait,
    conv_mixer,
    convnext,
    mlp_mixer,
    mpvit,
    patchconvnet,
    poolformer,
    pvit,
    segformer,
    swin_transformer,
    van,
)
from models import Specimen, floats, of_linen

HEAD = {"attach_head": True, "num_classes": 10}
PYRAMID = {"depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4)}


def image(module: Any, size: int = 64) -> Specimen:
    return of_linen(module, floats(2, size, size, 3), deterministic=True)


MODELS: dict[str, Callable[[], Specimen]] = {
    "cait": lambda: image(
        cait.CaiT(patch_size=8, embed_dim=32, depth=2, num_heads=4, mlp_ratio=2, **HEAD), 32
    ),
    "convmixer": lambda: image(conv_mixer.ConvMixer(24, 7, 2, 5, **HEAD), 56),
    "convnext": lambda: image(
        convnext.ConvNeXt(depths=(1, 1, 1, 1), dims=(16, 24, 32, 40), **HEAD)
    ),
    "mlp-mixer": lambda: image(mlp_mixer.MLPMixer(8, 2, 32, 48, 20, 0.0, **HEAD), 32),
    "mpvit": lambda: image(
        mpvit.MPViT(channels_list=(16, 16, 24, 32), num_layers_list=(1, 1, 1, 1), **HEAD)
    ),
    "patchconvnet": lambda: image(patchconvnet.PatchConvNet(depth=2, dim=32, **HEAD)),
    "poolformer-s12": lambda: image(poolformer.S12(True, 10), 64),
    "pvt": lambda: image(
        pvit.PyramidViT(embed_dims=(16, 16, 24, 32), mlp_ratios=(2, 2, 2, 2), **PYRAMID, **HEAD)
    ),
    "segformer": lambda: image(
        segformer.SegFormer(
            emb_dims=(16, 16, 24, 32), decoder_emb=20, num_classes=5, attach_head=True, **PYRAMID
        )
    ),
    "swin": lambda: image(
        swin_transformer.SwinTransformer(
            emb_dim=16, depths=(2, 2), num_heads=(2, 4), window_size=4, mlp_ratio=2, **HEAD
        )
    ),
    "van": lambda: image(
        van.VAN(embed_dims=(16, 16, 24, 32), mlp_ratios=(2, 2, 2, 2), depths=(1, 1, 1, 1), **HEAD)
    ),
}
