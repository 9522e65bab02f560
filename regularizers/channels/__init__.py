"""Channel inference: which axes of a function's variables shrink together.

Read in this order: `axes` (the vocabulary), `terms` (unification), `coupling/` (one rule per
primitive), `inference` (the pass), `flow`, `roles` and `exactness` (what follows from it), `graph`.
"""
