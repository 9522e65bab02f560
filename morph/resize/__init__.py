"""Resize: evaluate a function at an architecture's widths.

Read in this order: `sizes` (new sizes of terms), `emission` (one rule per primitive with static
shapes), `lacking` (what sums over removed channels lack), `evaluate` (derivative rules, loops and
remat survive), `compact` (the function transformation).
"""
