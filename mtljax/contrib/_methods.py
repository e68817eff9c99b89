"""Every reconstruction as ``mtl.contrib.<name>(num_tasks, ...)``."""

from __future__ import annotations

from mtljax.aggregators._lift import lift
from mtljax.contrib import _emtl

emtl = lift(_emtl.emtl)
