"""The task axis: inner products and combinations over trees of gradients.

Trees are reduced leaf by leaf and never flattened into one vector, so that
sharded gradients cost one all-reduce of ``T x T`` numbers and no all-gather.
Inner products are over the reals: a complex number is two coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mtljax import _labels


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
  """The dtype to add in: float32, or wider if the values are."""
  return jnp.promote_types(dtype, jnp.float32)


def is_complex(leaf: Any) -> bool:
  """Whether a leaf holds complex numbers."""
  return jnp.issubdtype(leaf.dtype, jnp.complexfloating)


def as_real(leaf: jax.Array) -> jax.Array:
  """A complex leaf in two real columns, its new last axis; others as is."""
  if not is_complex(leaf):
    return leaf
  return jnp.stack([leaf.real, leaf.imag], axis=-1)


def like(leaf: jax.Array, other: jax.Array) -> jax.Array:
  """What `as_real` made of a leaf of the other's kind, as such a leaf again."""
  if not is_complex(other):
    return leaf
  return jax.lax.complex(leaf[..., 0], leaf[..., 1])


def conjugate(tree: Any) -> Any:
  """The direction in which a loss rises, from its gradient.

  `jax.grad` gives the conjugate of it at a complex leaf; real leaves are as
  they are.
  """
  return jax.tree.map(lambda x: x.conj() if is_complex(x) else x, tree)


def _replicated(leaf: jax.Array) -> dict[str, Any]:
  """Einsum's output sharding, which explicit meshes want to be told."""
  mesh = jax.typeof(leaf).sharding.mesh
  if mesh.are_all_axes_explicit:
    return {'out_sharding': PartitionSpec(None, None)}
  return {}


# Columns in a block of `_in_blocks`: with 40 rows it stays in the cache.
BLOCK = 8192
# Numbers from which `_in_blocks` is the faster: they no longer fit the cache.
LARGE = 2**21


def _einsum(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.einsum(
    'i...,j...->ij',
    a,
    b,
    precision='highest',
    preferred_element_type=accumulator(jnp.promote_types(a.dtype, b.dtype)),
    **_replicated(a),
  )


def _in_blocks(a: jax.Array, b: jax.Array) -> jax.Array:
  """Block by block of columns: XLA on CPU transposes what it multiplies."""
  whole = a.shape[1] // BLOCK

  def add(i, total):
    block = lambda x: jax.lax.dynamic_slice_in_dim(x, i * BLOCK, BLOCK, 1)
    return total + _einsum(block(a), block(b))

  rest = _einsum(a[:, whole * BLOCK :], b[:, whole * BLOCK :])
  return jax.lax.fori_loop(0, whole, add, rest)


def _in_lanes(a: jax.Array, b: jax.Array) -> jax.Array:
  """Sums of products in 1024 lanes: for few rows less than a matrix product."""
  whole = a.shape[1] // 1024 * 1024
  acc = accumulator(jnp.promote_types(a.dtype, b.dtype))
  lanes = lambda x: x[:, :whole].astype(acc).reshape(len(x), -1, 1024)
  total = [
    [jnp.sum(jnp.sum(row * column, axis=0)) for column in lanes(b)]
    for row in lanes(a)
  ]
  rest = _einsum(a[:, whole:], b[:, whole:])
  return rest + jnp.stack([jnp.stack(row) for row in total])


def leaf_products(a: jax.Array, b: jax.Array) -> jax.Array:
  """Inner products of the rows of two stacks ``(T, ...)``, shape ``(T, T)``.

  On one CPU device, where nothing can be sharded, long rows are taken in a
  form that is faster there (``python -m benchmarks.gramian``).
  """
  a, b = as_real(a), as_real(b)
  alone = jax.default_backend() == 'cpu' and jax.device_count() == 1
  if alone and not _replicated(a):
    a, b = (x.reshape(len(x), -1) for x in (a, b))
    if len(a) == 2 and a[0].size >= BLOCK:
      return _in_lanes(a, b)
    if len(a) > 2 and a.size >= LARGE:
      return _in_blocks(a, b)
  return _einsum(a, b)


def products_of(
  rows: Sequence[jax.Array], columns: Sequence[jax.Array]
) -> jax.Array:
  """Inner products ``(T, T)`` of two lists of stacked leaves ``(T, ...)``."""
  if not rows:
    raise ValueError('a Gramian needs at least one shared parameter.')
  return sum(leaf_products(a, b) for a, b in zip(rows, columns, strict=True))


def gramian_of(leaves: Sequence[jax.Array]) -> jax.Array:
  """The Gramian ``(T, T)`` of stacked leaves ``(T, ...)``."""
  return products_of(leaves, leaves)


def in_range_of(
  through: Iterable[Any], combined: Callable[..., list[jax.Array]]
) -> Callable[..., list[jax.Array]]:
  """``combined(weights)``, which is linear, for weights of any size.

  Where the weighted sum passes through half precision, whose range large
  weights leave, it is taken of weights of at most 1 and multiplied afterwards.
  """
  floating = [x for x in through if jnp.issubdtype(x.dtype, jnp.inexact)]
  if all(accumulator(x.dtype) == x.dtype for x in floating):
    return combined

  def scaled(weights=None):
    if weights is None:  # all are 1
      return combined()
    largest = jnp.max(jnp.abs(weights.astype(accumulator(weights.dtype))))
    fits = jnp.isfinite(largest) & (largest > 0)
    # A power of two: the product with it is exact.
    exponent = jnp.ceil(jnp.log2(jnp.where(fits, largest, 1)))
    size = jnp.where(fits, jnp.exp2(exponent), 1)
    return [scale_leaf(size, x) for x in combined(weights / size)]

  return scaled


def combine_leaf(weights: jax.Array, leaf: jax.Array) -> jax.Array:
  """``sum_t weights[t] * leaf[t]`` in the accumulator's, then leaf's dtype."""
  acc = accumulator(leaf.dtype)
  out = jnp.einsum(
    't,t...->...',
    weights.astype(acc),
    leaf.astype(acc),
    precision='highest',
  )
  return out.astype(leaf.dtype)


def scale_leaf(scale: jax.Array, leaf: jax.Array) -> jax.Array:
  """``scale * leaf`` in the leaf's dtype; a ``(T,)`` scale is per row."""
  scale = scale.reshape(scale.shape + (1,) * (leaf.ndim - scale.ndim))
  return (scale * leaf.astype(accumulator(leaf.dtype))).astype(leaf.dtype)


def check_numbers(tree: Any, what: str) -> None:
  """Raises TypeError, naming the leaf, unless all are such arrays."""
  names = _labels.path_names(tree)
  for name, leaf in zip(names, jax.tree.leaves(tree), strict=True):
    dtype = getattr(leaf, 'dtype', None)
    if dtype is not None and jnp.issubdtype(dtype, jnp.inexact):
      continue
    found = (
      f'{leaf!r}, a {type(leaf).__name__}'
      if dtype is None
      else f'an array of {jnp.dtype(dtype).name}'
    )
    raise TypeError(
      f'{what}: leaf {name!r} is {found}; gradients are arrays of floating or '
      'complex numbers. Parameters that are not do not belong in params: keep '
      'them apart, or close over them.'
    )


def present(mask: jax.Array | None, leaf: jax.Array) -> jax.Array:
  """The leaf with what absent tasks hold, whatever it is, as zeros.

  The mask has the leaf's leading axes: ``(T,)`` for rows, ``()`` for a leaf
  that belongs to one task.
  """
  if mask is None:
    return leaf
  mask = mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim))
  return jnp.where(mask, leaf, jnp.zeros_like(leaf))


