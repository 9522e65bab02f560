"""Files that run elsewhere, with the weights inside: StableHLO, ONNX, int8 TFLite; and bundles.

Each target is a module, so that only what is used needs to be installed: `morph.export.stablehlo`,
`onnx`, `onnx_int8`, `tflite`, `edge_tpu`, `bundle`; the packages come with
`pip install 'morph-jax[export]'`. See docs/export.md.
"""

from typing import TYPE_CHECKING

from regularizers.lazy import lazy

if TYPE_CHECKING:
    from morph.errors import ExportError
    from morph.export.bundle import Bundle
    from morph.export.edge_tpu import Placement, placement
    from morph.export.exported import Agreement, Exported, compare
    from morph.export.onnx import to_onnx
    from morph.export.onnx_int8 import to_onnx_int8
    from morph.export.stablehlo import to_stablehlo
    from morph.export.tflite import to_tflite
else:
    __getattr__, __dir__ = lazy(__name__)

__all__ = [
    "Agreement",
    "Bundle",
    "ExportError",
    "Exported",
    "Placement",
    "compare",
    "placement",
    "to_onnx",
    "to_onnx_int8",
    "to_stablehlo",
    "to_tflite",
]
