"""flaim: sixteen families of vision backbones in Linen, at their own configurations made small."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flaim.models import factory
from models import Specimen, floats, of_linen

SMALL = {"depths": (1, 1, 1, 1), "out_dims": (16, 24, 32, 40)}
TOKENS = {"depth": 2, "token_dim": 32, "n_heads": 4}


def build(name: str, changes: Mapping[str, Any], size: int, classes: int = 10) -> Any:
    """The package's configuration `name` with `changes`, and images of `size`."""
    config = factory.CONFIGS[name] | {"n_classes": classes} | dict(changes)
    model = config.pop("model_cls")
    config.pop("norm_stats", None)
    return model(**config), floats(2, size, size, 3)


def plain(name: str, changes: Mapping[str, Any], size: int = 64) -> Specimen:
    """A model without a train mode."""
    return of_linen(*build(name, changes, size))


def normed(name: str, changes: Mapping[str, Any], size: int = 64, train: bool = False) -> Specimen:
    """A model with batch norms, in eval mode, or in train mode with updated statistics."""
    module, x = build(name, changes, size)
    return of_linen(module, x, training=False, train={"training": True} if train else None)


MODELS: dict[str, Callable[[], Specimen]] = {
    "cait": partial(plain, "cait_xxsmall24_224", TOKENS),
    "convmixer": partial(normed, "convmixer20_1024d_patch14_kernel9", {"depth": 2, "dim": 24}),
    "convnext": partial(plain, "convnext_tiny", SMALL),
    "convnextv2": partial(plain, "convnextv2_atto_fcmae", SMALL),
    "efficientnetv2": partial(
        normed,
        "efficientnetv2_small",
        {
            "depths": (1, 1, 1, 1, 1, 2),
            "out_dims": (8, 12, 16, 20, 24, 28),
            "head_conv_bn_act_dim": 40,
        },
    ),
    "gcvit": partial(
        plain,
        "gcvit_xxtiny_224",
        {"depths": (2, 2, 2, 2), "token_dim": 16, "n_heads": (2, 2, 4, 4)},
        224,
    ),
    "hornet": partial(plain, "hornet_tiny", {"depths": (1, 1, 1, 1), "out_dim_first_stage": 32}),
    "maxvit": partial(
        normed,
        "maxvit_tiny_224",
        {"depths": (1, 1, 1, 1), "out_dims": (16, 16, 24, 32), "stem_out_dim": 12, "head_dim": 8},
    ),
    "nest": partial(
        plain,
        "nest_tiny_224",
        {"depths": (1, 1, 2), "token_dims": (16, 24, 32), "n_heads": (2, 2, 4)},
        224,
    ),
    "pvtv2": partial(
        plain,
        "pvtv2_b0",
        {"depths": (1, 1, 1, 1), "token_dims": (16, 16, 24, 32), "n_heads": (1, 2, 3, 4)},
    ),
    "regnetx": partial(normed, "regnetx_200mf", SMALL),
    "regnety": partial(normed, "regnety_200mf", SMALL),
    "regnety-train": partial(normed, "regnety_200mf", SMALL, train=True),
    "resnet18": partial(normed, "resnet18", {}),
    "resnet50": partial(normed, "resnet50", {}),
    "resnet26d": partial(normed, "resnet26d", {"depths": (1, 1, 1, 1)}),
    "resnet26t": partial(normed, "resnet26t", {"depths": (1, 1, 1, 1)}),
    "resnext50": partial(normed, "resnext50_32x4d", {"depths": (1, 1, 1, 1)}),
    "seresnet50": partial(normed, "seresnet50", {"depths": (1, 1, 1, 1)}),
    "seresnext26t": partial(normed, "seresnext26t_32x4d", {"depths": (1, 1, 1, 1)}),
    "ecaresnet26t": partial(normed, "ecaresnet26t", {"depths": (1, 1, 1, 1)}),
    "skresnet18": partial(normed, "skresnet18", {"depths": (1, 1, 1, 1)}),
    "skresnext50": partial(normed, "skresnext50_32x4d", {"depths": (1, 1, 1, 1)}),
    "resnest14": partial(normed, "resnest14_2s1x64d", {}),
    "resnet18-train": partial(normed, "resnet18", {}, size=128, train=True),
    "swin": partial(
        plain,
        "swin_tiny_window7_224",
        {"depths": (2, 2, 2, 2), "token_dim": 16, "n_heads": (2, 2, 4, 4)},
        224,
    ),
    "swin-s3": partial(
        plain,
        "swin_s3_tiny_224",
        {"depths": (2, 2, 2, 1), "token_dim": 16, "n_heads": (2, 2, 4, 4)},
        224,
    ),
    "van": partial(normed, "van_b0", SMALL),
    "vgg11": partial(
        normed, "vgg11", {"out_dims": (16, "m", 24, "m", 32, 32, "m", 40, 40, "m", 40, 40, "m")}, 32
    ),
    "vgg11-bn": partial(
        normed,
        "vgg11_bn",
        {"out_dims": (16, "m", 24, "m", 32, 32, "m", 40, 40, "m", 40, 40, "m")},
        32,
    ),
    "vit": partial(plain, "vit_tiny_patch16_224", TOKENS),
    "vit-clip": partial(plain, "vit_base_clip_patch32_224_laion2b", TOKENS),
    "beit": partial(plain, "beit_base_patch16_224", TOKENS),
    "deit3": partial(plain, "deit3_small_patch16_224", TOKENS),
    "xcit": partial(normed, "xcit_tiny12_patch16_224", TOKENS),
}
