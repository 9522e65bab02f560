"""flaxsr: super-resolution models in Linen."""

from collections.abc import Callable

from flaxsr import models as sr
from models import Specimen, floats, of_linen

X = floats(2, 12, 12, 3)

MODELS: dict[str, Callable[[], Specimen]] = {
    "srcnn": lambda: of_linen(sr.SRCNN((16, 12, 3), 2), X),
    "espcn": lambda: of_linen(sr.ESPCN((16, 12), (5, 3, 3), 2), X),
    "vdsr": lambda: of_linen(sr.VDSR(16, 4, 2), X),
    "edsr": lambda: of_linen(sr.EDSR(16, 2, 2), X),
}
