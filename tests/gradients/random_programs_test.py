"""Random programs of what takes part, layer by layer and by the jacobian."""

import math

import hypothesis
import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from hypothesis import strategies as st

import mtljax as mtl
from mtljax.gradients import _kernels, _program

LAX_MODES = ('clip', 'fill', 'promise_in_bounds')
SIZES = st.integers(1, 3)


def shuffled(draw, n):
  return tuple(draw(st.permutations(range(n))))


def moved(draw, shape):
  """A shape, and moves from an array of it to one of ``shape``."""
  moves = []
  for _ in range(draw(st.integers(0, 4))):
    kind = draw(
      st.sampled_from(
        ['transpose', 'reshape', 'rev', 'squeeze', 'broadcast', 'cast', 'copy']
      )
    )
    after = shape
    if kind == 'transpose':
      axes = shuffled(draw, len(shape))
      shape = tuple(after[i] for i in np.argsort(axes))
      move = lambda x, axes=axes: jax.lax.transpose(x, axes)
    elif kind == 'reshape':
      shape = (math.prod(after),)
      move = lambda x, after=after: jax.lax.reshape(x, after)
    elif kind == 'rev':
      axes = draw(st.sets(st.integers(0, len(shape) - 1)))
      move = lambda x, axes=tuple(axes): jax.lax.rev(x, axes)
    elif kind == 'squeeze':
      shape = (*after, 1)
      last = len(after)
      move = lambda x, last=last: jax.lax.squeeze(x, (last,))
    elif kind == 'broadcast' and 1 in after:
      axis = after.index(1)
      shape = after[:axis] + after[axis + 1 :]
      axes = [i for i in range(len(after)) if i != axis]
      move = lambda x, after=after, axes=axes: jax.lax.broadcast_in_dim(
        x, after, axes
      )
    elif kind == 'cast':
      move = lambda x: jax.lax.convert_element_type(x, jnp.float64)
    else:
      move = jnp.copy
    if not shape:
      return after, moves
    moves.append(move)
  return shape, moves


def dot(draw):
  contracted = draw(st.lists(SIZES, min_size=1, max_size=2))
  free = [draw(st.lists(SIZES, max_size=2)) for _ in range(2)]
  shapes, places = [], []
  for rest in free:
    order = shuffled(draw, len(contracted) + len(rest))
    sizes = [*contracted, *rest]
    shapes.append(tuple(sizes[i] for i in order))
    places.append(tuple(order.index(i) for i in range(len(contracted))))
  left = draw(st.booleans())

  def product(x, w):
    args, dims = (x, w), places
    if left:
      args, dims = args[::-1], dims[::-1]
    return jax.lax.dot_general(*args, (tuple(dims), ((), ())))

  return shapes[1], nets.normal(*shapes[0], seed=1), product


def conv(draw):
  dims = draw(st.integers(1, 2))
  n, i, o = (draw(SIZES) for _ in range(3))
  space = [draw(st.integers(3, 5)) for _ in range(dims)]
  window = [draw(SIZES) for _ in range(dims)]
  small = st.integers(1, 2)
  options = {
    'window_strides': [draw(SIZES) for _ in range(dims)],
    'padding': [(draw(st.integers(0, 2)), draw(small)) for _ in range(dims)],
    'lhs_dilation': [draw(small) for _ in range(dims)],
    'rhs_dilation': [draw(small) for _ in range(dims)],
  }
  options['padding'][0] = (options['padding'][0][0], draw(st.integers(-1, 2)))
  numbers = [shuffled(draw, dims + 2) for _ in range(3)]
  place = lambda sizes, spec: tuple(
    sizes[spec.index(i)] for i in range(dims + 2)
  )
  x, w = place([n, i, *space], numbers[0]), place([o, i, *window], numbers[1])
  options['dimension_numbers'] = jax.lax.ConvDimensionNumbers(*numbers)
  product = lambda x, w: jax.lax.conv_general_dilated(x, w, **options)
  return w, nets.normal(*x, seed=1), product


def gather(draw):
  rows, rest = draw(st.integers(1, 5)), draw(st.lists(SIZES, max_size=2))
  dtype = draw(st.sampled_from(['int8', 'uint8', 'int16', 'int32', 'uint64']))
  low = 0 if dtype[0] == 'u' else -3
  ids = draw(st.lists(st.integers(low, rows + 2), min_size=1, max_size=4))
  ids = np.array(ids, dtype)
  axis = draw(st.integers(0, len(rest)))
  numbers = jax.lax.GatherDimensionNumbers(
    offset_dims=tuple(i for i in range(len(rest) + 1) if i != axis),
    collapsed_slice_dims=(0,),
    start_index_map=(0,),
  )
  mode = draw(st.sampled_from(LAX_MODES))
  product = lambda ids, w: jax.lax.gather(
    w, ids[:, None], numbers, (1, *rest), mode=mode
  )
  return (rows, *rest), ids, product


def check(draw):
  kind = draw(st.sampled_from([dot, conv, gather]))
  shape, x, product = kind(draw)
  shape, moves = moved(draw, shape)

  def losses(w, x):
    for move in reversed(moves):
      w = move(w)
    return nets.losses_of(product(x, w))

  w = nets.normal(*shape)
  program, _ = _program.trace(
    lambda p, x: losses(*p, x), [w], x, kinds=_kernels.READERS
  )
  (use,) = program.uses
  out = jax.eval_shape(losses, w, x)
  assert out.shape == (nets.T,)
  if use is not None:
    assert _kernels.as_layer(use) is not None
  gramian_fn = mtl.value_and_gramian(losses, layerwise=True, mode='vmap')

  @jax.jit
  def compute(w, x):
    return gramian_fn(w, x)[1], jax.jacrev(losses)(w, x)

  gramian, rows = compute(w, x)
  rows = nets.rows_of(rows)
  if np.isfinite(rows).all():
    nets.assert_close(gramian, rows @ rows.T, 1e-10)
  return use is not None


def run(examples, monkeypatch):
  monkeypatch.setattr(_kernels, 'is_cheaper', lambda *args: True)
  taken = []

  @hypothesis.settings(
    max_examples=examples,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  @hypothesis.given(st.data())
  def programs(data):
    taken.append(check(data.draw))

  programs()
  assert np.mean(taken) > 0.8


def test_programs(x64, monkeypatch):
  run(25, monkeypatch)


@pytest.mark.slow
def test_many_programs(x64, monkeypatch):
  run(1000, monkeypatch)
