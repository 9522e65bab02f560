"""Resize: evaluate a function at an architecture's widths.

Read in this order: `sizes` (new sizes of terms), `emission` (one rule per primitive with static
shapes), `evaluate` (derivative rules and remat survive), `compact` (the function transformation).
"""
