"""Look-ups layer by layer: every type of ids, inside and outside of tables."""

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

import mtljax as mtl
from mtljax.gradients import _kernels, _program

DTYPES = ('int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32')
WIDE = ('int64', 'uint64')
MODES = ('clip', 'fill', 'promise_in_bounds')
DIMENSIONS = jax.lax.GatherDimensionNumbers(
  offset_dims=(1,), collapsed_slice_dims=(0,), start_index_map=(0,)
)


@pytest.fixture
def all_by_kernel(monkeypatch):
  monkeypatch.setattr(_kernels, 'is_cheaper', lambda *args: True)


def ids_of(dtype, rows):
  """Ids in and around the table, and at the ends of the type."""
  info = np.iinfo(dtype)
  near = (0, 1, 1, 3, rows - 1, rows, rows + 2, -1, -2, -rows, -rows - 1)
  # The least number of 64 bits is read as 0 by the look-up itself.
  ends = (int(info.max), int(info.max) - 1, int(info.min) + 1)
  return np.array([i for i in near + ends if info.min <= i <= info.max], dtype)


def gathered(mode):
  """The look-up itself, and its losses."""

  def losses(table, ids):
    z = jax.lax.gather(
      table, ids[:, None], DIMENSIONS, (1, table.shape[1]), mode=mode
    )
    return nets.losses_of(z)

  return losses


def indexed(mode):
  """By numpy's rules: negative ids count from the end."""
  return lambda table, ids: nets.losses_of(table.at[ids].get(mode=mode))


def check(losses, rows, ids, layer, single=True):
  """Both Gramians beside the rows'; whether the table is read as a layer."""
  table = jnp.asarray(nets.normal(rows, 3))
  ids = jnp.asarray(ids)
  program, _ = _program.trace(
    lambda p, ids: losses(*p, ids), [table], ids, kinds=_kernels.READERS
  )
  (use,) = program.uses
  assert (use is not None and _kernels.as_layer(use) is not None) == layer

  @jax.jit
  def compute(table, ids):
    one = mtl.value_and_gramian(losses, layerwise=True)(table, ids)[1]
    return one, mtl.value_and_task_grads(losses)(table, ids)[1]

  @jax.jit
  def compute_single(table, ids):
    each = mtl.value_and_sample_gramian(losses, layerwise=True)(table, ids)[1]
    return each, mtl.value_and_sample_grads(losses)(table, ids)[1]

  one, grads = compute(table, ids)
  rtol = 1e-10 if table.dtype == jnp.float64 else 1e-5
  grads = nets.rows_of(grads)
  # What lies outside of a table is NaN, and has no gradient at all.
  nets.assert_close(one, grads @ grads.T, rtol)
  # XLA itself may drop every id of a type that does not hold the table.
  assert np.all(np.isfinite(one)) and (np.any(one) or not layer)
  if single:
    each, samples = compute_single(table, ids)
    samples = nets.rows_of(samples, 2)
    want = np.einsum('stp,cup->stcu', samples, samples)
    nets.assert_close(each, want, rtol)


@pytest.mark.parametrize('mode', ['clip', 'fill', 'promise_in_bounds'])
@pytest.mark.parametrize('dtype', DTYPES + WIDE)
def test_types_of_ids(dtype, mode, x64, all_by_kernel):
  check(gathered(mode), 7, ids_of(dtype, 7), True)


@pytest.mark.parametrize('mode', ['clip', 'fill', 'promise_in_bounds'])
@pytest.mark.parametrize(
  ('dtype', 'rows', 'layer'),
  [
    ('int8', 127, True),
    ('int8', 128, False),
    ('int8', 300, False),
    ('uint8', 255, True),
    ('uint8', 256, False),
    ('uint8', 300, False),
    ('int16', 33000, False),
    ('uint16', 65536, False),
  ],
)
def test_types_that_hold_the_table_or_not(
  dtype, rows, layer, mode, all_by_kernel
):
  single = rows < 1000
  check(gathered(mode), rows, ids_of(dtype, rows), layer, single)


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('dtype', ['int8', 'uint8', 'int32', 'uint32'])
def test_modes_of_indexing(dtype, mode, all_by_kernel):
  check(indexed(mode), 7, ids_of(dtype, 7), True)
