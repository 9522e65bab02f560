"""The same of `morph.training`."""

from public.values import ARRAYS, NUMBERS, SHARES, array

LOGITS = array(4, 3)
VECTORS = {"outputs": LOGITS, "y": LOGITS}
VALUES = {"predictions": LOGITS, "y": LOGITS}
CLASSES = {"logits": LOGITS, "y": LOGITS.argmax(-1)}

MORPH_TRAINING = {
    "classes_of": ({"logits": LOGITS}, {"logits": ARRAYS}),
    "cosine_distance": (VECTORS, {"outputs": ARRAYS, "y": ARRAYS}),
    "cosine_similarity": (VECTORS, {"outputs": ARRAYS, "y": ARRAYS}),
    "cross_entropy": (CLASSES, {"logits": ARRAYS, "y": ARRAYS, "smoothing": SHARES}),
    "masked_cross_entropy": (CLASSES, {"logits": ARRAYS, "y": ARRAYS, "smoothing": SHARES}),
    "mean_absolute_error": (VALUES, {"predictions": ARRAYS, "y": ARRAYS}),
    "mean_squared_error": (VALUES, {"predictions": ARRAYS, "y": ARRAYS}),
    "responses": (
        {"outputs": [LOGITS], "taught": [LOGITS]},
        {"outputs": [None, "responses", [1.0]], "taught": [None, "responses", [1.0]]},
    ),
    "sigmoid_cross_entropy": (
        {"logits": LOGITS, "y": LOGITS > 0.0},
        {"logits": ARRAYS, "y": ARRAYS},
    ),
    "soft_labels": (
        {"logits": LOGITS, "taught": LOGITS},
        {"logits": ARRAYS, "taught": ARRAYS, "temperature": [*NUMBERS, 0.0, -1.0]},
    ),
}
