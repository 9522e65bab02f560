"""The penalties that there are. A new one is a file beside `lasso.py` and a row here."""

from __future__ import annotations

from regularizers.objective.gamma import gamma
from regularizers.objective.gating import gates
from regularizers.objective.lasso import group_lasso
from regularizers.objective.penalty import Penalty

PENALTIES: dict[str, Penalty] = {"group_lasso": group_lasso, "gamma": gamma, "gates": gates}
