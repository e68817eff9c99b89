"""The network of Office-31 and Office-Home."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import models

X = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)


def test_sizes_are_those_of_libmtl():
  """ResNet-18, a dense layer of 512 with a norm, a linear head a task."""
  shared = 11_176_512 + 512 * 512 + 512 + 2 * 512
  for tasks, classes in ((3, 31), (4, 65)):
    model = models.office_resnet18([str(i) for i in range(tasks)], classes)
    params, _ = jax.eval_shape(lambda m=model: m.init(jax.random.key(0), X))
    found = model.sharings(params)
    assert found.num_shared == shared
    assert found.num_params == shared + tasks * 513 * classes
  assert models.office_resnet18().num_tasks == 3
  assert shared + 3 * 513 * 31 == 11_487_901


def test_features_begin_as_in_libmtl_and_drop_out_in_training():
  model = models.office_resnet18(width=4)
  x = jax.random.normal(jax.random.key(1), (6, 8, 8, 3))
  params, state = jax.jit(model.init)(jax.random.key(0), x)
  dense = params['trunk']['fc']
  np.testing.assert_array_equal(dense['bias'], np.float32(0.1))
  assert float(dense['kernel'].std()) == pytest.approx(0.005, rel=0.1)

  @jax.jit
  def features(key):
    return model.apply_trunk(params, state, x, train=True, key=key)[0]

  one, other = features(jax.random.key(0)), features(jax.random.key(1))
  # ReLU of what a norm made leaves a half, dropout a half of that, doubled.
  assert 0.5 < float((one == 0).mean()) < 0.95
  kept = (one > 0) & (other > 0)
  assert ((one > 0) != (other > 0)).any() and kept.any()
  np.testing.assert_allclose(one[kept], other[kept], rtol=1e-5)


@pytest.mark.parametrize(
  ('options', 'said'),
  [
    ({'width': 0}, 'width=0'),
    ({'num_classes': 0}, 'num_classes=0'),
    ({'dropout_rate': 1.0}, 'dropout_rate=1.0'),
    ({'norm': 'layer'}, "norm='layer'"),
  ],
)
def test_arguments_out_of_range_are_refused(options, said):
  with pytest.raises(ValueError, match=said):
    models.office_resnet18(**options)
