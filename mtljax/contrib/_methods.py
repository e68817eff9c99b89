"""Every reconstruction as ``mtl.contrib.<name>(num_tasks, ...)``."""

from __future__ import annotations

from mtljax.aggregators._lift import lift, lift_rule
from mtljax.contrib import _emtl, _gcond, _son_goku

emtl = lift(_emtl.emtl)
gcond = lift_rule(_gcond.gcond)
son_goku = lift_rule(_son_goku.son_goku)
