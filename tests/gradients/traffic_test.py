"""What a leaf's inner products cost in bytes between devices, by hand."""

import jax
import jax.numpy as jnp
import pytest
from fake_mesh import FakeMesh
from jax.sharding import PartitionSpec as P

from mtljax.gradients import _kernels, _program, _traffic
from mtljax.gradients._place import Place, without

T, B, IN, OUT = 6, 16, 96, 160
S = 4 * IN * OUT


def use_of(fun, shape=(IN, OUT), batch=None):
  """The use of one parameter, and its layer."""
  batch = jnp.ones((B, IN), jnp.float32) if batch is None else batch
  program, _ = _program.trace(
    lambda params, x: (fun(params[0], x), None),
    [jax.ShapeDtypeStruct(shape, jnp.float32)],
    batch,
    kinds=_kernels.READERS,
  )
  (use,) = program.uses
  return use, _kernels.as_layer(use)


def spread(spec, **mesh):
  return Place(FakeMesh(**mesh), [spec]).spread(0, 2)


def signals(spec, fun=lambda w, x: x @ w, size=S, num_tasks=T, **mesh):
  return _traffic.of_signals(
    *use_of(fun), size, num_tasks, spread(spec, **mesh)
  )


@pytest.mark.parametrize(
  ('mesh', 'spec', 'rows', 'of_signals'),
  [
    ({}, P(None, None), 0, 0),
    # T gradients summed and split; inputs and T signals gathered, and the
    # weighted gradient summed and split.
    (
      {'data': 4},
      P('data', None),
      3 / 4 * T * S,
      3 / 4 * (4 * B * (IN + T * OUT) + S),
    ),
    # Whole on every device: sums everywhere are twice the way.
    (
      {'data': 4},
      P(None, None),
      3 / 4 * 2 * T * S,
      3 / 4 * (4 * B * (IN + T * OUT) + 2 * S),
    ),
    # Halves of the tasks, summed over two devices, then exchanged: a device has
    # T / 2 halves and needs T quarters, of whose sum it needs the other one.
    (
      {'data': 2, 'task': 2},
      P('data', 'task'),
      T / 2 * S / 2 + T / 2 * S / 2 / 2 + S / 2 / 2,
      4 * B * IN / 2 + T / 2 * 4 * B * OUT / 2 + T * 4 * B * OUT / 4 + S / 2,
    ),
    # Not split over the tasks' devices: all of the others' halves are needed.
    (
      {'data': 2, 'task': 2},
      P('data', None),
      T / 2 * S / 2 + T * S / 2 / 2,
      4 * B * IN / 2 + T / 2 * 4 * B * OUT / 2 + T * 4 * B * OUT / 4 + S / 2,
    ),
    # The outputs of a layer are split, and with them the signals.
    (
      {'data': 2, 'model': 4},
      P('data', 'model'),
      T * S / 4 / 2,
      4 * B * (IN + T * OUT / 4) / 2 + S / 4 / 2,
    ),
    # Its inputs are: signals are whole.
    (
      {'data': 2, 'model': 4},
      P('model', 'data'),
      T * S / 4 / 2,
      4 * B * (IN + T * OUT) / 2 + S / 4 / 2,
    ),
    ({'model': 4}, P(None, 'model'), 0, 0),
  ],
)
def test_bytes_by_hand(mesh, spec, rows, of_signals):
  found = _traffic.of_rows(S, T, spread(spec, **mesh))
  assert found == pytest.approx(rows)
  assert signals(spec, **mesh) == pytest.approx(of_signals)


def test_moved_axes_are_taken_for_whole():
  """After a transposition no one knows which axis is the output's."""
  spec, mesh = P('model', 'data'), {'data': 2, 'model': 4}
  kept = signals(P('data', 'model'), **mesh)
  cast = lambda w, x: x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)
  halved = signals(P('data', 'model'), cast, **mesh)
  assert halved == pytest.approx((kept - S / 8) / 2 + S / 8)
  moved = signals(spec, lambda w, x: x @ w.reshape(OUT, IN).T, **mesh)
  assert moved == pytest.approx(4 * B * (IN + T * OUT) / 2 + S / 8)


def test_looked_up_rows_travel_as_numbers():
  ids = jnp.zeros((B, 3), jnp.int32)
  use, layer = use_of(lambda w, x: w[x], batch=ids)
  found = _traffic.of_signals(use, layer, S, T, spread(P('data'), data=4))
  assert found == pytest.approx(3 / 4 * (4 * B * 3 * (1 + T * OUT) + S))


def test_fewer_bytes_decide():
  """B (in + T out) + in out against T in out."""
  place = Place(FakeMesh(data=8), [P('data', None)])
  param = jnp.ones((IN, OUT), jnp.float32)
  most = (T - 1) * IN * OUT // (IN + T * OUT)
  for n, pays in ((most, True), (most + 1, False)):
    use, layer = use_of(lambda w, x: x @ w, batch=jnp.ones((n, IN)))
    assert place.pays(0, use, layer, param, T) is pays


@pytest.mark.parametrize(('num_examples', 'pays'), [(16, True), (64, False)])
def test_twice_the_bytes_count_where_a_model_axis_splits(num_examples, pays):
  """49 kB and 98 kB, against 131 kB of rows."""
  place = Place(FakeMesh(data=2, model=4), [P('data', 'model')])
  param = jnp.ones((256, 256), jnp.float32)
  batch = jnp.ones((num_examples, 256))
  use, layer = use_of(lambda w, x: x @ w, (256, 256), batch)
  assert place.pays(0, use, layer, param, 4) is pays


def test_specs_without_axes():
  spec = P(('data', 'task'), 'model', None)
  assert without(spec, 'task') == P('data', 'model', None)
  assert without(spec, 'data', 'task') == P(None, 'model', None)