def stays_finite(new: Any, old: Any) -> jax.Array:
  """Whether every number of a state that was finite still is, shape ``()``.

  What never was, such as weights that were never computed, may stay as it is.
  """
  ok = jnp.array(True)
  for n, o in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True):
    if n is not o and jnp.issubdtype(n.dtype, jnp.inexact):
      ok = ok & jnp.all(jnp.isfinite(n) | ~jnp.isfinite(o))
  return ok


def norm(leaves: Sequence[jax.Array]) -> jax.Array:
  """The Euclidean norm over all leaves, in the accumulator's dtype."""
  return jnp.sqrt(sum(squared_norm(as_real(x)) for x in leaves))


def squared_norm(real: jax.Array, axis: int | None = None) -> jax.Array:
  """The sum of squares over an axis or all, in the accumulator's dtype."""
  return jnp.sum(jnp.square(real.astype(accumulator(real.dtype))), axis)


def _check_rows(grads: Any, labels: Sequence[Any], what: str) -> None:
  """Raises ValueError unless axis 0 of the shared leaves is one task axis."""
  names, leaves = _labels.path_names(grads), jax.tree.leaves(grads)
  first = None
  for name, leaf, label in zip(names, leaves, labels, strict=True):
    if label != _labels.SHARED:
      continue
    first = first or leaf.shape[:1]
    if not leaf.shape or leaf.shape[:1] != first:
      tasks = f'the first has {first[0]} tasks' if first else 'it has none'
      raise ValueError(
        f'{what}: leaf {name!r} has shape {leaf.shape}; axis 0 of the shared '
        f"parameters' gradients is the task, and {tasks}."
      )


def gramian(grads: Any, *, labels: _labels.Labels | None = None) -> jax.Array:
  """Inner products between the tasks' gradients on the shared parameters.

  Args:
    grads: per-task gradients as `mtljax.value_and_task_grads` returns them;
      shared leaves have shape ``(T, *p.shape)``.
    labels: see `mtljax.label_params`; None: all leaves are shared.

  Returns:
    ``G = J J^T``, shape ``(T, T)``, float32 or wider. A complex number counts
    as two real ones, so ``G`` is real.

  Raises:
    TypeError: a leaf does not hold floating or complex numbers.
    ValueError: a shared leaf has no task axis, or one of another length.

  Examples:
    >>> import jax.numpy as jnp
    >>> import mtljax as mtl
    >>> mtl.gramian({'w': jnp.array([[1.0, 0.0], [1.0, 1.0]])})
    Array([[1., 1.],
           [1., 2.]], dtype=float32)
  """
  check_numbers(grads, 'grads')
  flat = _labels.flatten_labels(labels, grads)
  _check_rows(grads, flat, 'grads')
  leaves = jax.tree.leaves(grads)
  return gramian_of(
    [x for x, label in zip(leaves, flat, strict=True) if label == 'shared']
  )


