"""Reconstructions: methods whose authors' definition is not public.

What is reconstructed stands in the first line of each docstring. The methods
are called as the others, ``mtl.contrib.<name>(num_tasks, ...)``, and the rules
inside are in ``mtl.contrib.weightings``; ``mtl.contrib.rep_mtl_losses`` makes
losses of losses, and ``mtl.contrib.tfcl`` fits linear tasks. They may change
when a definition is published.
"""

from mtljax.contrib import tfcl as tfcl
from mtljax.contrib import weightings as weightings
from mtljax.contrib._methods import emtl as emtl
from mtljax.contrib._methods import gcond as gcond
from mtljax.contrib._methods import son_goku as son_goku
from mtljax.contrib._rep_mtl import rep_mtl_losses as rep_mtl_losses

__all__ = [
  'emtl',
  'gcond',
  'rep_mtl_losses',
  'son_goku',
]
