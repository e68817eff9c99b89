"""The recorder of conflict, on a small problem."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console

import mtljax as mtl
from experiments.lab import comparison, diagnose
from experiments.suites.digits import SUITE
from mtljax.training import TrainState


def head(sign):
  def loss(params, z, batch, model_state, key):
    del params, batch, model_state, key
    return sign * jnp.mean(z), {}

  return loss


def trunk(params, batch, model_state, key):
  del key
  return batch['x'] @ params['w'], model_state


def make_state():
  return TrainState(
    step=jnp.int32(0),
    params={'w': jnp.ones(2)},
    model_state={},
    opt_state=(),
    method_state=(),
    key=jax.random.key(0),
  )


def test_pairs_are_named_and_in_order():
  state = make_state()
  x = np.float32([[1, 0], [1, 1], [-1, 0], [5, 5]])
  probe = diagnose.make_probe(
    mtl.Staged(trunk, [head(1.0), head(-2.0)]), None, num_samples=3
  )
  got = probe(state, {'x': x})
  assert set(got) == {
    f'{kind}/{measure}'
    for kind in ('tasks', 'samples', 'mean_tasks', 'mean_samples')
    for measure in ('cosine', 'magnitude', 'product', 'sign_ratio')
  }
  np.testing.assert_allclose(got['tasks/cosine'], [[-1]] * 3, rtol=1e-6)
  # Pairs (0, 1), (0, 2), (1, 2).
  np.testing.assert_allclose(got['samples/product'][1], [4, -4, -4], rtol=1e-6)
  np.testing.assert_allclose(got['samples/sign_ratio'][0], [0, 0.5, 0.5])
  np.testing.assert_allclose(got['mean_samples/product'], [0.25, -0.25, -0.25])
  np.testing.assert_allclose(got['mean_tasks/product'], [-2 * 4.5], rtol=1e-6)


def test_only_the_parameters_of_a_convention_are_compared():
  """On the second coordinate alone the tasks agree."""

  def parts(params, batch, model_state, key):
    del key
    return (batch['x'] * params['a'], batch['x'] * params['b']), model_state

  def head(sign):
    def loss(params, z, batch, model_state, key):
      del params, batch, model_state, key
      return jnp.mean(sign * 3 * z[0] + z[1]), {}

    return loss

  state = dataclasses.replace(
    make_state(), params={'a': jnp.ones(()), 'b': jnp.ones(())}
  )
  loss = mtl.Staged(parts, [head(1.0), head(-1.0)])
  batch = {'x': np.ones(4, np.float32)}
  found = [
    diagnose.make_probe(loss, None, marks, num_samples=2)(state, batch)
    for marks in (None, {'a': False, 'b': True})
  ]
  np.testing.assert_allclose(found[0]['mean_tasks/cosine'], [-0.8], rtol=1e-6)
  np.testing.assert_allclose(found[1]['mean_tasks/cosine'], [1.0], rtol=1e-6)
  np.testing.assert_allclose(found[0]['tasks/sign_ratio'], [[0.5]] * 2)
  np.testing.assert_allclose(found[1]['tasks/sign_ratio'], [[0.0]] * 2)
  np.testing.assert_allclose(found[1]['samples/product'], [[1.0]] * 2)


def test_a_comparison_probes_what_its_option_shares(monkeypatch):
  made = {}

  def make_probe(loss, labels, gramian_labels=None, **options):
    del loss, labels, options
    made['gramian'] = gramian_labels

  monkeypatch.setattr(diagnose, 'make_probe', make_probe)
  sharings = types.SimpleNamespace(gramian_labels={'w': True})
  problem = types.SimpleNamespace(loss=None, labels=None, sharings=sharings)
  config = diagnose.DiagnoseOptions(diagnose=('conflict',))
  assert set(diagnose.make_probes(config, {('a',): problem})) == {('a',)}
  assert made['gramian'] == {'w': True}


def test_of_many_tasks_eight_are_drawn_at_every_step():
  state = make_state()
  scales = np.arange(1.0, 21.0)
  probe = diagnose.make_probe(
    mtl.Staged(trunk, [head(x) for x in scales]), None, num_samples=2
  )
  batch = {'x': np.float32([[1, 0], [0, 1], [1, 1]])}
  rows, columns = np.triu_indices(diagnose.MOST_TASKS, 1)
  drawn = []
  for step in range(3):
    got = probe(dataclasses.replace(state, step=jnp.int32(step)), batch)
    chosen = np.asarray(got['task_indices'])
    assert len(set(chosen)) == diagnose.MOST_TASKS
    assert got['samples/cosine'].shape == (diagnose.MOST_TASKS, 1)
    # The gradients of task t on the first sample are (scale t, 0).
    np.testing.assert_allclose(
      got['tasks/product'][0],
      scales[chosen[rows]] * scales[chosen[columns]],
      rtol=1e-6,
    )
    drawn.append(tuple(chosen))
  assert len(set(drawn)) == 3
  again = probe(dataclasses.replace(state, step=jnp.int32(1)), batch)
  assert tuple(np.asarray(again['task_indices'])) == drawn[1]


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'diagnose': ('conflict',), 'layout': 'data'}, '--diagnose and --layout'),
    ({'diagnose': ('conflict',), 'model': 'resnet'}, 'batch statistics'),
    ({'diagnose_every': 0}, '--diagnose-every'),
    (
      {'diagnose': ('conflict',), 'diagnose_samples': 300},
      '--diagnose-samples',
    ),
  ],
)
def test_what_cannot_be_measured_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    config = comparison.complete(comparison.ComparisonConfig(**options), SUITE)
    comparison.prepare(config, SUITE, 'x', rich.console.Console())
