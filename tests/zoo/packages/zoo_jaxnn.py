"""jaxnn: ResNets and vision transformers in NNX."""

from collections.abc import Callable

from flax import nnx
from jax.experimental import checkify
from jaxnn.models import resnet
from jaxnn.models.vision_transformer import VisionTransformer
from models import Specimen, floats, of_nnx

import regularizers as reg


def residual(block: type[nnx.Module], stem: str = "", **options: object) -> Specimen:
    model = resnet.ResNet(
        block, (1, 1, 1, 1), num_classes=10, stem_type=stem, rngs=nnx.Rngs(0), **options
    )
    return of_nnx(model, floats(2, 32, 32, 3))


def vit(**options: object) -> Specimen:
    model = VisionTransformer(
        img_size=32, patch_size=8, num_classes=10, embed_dim=32, depth=2, num_heads=4,
        rngs=nnx.Rngs(0), **options,
    )  # fmt: skip
    fn, variables = reg.nnx_function(model)
    return Specimen(
        fn=lambda *arguments: checkify.checkify(fn)(*arguments)[
            1
        ],  # it asserts shapes with checkify
        variables=variables,
        inputs=(floats(2, 32, 32, 3),),
    )


MODELS: dict[str, Callable[[], Specimen]] = {
    "resnet10": lambda: residual(resnet.BasicBlock),
    "resnet14t": lambda: residual(
        resnet.Bottleneck, "deep_tiered", stem_width=32, avg_down=True, base_width=16
    ),
    "resnext14": lambda: residual(resnet.Bottleneck, cardinality=4, base_width=4),
    "vit": vit,
    "vit-scaled": lambda: vit(init_values=0.1, qkv_bias=True, global_pool="avg"),
}
