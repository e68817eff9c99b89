"""What may stand as parameters: trees of arrays that gradients exist for."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtljax import _labels


def check_no_module(params: Any, what: str = 'params') -> None:
  """Raises TypeError where a flax.nnx module stands for its parameters.

  Such a module is a tree of arrays too, but not all of them are parameters, and
  what it records of a pass (batch statistics, the counters of its random
  streams) would be lost.
  """
  nnx = sys.modules.get('flax.nnx')
  if nnx is None:
    return
  is_module = lambda x: isinstance(x, nnx.Module)
  found = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_module)[0]
  for path, leaf in found:
    if is_module(leaf):
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      where = f'{what} has at {name!r}' if name else f'{what} is'
      raise TypeError(
        f'{where} a whole nnx.Module ({type(leaf).__name__}), whose other '
        'state would stand still. Pass its parameters, graphdef, params, rest '
        '= nnx.split(module, nnx.Param, ...), and in the loss build it anew '
        'with nnx.merge(graphdef, params, rest, copy=True), handing the new '
        'rest back as auxiliary output (has_aux) or model state.'
      )


def check_params(params: Any) -> None:
  """Raises TypeError, by name, for leaves that have no gradient."""
  check_no_module(params)
  names = _labels.path_names(params)
  for name, leaf in zip(names, jax.tree.leaves(params), strict=True):
    if isinstance(leaf, float | complex):
      continue
    dtype = getattr(leaf, 'dtype', None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
      kind = type(leaf).__name__ if dtype is None else dtype
      raise TypeError(
        f'params: {name!r} is {kind}, and gradients are taken of '
        'floating-point arrays only; keep it in another argument, or in the '
        'model state.'
      )


def check_width(params: Any) -> None:
  """Raises TypeError where jax would narrow what is given in 64 bits."""
  names = _labels.path_names(params)
  for name, leaf in zip(names, jax.tree.leaves(params), strict=True):
    if not isinstance(leaf, np.ndarray):
      continue
    kept = jax.dtypes.canonicalize_dtype(leaf.dtype)
    if jnp.issubdtype(leaf.dtype, jnp.inexact) and kept != leaf.dtype:
      raise TypeError(
        f'params: {name!r} is {leaf.dtype} and would become {kept}; give '
        f"{kept} arrays, or call jax.config.update('jax_enable_x64', True) "
        'first.'
      )
