"""Small architectures of every kind, as losses of two tasks.

The families are in ``nets_*.py``. Each entry names the parameters that take
part in layer-wise products; the others are pulled back once a task.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

T = 2


class Net(NamedTuple):
  """``features(params, x)``, an array or a tree of them.

  Attributes:
    features: the function.
    params: a dict of arrays.
    x: its data, examples on axis 0 of every array.
    takes: the names of the parameters that take part.
    rtol: how exact the routes agree.
  """

  features: Callable[[Any, Any], Any]
  params: dict[str, Any]
  x: Any
  takes: tuple[str, ...] = ()
  rtol: float = 1e-10

  def losses(self, params: Any, x: Any) -> jax.Array:
    """Two losses of no symmetry, shape ``(T,)``."""
    return losses_of(self.features(params, x))


def losses_of(features: Any) -> jax.Array:
  """Losses ``(T,)`` of features, real or complex."""
  total = jnp.zeros(T)
  for z in jax.tree.leaves(features):
    parts = (z.real, z.imag + 0.3) if jnp.iscomplexobj(z) else (z,)
    for part in parts:
      part = part.astype(total.dtype)
      total += jnp.stack(
        [jnp.mean(jnp.cos(part * (t + 1)) + t * part**2) for t in range(T)]
      )
  return total


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
  """Normal numbers in float64."""
  rng = np.random.default_rng([seed, *shape])
  return scale * rng.normal(size=shape)


def complexes(*shape: int, seed: int = 0) -> np.ndarray:
  """Normal complex numbers."""
  return normal(*shape, seed=seed) + 1j * normal(*shape, seed=seed + 1)


def integers(high: int, *shape: int, dtype: Any = np.int32) -> np.ndarray:
  """Numbers from 0 to ``high - 1``."""
  rng = np.random.default_rng([high, *shape])
  return rng.integers(0, high, shape).astype(dtype)


def rows_of(grads: Any, axes: int = 1) -> np.ndarray:
  """Gradients as real rows: ``(..., P)`` after so many axes.

  A complex number is two real ones.
  """
  rows = []
  for leaf in jax.tree.leaves(grads):
    leaf = np.asarray(leaf)
    leaf = leaf.reshape(*leaf.shape[:axes], -1)
    parts = (leaf.real, leaf.imag) if np.iscomplexobj(leaf) else (leaf,)
    rows += [part.astype(np.float64) for part in parts]
  return np.concatenate(rows, -1)


def assert_close(got: Any, want: Any, rtol: float) -> None:
  """Real, and close to ``want`` relative to its largest entry."""
  got, want = np.asarray(got), np.asarray(want)
  assert np.isrealobj(got) or np.iscomplexobj(want), got
  size = np.max(np.abs(want), initial=0.0)
  np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * size)
