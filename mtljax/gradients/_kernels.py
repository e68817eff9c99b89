"""Inner products of a layer's gradients without forming the gradients.

The gradient of task t for the kernel of a dense layer is ``A^T D_t``: A holds
the input of each of n positions, ``(n, in)``, and ``D_t`` the gradient at its
output, ``(n, out)``. So

    <A^T D_s, A^T D_t> = <D_s, K D_t>,    K = A A^T,

which takes ``n^2 (in + T out) + T^2 n out`` multiplications where forming the
gradients takes ``T n in out + T^2 in out``. A convolution is a dense layer on
patches, and the rows of an embedding are a dense layer on one-hot vectors, for
which ``K`` says where two positions look up the same row.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtljax import _tree
from mtljax.gradients import _loops, _proven
from mtljax.gradients._program import Use

# What a look-up outside of the table may mean: the nearest row, or none.
_MODES = (
  jax.lax.GatherScatterMode.CLIP,
  jax.lax.GatherScatterMode.FILL_OR_DROP,
  jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS,
)


class Layer(NamedTuple):
  """A parameter's one use, read as a dense layer.

  Attributes:
    num_positions: n, examples times places in the image or the sentence.
    num_inputs: the length of an input; 1 where it is one-hot, and looked up.
    num_outputs: the length of an output.
    size: the number of weights.
    outer: the axes of the operation's operand that become the output's.
    inputs: from what went into the operation to A, ``(n, ...)``.
    kernel: K ``(n, n')`` from two such.
    outputs: from the gradient at the output, and what went into the operation,
      to D, ``(n, out)``.
  """

  num_positions: int
  num_inputs: int
  num_outputs: int
  size: int
  outer: tuple[int, ...]
  inputs: Callable[[Sequence[Any]], jax.Array]
  kernel: Callable[[jax.Array, jax.Array], jax.Array]
  outputs: Callable[[jax.Array, Sequence[Any]], jax.Array]


def as_layer(use: Use) -> Layer | None:
  """The dense layer that an operation is, or None."""
  return READERS[use.op.eqn.primitive.name](use)


def product(a: jax.Array, b: jax.Array) -> jax.Array:
  """``a b^T`` of two matrices, added up in float32 or wider."""
  acc = _tree.accumulator(jnp.promote_types(a.dtype, b.dtype))
  return jnp.einsum(
    'ni,mi->nm', a, b, precision='highest', preferred_element_type=acc
  )


def _dot_general(use: Use) -> Layer | None:
  params = use.op.eqn.params
  contracting, batch = params['dimension_numbers']
  if batch[0] or batch[1] or use.position > 1:
    return None
  shapes = [x.aval.shape for x in use.op.eqn.invars]
  data = 1 - use.position
  if not contracting[0]:
    return None
  dims = tuple(contracting[data])
  free = tuple(i for i in range(len(shapes[data])) if i not in dims)
  # The other operand's order of contracted dimensions does not matter: the
  # products sum over all of them.
  n = math.prod(shapes[data][i] for i in free)
  num_in = math.prod(shapes[data][i] for i in dims)
  num_out = math.prod(shapes[use.position]) // max(num_in, 1)
  taken = contracting[use.position]
  outer = tuple(i for i in range(len(shapes[use.position])) if i not in taken)

  def outputs(signal, ins):
    del ins
    # The output has the free dimensions of the left operand first.
    if data == 0:
      return signal.reshape(n, num_out)
    return signal.reshape(num_out, n).T

  return Layer(
    n,
    num_in,
    num_out,
    num_in * num_out,
    outer,
    lambda ins: ins[data].transpose(*free, *dims).reshape(n, num_in),
    product,
    outputs,
  )


def _conv(use: Use) -> Layer | None:
  p = use.op.eqn.params
  grouped = p['feature_group_count'] > 1 or p['batch_group_count'] > 1
  if use.position != 1 or grouped:
    return None
  numbers = p['dimension_numbers']
  lhs, rhs, out = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
  w = use.op.eqn.invars[1].aval.shape
  y = use.op.eqn.outvars[0].aval.shape
  size = [w[i] for i in rhs[2:]]
  spatial = [y[i] for i in out[2:]]
  n = y[out[0]] * math.prod(spatial)
  num_in, num_out = math.prod(size) * w[rhs[1]], w[rhs[0]]

  def patches(ins):
    image = ins[0].transpose(lhs[0], *lhs[2:], lhs[1])
    widths = [
      (low, high, dilation - 1)
      for (low, high), dilation in zip(
        p['padding'], p['lhs_dilation'], strict=True
      )
    ]
    zero = jnp.zeros((), image.dtype)
    image = jax.lax.pad(image, zero, [(0, 0, 0), *widths, (0, 0, 0)])
    taps = []
    for place in itertools.product(*map(range, size)):
      start = [k * d for k, d in zip(place, p['rhs_dilation'], strict=True)]
      stop = [
        s + (length - 1) * stride + 1
        for s, length, stride in zip(
          start, spatial, p['window_strides'], strict=True
        )
      ]
      taps.append(
        jax.lax.slice(
          image,
          (0, *start, 0),
          (image.shape[0], *stop, image.shape[-1]),
          (1, *p['window_strides'], 1),
        )
      )
    return jnp.concatenate(taps, axis=-1).reshape(n, num_in)

  def outputs(signal, ins):
    del ins
    return signal.transpose(out[0], *out[2:], out[1]).reshape(n, num_out)

  outer = (rhs[0],)
  weights = num_in * num_out
  return Layer(n, num_in, num_out, weights, outer, patches, product, outputs)


def _gather(use: Use) -> Layer | None:
  p = use.op.eqn.params
  numbers = p['dimension_numbers']
  table, ids = (v.aval.shape for v in use.op.eqn.invars)
  y = use.op.eqn.outvars[0].aval.shape
  rows_of_table = (
    use.position == 0
    and tuple(numbers.start_index_map) == (0,)
    and tuple(numbers.collapsed_slice_dims) == (0,)
    and not numbers.operand_batching_dims
    and tuple(p['slice_sizes']) == (1, *table[1:])
    and ids[-1] == 1
    and p['mode'] in _MODES
    and _proven.holds(use.op.eqn.invars[1].aval.dtype, table[0])
  )
  if not rows_of_table:
    return None
  n, num_out = math.prod(ids[:-1]), math.prod(table[1:])
  offset = tuple(numbers.offset_dims)
  places = tuple(i for i in range(len(y)) if i not in offset)
  clips = p['mode'] == jax.lax.GatherScatterMode.CLIP

  def inputs(ins):
    return jnp.clip(ins[1].reshape(n), 0, table[0] - 1)

  def kernel(a, b):
    return (a[:, None] == b[None, :]).astype(np.float32)

  def outputs(signal, ins):
    rows = signal.transpose(*places, *offset).reshape(n, num_out)
    if clips:
      return rows
    # An id outside the table reads what was put in its place, and gives its
    # gradient, whatever it is, to no row.
    ids = ins[1].reshape(n, 1)
    return jnp.where((ids >= 0) & (ids < table[0]), rows, 0)

  size, outer = table[0] * num_out, tuple(range(1, len(table)))
  return Layer(n, 1, num_out, size, outer, inputs, kernel, outputs)


# How the operations are read that can be such a layer.
READERS = {
  'dot_general': _dot_general,
  'conv_general_dilated': _conv,
  'gather': _gather,
}


def costs(
  layer: Layer, num_tasks: int, num_samples: int = 1
) -> tuple[int, int]:
  """Multiplications of inner products by K, and from gradients.

  With ``num_samples`` those of every sample with every other, each of the
  layer's n positions; else those of the batch as one.
  """
  n, out, t, s = layer.num_positions, layer.num_outputs, num_tasks, num_samples
  by_kernel = s * s * (n * n * (layer.num_inputs + t * out) + t * t * n * out)
  by_rows = s * t * n * layer.num_inputs * out + (s * t) ** 2 * layer.size
  return by_kernel, by_rows


def is_cheaper(layer: Layer, num_tasks: int, num_samples: int = 1) -> bool:
  """Whether inner products by K take fewer multiplications, see `costs`."""
  if not _proven.is_static([num_tasks, num_samples]):
    return False
  by_kernel, by_rows = costs(layer, num_tasks, num_samples)
  return by_kernel < by_rows


def products(
  first: tuple[Layer, tuple[Sequence[Any], jax.Array]],
  second: tuple[Layer, tuple[Sequence[Any], jax.Array]],
  map_tasks: Callable[..., jax.Array],
) -> jax.Array:
  """Inner products ``(T, T)`` of one parameter's gradients in two passes.

  Args:
    first: its layer, what went into it, and the signals ``(T, ...)``.
    second: those of the other pass, or the same.
    map_tasks: how a function of one signal becomes one of ``(T, ...)``.
  """
  (one, (ins_one, signals_one)), (two, (ins_two, signals_two)) = first, second
  kernel = one.kernel(one.inputs(ins_one), two.inputs(ins_two))

  def times(signal):
    row = two.outputs(signal, ins_two)
    return jnp.matmul(
      kernel,
      row,
      precision='highest',
      preferred_element_type=_tree.accumulator(
        jnp.promote_types(kernel.dtype, row.dtype)
      ),
    )

  rows = map_tasks(lambda signal: one.outputs(signal, ins_one), signals_one)
  return _tree.leaf_products(rows, map_tasks(times, signals_two))


def tag(layer: Layer) -> _loops.Tag:
  """Marks a layer's output inside a loop, see `_loops`."""

  def of_signals(signals, inputs):
    side = layer, (inputs, signals)
    return products(side, side, lambda fun, x: jax.vmap(fun)(x))

  return _loops.make_tag(of_signals)
