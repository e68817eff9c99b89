import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from experiments.lab import methods
from mtljax.training import make_train_step


@pytest.mark.parametrize('name', methods.method_names())
def test_every_name_builds(name):
  method = methods.make_method(name, 2, None, rho=0.1)
  assert isinstance(method, mtl.Aggregator)
  assert name.endswith(method.info.name)


def test_all_is_every_method_once():
  names = methods.expand(['flat_mgda', 'all', 'mean'])
  assert names[0] == 'flat_mgda'
  # Most studies have no validation batch.
  assert sorted(names[1:]) == [
    m.name for m in mtl.methods() if 'hypergradient' not in m.needs
  ]
  every = methods.expand(['all'], val_batches=True)
  assert list(every) == [m.name for m in mtl.methods()]
  assert methods.expand(['mean', 'mgda', 'mean']) == ('mean', 'mgda')


def test_weights_and_scores_reach_their_methods():
  def make(name, **kwargs):
    return methods.make_method(name, 2, None, rho=0.1, **kwargs)

  method = make('fixed', weights=(3.0, 1.0))
  assert method.init(None).weighting_state.tolist() == [3.0, 1.0]
  with pytest.raises(ValueError, match='num_tasks=2'):
    make('fixed', weights=(1.0,))
  with pytest.raises(ValueError, match='scores'):
    make('pivrg', scores=(1.0,))


@pytest.mark.parametrize('name', ['adatask', 'per_task_optimizer'])
def test_a_method_that_is_an_optimizer_takes_the_learning_rate(name):
  def task_losses(w, batch):
    del batch
    return jnp.stack([w[0], 3 * w[0]])

  method = methods.make_method(
    name, 2, None, rho=0.1, optimizer=optax.adam, learning_rate=0.25
  )
  assert method.info.is_optimizer
  step = make_train_step(method, optax.identity(), task_losses)
  state = step.init(jnp.zeros(1), key=jax.random.key(0))
  state, _ = step.step(state, None)
  np.testing.assert_allclose(state.params, -0.5, rtol=1e-5)  # once for each


def test_unknown_name_lists_the_closest():
  with pytest.raises(ValueError, match="Did you mean 'flat_cagrad'"):
    methods.make_method('flat_cagrd', 2, None, rho=0.1)


@pytest.mark.parametrize('name', ['auto_lambda', 'moml'])
def test_studies_without_validation_batches_refuse_what_needs_them(name):
  methods.check_names(['mgda', name], val_batches=True)
  with pytest.raises(ValueError, match=f'--methods={name} .*validation batch'):
    methods.check_names(['mgda', name])
