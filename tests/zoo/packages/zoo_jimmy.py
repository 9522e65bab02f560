"""jimmy-vision: DINOv2 in NNX. Its other models do not yet build with Flax 0.12."""

from collections.abc import Callable

from flax import nnx
from jimmy.models.vit import DinoV2
from models import Specimen, floats, of_nnx


def dinov2(**options: object) -> Specimen:
    model = DinoV2(
        img_size=28,
        patch_size=7,
        embed_dim=32,
        depth=2,
        num_heads=4,
        init_values=1.0,
        rngs=nnx.Rngs(0),
        **options,
    )
    return of_nnx(model, floats(2, 28, 28, 3))


MODELS: dict[str, Callable[[], Specimen]] = {
    "dinov2": dinov2,
    "dinov2-swiglu": lambda: dinov2(ffn_layer="swiglu", reg_tokens=4),
}
