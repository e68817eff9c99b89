"""What the train step tells its optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import BATCH, FORMS, LABELS, PARAMS, T, plain

import mtljax as mtl
from mtljax.training import make_train_step


def listener():
  """An optimizer whose state is the ``value`` that it was told last."""

  def update(updates, state, params=None, *, value):
    del state, params
    return jax.tree.map(lambda g: -1e-3 * g, updates), value

  return optax.GradientTransformationExtraArgs(
    lambda params: jnp.zeros(()), update
  )


@pytest.mark.parametrize(
  'options', [{}, {'microbatch_size': 4}, {'every': 2}], ids=str
)
@pytest.mark.parametrize('form', FORMS)
def test_value_is_the_sum_of_the_losses_before_the_update(form, options):
  train = make_train_step(
    mtl.cagrad(T, labels=LABELS), listener(), FORMS[form], **options
  )
  state = train.init(PARAMS, key=jax.random.key(0))
  batch = [BATCH] * T if form == 'sequence' else BATCH
  for _ in range(2):
    expected = jnp.sum(plain(state.params, BATCH))
    state, metrics = train.step(state, batch)
    np.testing.assert_allclose(state.opt_state, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics['losses'].sum(), expected, rtol=1e-5)


def test_value_under_sharpness_is_that_of_the_clean_losses():
  method = mtl.sam(mtl.cagrad(T, labels=LABELS), rho=0.5)
  train = make_train_step(method, listener(), FORMS['staged'])
  state = train.init(PARAMS, key=jax.random.key(0))
  state, metrics = train.step(state, BATCH)
  clean = plain(PARAMS, BATCH)
  np.testing.assert_allclose(metrics['losses'], clean, rtol=1e-5)
  np.testing.assert_allclose(state.opt_state, jnp.sum(clean), rtol=1e-5)
