"""How gently the penalty treats what the budget controller would keep if training ended now."""

# The share of the strength that pulls on protected channels and blocks. Pulled in full they would
# all end at their floor, and nothing would tell them apart; not pulled at all they would not have
# to compete.
PRESSURE = 0.1
FLOOR = 0.05  # what a protected channel or block keeps, of a fresh one
AJAR = 0.55  # and a protected gate stays at least as probably open
