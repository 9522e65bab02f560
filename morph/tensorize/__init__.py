"""Tensorize: kernels as tensor networks.

Read in this order: `contract` (one contraction), `factorized` (a kernel as cores), `shapes` and
`formats` (which cores), `vbmf`, `spectra`, `ranks` and `decompose` (their ranks and numbers),
`initial` (or fresh ones), `products`, `windows` and `evaluate` (what a factorized kernel does where
it is used), `measure` (the faster way), `tensorized` (the function transformation), `layers` (which
kernels a function has), `planned` (how one is factorized), `options`, `allocate`, `budget` and
`plan` (which of them, at which ranks), `following`, `samples`, `response` and `fit` (the same by
what layers answer on a calibration batch).
"""
