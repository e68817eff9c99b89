"""Methods by name on the command line, wrapped ones included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mtljax as mtl
from mtljax import _validate

# All but those that need numbers of their own: krum and pivrg.
PLAIN = (
  'sum_losses',
  'mean',
  'fixed',
  'uncertainty',
  'rlw',
  'pcgrad',
  'mgda',
  'cagrad',
  'imtl_g',
  'nash_mtl',
  'fairgrad',
  'uw_o',
  'uw_so',
  'dwa',
  'geometric',
  'stch',
  'bmtl',
  'famo',
  'slaw',
  'go4align',
  'imtl_l',
  'imtl',
  'gradvac',
  'aligned_mtl',
  'upgrad',
  'dual_proj',
  'conflict_free',
  'pcd',
  'slw',
  'emtl',
  'gradnorm',
)
# They compare two batches, which cannot be made sharpness-aware.
UNWRAPPED = ('modo', 'sdmgrad')
WRAPPERS = {'flat': mtl.flat_regions, 'sam': mtl.sam}


def method_names() -> list[str]:
  """Every name that `make_method` takes."""
  wrapped = [f'{prefix}_{name}' for prefix in WRAPPERS for name in PLAIN]
  return [*PLAIN, *UNWRAPPED, *wrapped]


def make_method(
  name: str,
  num_tasks: int,
  labels: Any,
  *,
  rho: float,
  weights: Sequence[float] = (),
) -> mtl.Aggregator:
  """Builds a method with its paper's defaults.

  Args:
    name: a method (``'cagrad'``), task-based flat regions around one
      (``'flat_cagrad'``), or SAM on the summed loss around one
      (``'sam_cagrad'``).
    num_tasks: T.
    labels: see `mtljax.label_params`.
    rho: radius of the sharpness-aware forms.
    weights: those of ``'fixed'``, one a task; none: ones.

  Returns:
    The aggregator.

  Raises:
    ValueError: the name is not known; the message lists those that are.
  """
  check_names([name])
  prefix, _, rest = name.partition('_')
  wrapped = prefix in WRAPPERS
  plain = rest if wrapped else name
  options = {}
  if plain == 'fixed':
    options['weights'] = tuple(weights) or (1.0,) * num_tasks
  inner = getattr(mtl, plain)(num_tasks, labels=labels, **options)
  if wrapped:
    radius = {'flat': 'rho_shared', 'sam': 'rho'}[prefix]
    return WRAPPERS[prefix](inner, **{radius: rho})
  return inner


def check_names(names: list[str] | tuple[str, ...]) -> None:
  """Raises ValueError for the first name that is not known."""
  for name in names:
    _validate.one_of('--methods', name, method_names())
