"""Channel inference: which axes of a function's variables shrink together.

What is known of each primitive stands in `regularizers.primitives`. Read in this order: `parts`
(the vocabulary), `inference` (the pass), `roles`, `exactness` and `dead` (what follows), `graph`.
"""
