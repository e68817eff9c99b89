"""Heads with state, submodules tied over heads, and conventions of sharing."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax as mtl
from mtljax import models
from mtljax.training import make_train_step

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (8, 3))


class Norm(nn.Module):
  """A dense layer and batch norm."""

  features: int

  @nn.compact
  def __call__(self, x, *, train=False):
    x = nn.Dense(self.features, name='fc')(x)
    return nn.BatchNorm(
      use_running_average=not train, momentum=0.9, name='norm'
    )(x)


class Head(nn.Module):
  """One layer of its own between two, of which the last may be tied."""

  @nn.compact
  def __call__(self, x, *, train=False):
    x = nn.relu(Norm(4, name='own')(x, train=train))
    return Norm(2, name='block')(x, train=train)


def build(tied=(), conventions=None, trunk=None):
  more = {} if conventions is None else {'conventions': conventions}
  return models.MultiTaskModel(
    trunk or Norm(5), (Head(), Head()), ('a', 'b'), tied=tied, **more
  )


def losses_of(model):
  one = lambda t: lambda y, x: (jnp.mean((y - t) ** 2), {'size': jnp.mean(y)})
  return models.staged_loss(model, [one(0), one(1.5)], lambda x: x)


def step_of(model, method, **options):
  return make_train_step(
    method, optax.sgd(0.1), losses_of(model), has_state=True, **options
  )


@pytest.mark.parametrize('trunk', [None, models.MLPTrunk((5,))])
@pytest.mark.parametrize('tied', [(), ('block',)])
def test_a_step_moves_the_statistics_of_heads(tied, trunk):
  model = build(tied, trunk=trunk)
  params, state = model.init(KEY, X)
  labels = model.sharings(params).labels
  train = step_of(model, mtl.sum_losses(2, labels=labels))
  after, metrics = train.step(
    train.init(
      jax.tree.map(jnp.copy, params),
      key=KEY,
      model_state=jax.tree.map(jnp.copy, state),
    ),
    X,
  )
  got = after.model_state
  assert jax.tree.structure(got) == jax.tree.structure(state)
  assert metrics['size'].shape == (2,)
  features, _ = model.apply_trunk(params, state, X, train=True)
  means, outs = [], []
  for t in range(2):
    own = params[f'heads_{t}']['own']['fc']
    h = features @ own['kernel'] + own['bias'][None]
    found = got[f'heads_{t}']['batch_stats']['own']['norm']['mean']
    np.testing.assert_allclose(found, 0.1 * h.mean(0), atol=1e-6)
    h = nn.relu((h - h.mean(0)[None]) / jnp.sqrt(h.var(0) + 1e-5)[None])
    last = params['tied' if tied else f'heads_{t}']['block']['fc']
    outs.append((h @ last['kernel'] + last['bias'][None]).mean(0))
    means.append(0.1 * outs[-1])
  where = lambda t: got['tied' if tied else f'heads_{t}']['batch_stats']
  for t in range(2):
    want = (means[0] + means[1]) / 2 if tied else means[t]
    np.testing.assert_allclose(
      where(t)['block']['norm']['mean'], want, atol=1e-6
    )
  # They are what evaluation reads.
  before = model.apply(params, state, X)
  for one, other in zip(before, model.apply(params, got, X), strict=True):
    assert not np.allclose(one, other)


@pytest.mark.parametrize('tied', [(), ('block',)])
def test_heads_with_state_by_every_route(tied, x64):
  model = build(tied)
  params, state = jax.tree.map(
    lambda p: p.astype(jnp.float64), model.init(KEY, X)
  )
  labels = model.sharings(params).labels
  states = []
  for route in ('jacobian', 'gramian', 'layerwise'):
    train = step_of(model, mtl.cagrad(2, labels=labels), route=route)
    copy = jax.tree.map(jnp.copy, (params, state))
    start = train.init(copy[0], key=KEY, model_state=copy[1])
    states.append(train.step(start, X.astype(jnp.float64))[0])
  for other in states[1:]:
    for name in ('params', 'model_state'):
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
        getattr(other, name),
        getattr(states[0], name),
      )


def test_tied_modules_are_there_once():
  model = build(('block',))
  params, state = model.init(KEY, X)
  assert sorted(params) == ['heads_0', 'heads_1', 'tied', 'trunk']
  assert set(params['heads_1']) == {'own'}
  assert set(params['tied']) == {'block'}
  assert set(state['tied']['batch_stats']) == {'block'}
  found = model.sharings(params)
  assert found.labels['tied']['block']['fc']['kernel'] == 'shared'
  assert found.labels['heads_1']['own']['fc']['bias'] == 1
  assert found.gramian_labels is None
  assert found.num_shared == found.num_gramian == 30 + 14
  assert found.num_params == 30 + 14 + 2 * 32


def test_conventions_label_and_choose_the_gramian():
  everything = {
    'trunk': models.Sharing('the trunk', gramian=('trunk/.*',)),
    'all': models.Sharing('all of it', shared=('heads_./own/.*',)),
  }
  model = build(('block',), everything)
  params, state = model.init(KEY, X)
  trunk, whole = (model.sharings(params, name) for name in everything)
  assert (trunk.name, trunk.about) == ('trunk', 'the trunk')
  assert trunk == model.sharings(params)
  assert (trunk.num_shared, trunk.num_gramian) == (44, 30)
  assert trunk.gramian_labels['trunk']['fc']['kernel'] is True
  assert trunk.gramian_labels['tied']['block']['fc']['kernel'] is False
  assert whole.num_shared == whole.num_gramian == whole.num_params == 108
  loss = losses_of(model)
  gramians = {}
  for found in (trunk, whole):
    fun = mtl.value_and_gramian(
      loss,
      labels=found.labels,
      gramian_labels=found.gramian_labels,
      has_aux=True,
    )
    gramians[found.name] = fun(params, X, state, None)[1]
    grads = mtl.value_and_task_grads(loss, has_aux=True)(
      params, X, state, None
    )[1]
    marks = jax.tree.map(lambda label: label == 'shared', found.labels)
    if found.gramian_labels is not None:
      marks = found.gramian_labels
    rows = [
      g.reshape(2, -1)
      for g, use in zip(*map(jax.tree.leaves, (grads, marks)), strict=True)
      if use
    ]
    rows = np.concatenate(rows, axis=1)
    np.testing.assert_allclose(
      gramians[found.name], rows @ rows.T, rtol=1e-4, atol=1e-5
    )
  # What a task alone has adds to its norm, and to no product with another.
  more = gramians['all'] - gramians['trunk']
  assert np.all(np.diag(more) > 0)


def test_what_the_loss_of_another_task_reads_stays_refused():
  model = build(('block',))
  params, state = model.init(KEY, X)
  labels = model.sharings(params).labels | {'tied': 0}
  fun = mtl.value_and_task_grads(losses_of(model), labels=labels, has_aux=True)
  with pytest.raises(ValueError, match='tied'):
    fun(params, X, state, None)


def test_what_does_not_fit_is_named():
  with pytest.raises(ValueError, match=r'conventions={} is empty'):
    build(conventions={})
  with pytest.raises(ValueError, match=r"tied=\('blok',\): heads\[0\]"):
    build(('blok',)).init(KEY, X)
  model = build()
  params, state = model.init(KEY, X)
  with pytest.raises(ValueError, match="Did you mean 'trunk'"):
    model.sharings(params, 'trnk')
  features, _ = model.apply_trunk(params, state, X, train=False)
  for train in (False, True):
    with pytest.raises(ValueError, match=r'model_state=None, but heads\[1\]'):
      model.apply_head(1, params, features, train=train)
  bad = {'x': models.Sharing(gramian=('heads_0/.*',))}
  with pytest.raises(ValueError, match='over shared parameters only'):
    build(conventions=bad).sharings(params)
