"""What the operations of this machine cost: timed once, fitted, and kept in a file.

Read in this order: `programs` (what is timed), `timing`, `fit` (from times to prices), `machine`,
`measure` (all of it: `reg.calibrate`).
"""
