"""Cotangents inside `jax.shard_map`, which tells what varies over a mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core


def vary_like(tree: Any, like: Any) -> Any:
  """The tree, varying over the mesh axes that ``like`` varies over.

  The leaves of ``like`` are arrays, or variables of a jaxpr.
  """

  def leaf(x, y):
    axes = _axes(y) - _axes(x)
    return jax.lax.pcast(x, tuple(axes), to='varying') if axes else x

  return jax.tree.map(leaf, tree, like)


def of_outputs(pull: Callable[[Any], Any], out: Any) -> Callable[[Any], Any]:
  """A backward pass that takes cotangents which vary less than its outputs."""
  if not any(_axes(x) for x in jax.tree.leaves(out)):
    return pull
  return lambda cotangents: pull(vary_like(cotangents, out))


def _axes(x: Any) -> frozenset[Any]:
  aval = x.aval if isinstance(x, core.Var) else jax.typeof(x)
  return getattr(getattr(aval, 'mat', None), 'varying', frozenset())
