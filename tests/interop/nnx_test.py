"""Networks of `flax.nnx`: labels, gradients, optimizers, the train step."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import errors, nnx

import mtljax as mtl
from mtljax import _labels
from mtljax.training import make_train_step

SPEC = {
  'shared': ['trunk/.*', 'norm/.*'],
  'tasks': ['heads/0/.*', 'heads/1/.*'],
}
X = jax.random.normal(jax.random.key(0), (16, 4))
BATCH = X, jnp.stack([X[:, 0], X[:, 1] ** 2])


class Net(nnx.Module):
  def __init__(self, rngs):
    self.trunk = nnx.Linear(4, 8, rngs=rngs)
    self.norm = nnx.BatchNorm(8, rngs=rngs)
    self.drop = nnx.Dropout(0.5, rngs=rngs)
    self.heads = nnx.List([nnx.Linear(8, 1, rngs=rngs) for _ in range(2)])

  def __call__(self, x):
    z = self.drop(jnp.tanh(self.norm(self.trunk(x))))
    return jnp.stack([head(z)[:, 0] for head in self.heads])


def parts():
  return nnx.split(Net(nnx.Rngs(0)), nnx.Param, ...)


def task_losses(params, batch, rest, key=None, copy=True):
  del key  # the state's own streams are drawn from
  x, y = batch
  model = nnx.merge(parts()[0], params, rest, copy=copy)
  losses = jnp.mean((model(x) - y) ** 2, axis=1)
  return losses, nnx.state(model, nnx.Not(nnx.Param))


def with_metrics(*args):
  losses, rest = task_losses(*args)
  return losses, (rest, {})


def labels_of(params):
  return mtl.label_params(params, **SPEC)


# Labels of any of these trees fit any other of them.
VIEWS = {
  'state': lambda params: params,
  'pure': nnx.as_pure,
  'dict': nnx.to_pure_dict,
}


@pytest.mark.parametrize('made', VIEWS)
@pytest.mark.parametrize('used', VIEWS)
def test_labels_fit_by_their_paths(made, used):
  _, params, _ = parts()
  labels = labels_of(VIEWS[made](params))
  tree = VIEWS[used](params)
  flat = dict(
    zip(
      _labels.unboxed_names(tree),
      _labels.flatten_labels(labels, tree, 2),
      strict=True,
    )
  )
  assert flat == {
    **{f'heads/{t}/{leaf}': t for t in (0, 1) for leaf in ('bias', 'kernel')},
    **{f'trunk/{leaf}': 'shared' for leaf in ('bias', 'kernel')},
    **{f'norm/{leaf}': 'shared' for leaf in ('bias', 'scale')},
  }
  marks = mtl.match_params(VIEWS[made](params), 'trunk/kernel')
  used_leaves = _labels.flatten_gramian_labels(
    marks, _labels.flatten_labels(labels, tree, 2), tree
  )
  assert sum(used_leaves) == 1


def test_names_with_and_without_the_variable():
  _, params, _ = parts()
  for end in ('', '/value'):
    labels = mtl.label_params(
      params,
      shared=['trunk/.*', 'norm/.*'],
      tasks=[f'heads/{t}/(kernel|bias){end}' for t in (0, 1)],
    )
    assert _labels.flatten_labels(labels, params, 2).count('shared') == 4


def test_labels_of_another_network_are_refused_by_name():
  _, params, _ = parts()
  labels = labels_of(params)
  pure = nnx.to_pure_dict(params)
  more = {**pure, 'extra': jnp.ones(2)}
  with pytest.raises(ValueError, match="there is none for 'extra'"):
    _labels.flatten_labels(labels, more, 2)
  pure.pop('norm')
  with pytest.raises(ValueError, match="there is no parameter 'norm/bias'"):
    _labels.flatten_labels(labels, pure, 2)


@nnx.jit(static_argnums=3)
def train(net, optimizer, batch, labels):
  _, params, rest = nnx.split(net, nnx.Param, ...)
  (losses, rest), grads = mtl.value_and_task_grads(
    task_losses, labels=labels.tree, has_aux=True
  )(params, batch, rest)
  nnx.update(net, rest)
  optimizer.update(net, grads, losses=losses)
  return losses


class Static:
  def __init__(self, tree):
    self.tree = tree


METHODS = {
  'uncertainty': lambda labels: mtl.uncertainty(2, labels=labels),
  'mgda': lambda labels: mtl.mgda(2, labels=labels),
  'every_k': lambda labels: mtl.every_k(mtl.cagrad(2, labels=labels), 2),
  'graddrop': lambda labels: mtl.graddrop(2, labels=labels, leak=1.0),
}


@pytest.mark.parametrize('name', METHODS)
def test_optimizer_and_train_step_agree(name):
  """Both move the parameters, the statistics and the dropout streams alike."""
  net = Net(nnx.Rngs(0))
  _, params, rest = parts()
  labels = labels_of(params)
  method = METHODS[name](labels)
  optimizer = nnx.Optimizer(
    net, optax.chain(method, optax.sgd(0.1)), wrt=nnx.Param
  )
  step = make_train_step(method, optax.sgd(0.1), with_metrics, has_state=True)
  state = step.init(params, key=jax.random.key(1), model_state=rest)
  static, seen = Static(labels), []
  for _ in range(3):
    losses = train(net, optimizer, BATCH, static)
    state, metrics = step.step(state, BATCH)
    np.testing.assert_allclose(metrics['losses'], losses, rtol=1e-5)
    seen.append(losses)
  assert len({float(x[0]) for x in seen}) == 3
  _, moved, after = nnx.split(net, nnx.Param, ...)
  chex.assert_trees_all_close(
    nnx.to_pure_dict(state.params),
    nnx.to_pure_dict(moved),
    rtol=1e-4,
    atol=1e-6,
  )
  statistics = lambda s: nnx.to_pure_dict(s)['norm']
  chex.assert_trees_all_close(
    statistics(state.model_state), statistics(after), rtol=1e-4, atol=1e-6
  )
  assert np.any(statistics(after)['mean'] != 0)
  assert int(nnx.to_pure_dict(after)['drop']['rngs']['count']) == 3
  if name != 'graddrop':
    read = mtl.get_weights(state)
    for place in (optimizer, optimizer.opt_state):
      np.testing.assert_allclose(
        mtl.get_weights(place), read, rtol=1e-4, atol=1e-6
      )
      assert isinstance(mtl.get_weights(place), jax.Array)
  if name == 'mgda':
    stats = mtl.get_stats(optimizer)
    assert stats['gramian'].shape == (2, 2)
    chex.assert_trees_all_close(
      stats, mtl.get_stats(state), rtol=1e-3, atol=1e-6
    )


def test_without_weights_nothing_is_read():
  net = Net(nnx.Rngs(0))
  optimizer = nnx.Optimizer(net, optax.adam(0.1), wrt=nnx.Param)
  with pytest.raises(ValueError, match='no task weights'):
    mtl.get_weights(optimizer)


def test_why_the_merge_copies():
  """Else the model writes its statistics into the variables outside."""
  _, params, rest = parts()

  def grad_fn(*args, copy=True):
    fun = functools.partial(task_losses, copy=copy)
    return mtl.value_and_task_grads(
      fun, labels=labels_of(params), has_aux=True
    )(*args)

  with pytest.raises(errors.TraceContextError, match='different trace level'):
    grad_fn(params, BATCH, rest, copy=False)
  before = jax.tree.leaves(nnx.state(nnx.merge(*parts()), nnx.BatchStat))
  (_, new), _ = grad_fn(params, BATCH, rest)
  chex.assert_trees_all_equal(
    jax.tree.leaves(nnx.filter_state(rest, nnx.BatchStat)), before
  )
  assert jax.tree.structure(new) == jax.tree.structure(rest)


@pytest.mark.parametrize('route', ['jacobian', 'gramian', 'layerwise'])
def test_every_route_takes_them(route):
  _, params, rest = parts()
  method = mtl.mgda(2, labels=labels_of(nnx.to_pure_dict(params)))
  step = make_train_step(
    method, optax.sgd(0.1), with_metrics, has_state=True, route=route
  )
  state = step.init(params, key=jax.random.key(1), model_state=rest)
  state, metrics = step.step(state, BATCH)
  assert isinstance(state.params, nnx.State)
  grad_fn = mtl.value_and_task_grads(
    task_losses, labels=method.labels, has_aux=True
  )
  (losses, _), grads = grad_fn(params, BATCH, rest)
  out, _ = method.update(grads, method.init(params), params, losses=losses)
  expected = jax.tree.map(lambda p, d: p - 0.1 * d, params, out)
  chex.assert_trees_all_close(
    nnx.to_pure_dict(state.params),
    nnx.to_pure_dict(expected),
    rtol=1e-4,
    atol=1e-6,
  )
