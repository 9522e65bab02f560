"""Lines that run the files of a bundle, without Morph: for its README."""

from __future__ import annotations

from collections.abc import Sequence

_LINES = {
    "python": """Python, with `pip install onnxruntime numpy`:

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{name}")
(given,) = session.get_inputs()
x = np.zeros([n if isinstance(n, int) else 1 for n in given.shape], np.float32)
(y,) = session.run(None, {{given.name: x}})
```
""",
    "cpp": """C++, with the headers and the library of ONNX Runtime (`-lonnxruntime`):

```cpp
#include <onnxruntime_cxx_api.h>
#include <vector>

std::vector<float> run(std::vector<float>& x, const std::vector<int64_t>& shape) {{
  static Ort::Env env;
  static Ort::Session session(env, "{name}", Ort::SessionOptions());
  Ort::AllocatorWithDefaultOptions own;
  const auto given = session.GetInputNameAllocated(0, own);
  const auto result = session.GetOutputNameAllocated(0, own);
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto input = Ort::Value::CreateTensor<float>(
      memory, x.data(), x.size(), shape.data(), shape.size());
  const char* in = given.get();
  const char* out = result.get();
  auto y = session.Run(Ort::RunOptions(), &in, &input, 1, &out, 1);
  const float* first = y[0].GetTensorData<float>();
  return {{first, first + y[0].GetTensorTypeAndShapeInfo().GetElementCount()}};
}}
```
""",
    "js": """A browser or Node, with `npm install onnxruntime-web` (Node: `onnxruntime-node`, too):

```js
import * as ort from "onnxruntime-web";

const session = await ort.InferenceSession.create("{name}");
export async function run(x, shape) {{  // a Float32Array, e.g. [1, 28, 28, 1]
  const feeds = {{ [session.inputNames[0]]: new ort.Tensor("float32", x, shape) }};
  return (await session.run(feeds))[session.outputNames[0]].data;
}}
```
""",
    "stablehlo": """Any JAX, without Flax and Morph:

```python
from pathlib import Path

import jax
from jax import export

run = jax.jit(export.deserialize(bytearray(Path("{name}").read_bytes())).call)
```
""",
    "tflite": """LiteRT, with `pip install ai-edge-litert`; inputs and outputs are int8:

```python
from ai_edge_litert.interpreter import Interpreter

network = Interpreter("{name}")
network.allocate_tensors()
scale, zero = network.get_input_details()[0]["quantization"]
```
""",
}


def run_lines(names: Sequence[str]) -> list[str]:
    """How to run files, in Markdown.

    Args:
        names: of the files; of each kind the first is shown.
    """
    suffixes = {".onnx": ("python", "cpp", "js"), ".stablehlo": ("stablehlo",)}
    suffixes[".tflite"] = ("tflite",)
    lines: list[str] = []
    for suffix, kinds in suffixes.items():
        name = next((own for own in names if own.endswith(suffix)), None)
        if name is not None:
            lines += [_LINES[kind].format(name=name) for kind in kinds]
    return ["## Run it", "", *lines] if lines else []