def cross_gramian(
  grads_1: Any,
  grads_2: Any,
  *,
  labels: _labels.Labels | None = None,
  gramian_labels: Any | None = None,
) -> jax.Array:
  r"""Inner products between the tasks' gradients on two batches.

  .. math:: M_{st} = \langle \nabla L_s(\theta; \xi_1),
     \nabla L_t(\theta; \xi_2) \rangle

  For independent batches its mean is the Gramian of the mean gradients, which
  the Gramian of one batch is not: the noise of the batch adds to its diagonal.
  It is not symmetric, and a diagonal entry can be negative.

  Args:
    grads_1: per-task gradients on the first batch, as
      `mtljax.value_and_task_grads` returns them; shared leaves have shape
      ``(T, *p.shape)``.
    grads_2: those on the second batch, at the same parameters.
    labels: see `mtljax.label_params`; None: all leaves are shared.
    gramian_labels: tree of bools, see `mtljax.match_params`: the shared leaves
      over which it is taken; None: all of them.

  Returns:
    ``M = J_1 J_2^T``, shape ``(T, T)``, float32 or wider.

  Raises:
    ValueError: the two trees differ in structure or shapes, or a shared leaf
      has no task axis.

  Examples:
    >>> import jax.numpy as jnp
    >>> import mtljax as mtl
    >>> first, second = jnp.eye(2), jnp.array([[1.0, 0.0], [1.0, 1.0]])
    >>> print(mtl.cross_gramian({'w': first}, {'w': second}))
    [[1. 1.]
     [0. 1.]]
  """
  structures = [jax.tree.structure(g) for g in (grads_1, grads_2)]
  if structures[0] != structures[1]:
    raise ValueError(
      'grads_1 and grads_2 have different tree structures: '
      f'{structures[0]} and {structures[1]}.'
    )
  check_numbers(grads_1, 'grads_1')
  check_numbers(grads_2, 'grads_2')
  leaves_1, leaves_2 = jax.tree.leaves(grads_1), jax.tree.leaves(grads_2)
  names = _labels.path_names(grads_1)
  for name, a, b in zip(names, leaves_1, leaves_2, strict=True):
    if a.shape != b.shape:
      raise ValueError(
        f'grads_1 and grads_2: {name!r} has shapes {a.shape} and {b.shape}; '
        'both are per-task gradients of the same parameters.'
      )
  flat = _labels.flatten_labels(labels, grads_1)
  _check_rows(grads_1, flat, 'grads_1')
  used = _labels.flatten_gramian_labels(gramian_labels, flat, grads_1)
  return products_of(
    [x for x, use in zip(leaves_1, used, strict=True) if use],
    [x for x, use in zip(leaves_2, used, strict=True) if use],
  )


def combine(
  grads: Any, weights: jax.Array, *, labels: _labels.Labels | None = None
) -> Any:
  """The weighted sum of the tasks' gradients.

  Args:
    grads: per-task gradients as `mtljax.value_and_task_grads` returns them.
    weights: shape ``(T,)``.
    labels: see `mtljax.label_params`; None: all leaves are shared.

  Returns:
    A tree with the parameters' shapes: ``sum_t w_t g_t`` on shared leaves, and
    each task's ``w_t g_t`` on those that it owns, in the gradients' dtypes.

  Examples:
    >>> import jax.numpy as jnp
    >>> import mtljax as mtl
    >>> print(mtl.combine(jnp.eye(2), jnp.array([0.5, 2.0])))
    [0.5 2. ]
  """
  check_numbers(grads, 'grads')
  flat = _labels.flatten_labels(labels, grads)

  def one(leaf, label):
    if label == _labels.SHARED:
      return combine_leaf(weights, leaf)
    own = weights if label == _labels.STACKED else weights[label]
    return scale_leaf(own, leaf)

  leaves, treedef = jax.tree.flatten(grads)
  return jax.tree.unflatten(
    treedef, [one(x, label) for x, label in zip(leaves, flat, strict=True)]
  )


def cosines(gramian: jax.Array) -> jax.Array:
  """Cosine similarities between tasks from their Gramian.

  Args:
    gramian: shape ``(T, T)``.

  Returns:
    Shape ``(T, T)``, in ``[-1, 1]``; 0 beside a zero gradient, its own
    diagonal entry included.

  Examples:
    >>> import jax.numpy as jnp
    >>> import mtljax as mtl
    >>> mtl.cosines(jnp.array([[4.0, -3.0], [-3.0, 9.0]]))
    Array([[ 1. , -0.5],
           [-0.5,  1. ]], dtype=float32)
  """
  norms = jnp.sqrt(jnp.diagonal(gramian))
  inverse = jnp.where(norms == 0, 0, 1 / jnp.where(norms == 0, 1, norms))
  return jnp.clip(gramian * inverse[:, None] * inverse[None, :], -1, 1)
