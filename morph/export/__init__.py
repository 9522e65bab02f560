"""Files that run elsewhere, with the weights inside: StableHLO, ONNX, int8 TFLite; and bundles.

Each target is a module, so that only what is used needs to be installed:
`morph.export.stablehlo`, `onnx`, `tflite`, `edge_tpu`, `bundle`; the packages come with
`pip install 'morph-jax[export]'`. See docs/export.md.
"""

from morph.errors import ExportError
from morph.export.exported import Agreement, Exported, compare

__all__ = ["Agreement", "ExportError", "Exported", "compare"]
