"""Which parameters are shared: an option of a comparison, printed and kept."""

import dataclasses
import functools
import io
import json

import flax.linen as nn
import numpy as np
import pytest
import rich.console

import mtljax as mtl
from experiments.lab import comparison, methods, study
from experiments.lab.problem import make_problem
from experiments.lab.suite import Data, Network, Suite, names
from experiments.lab.task import Measure, Task
from mtljax import models
from mtljax.metrics import Mean

SHAPE = (6, 8, 8, 3)


def make_task(name):
  squares = lambda y, labels: ((y - labels) ** 2).mean((1, 2, 3))
  return Task(
    name=name,
    num_outputs=1,
    example_losses=squares,
    metrics=lambda y, labels, mask: {
      'error': Mean.from_values(squares(y, labels), mask=mask)
    },
    measures=(Measure(name='error', higher_is_better=False),),
  )


def load(options, tasks, say):
  del options, say
  rng = np.random.default_rng(0)
  split = {'image': rng.normal(size=SHAPE).astype(np.float32)}
  split |= {
    task: rng.normal(size=(*SHAPE[:3], 1)).astype(np.float32) for task in tasks
  }
  splits = {name: split for name in ('train', 'validation', 'test')}
  return Data(splits, lambda batch: batch['image'])


def make(tasks, widths, **options):
  del widths
  return models.mtan_segnet(
    names(tasks),
    [task.num_outputs for task in tasks],
    widths=(2, 4),
    num_convs=(2, 2),
    conv_impl='lax',
    **options,
  )


class Head(nn.Module):
  """Dense layers; the second is tied, and has batch statistics."""

  @nn.compact
  def __call__(self, x, *, train=False):
    x = nn.relu(nn.Dense(4, name='own')(x))
    x = nn.BatchNorm(use_running_average=not train, name='block')(x)
    return nn.Dense(64, name='out')(x).reshape(-1, 8, 8, 1)


def small(tasks, widths):
  del widths
  return models.MultiTaskModel(
    models.MLPTrunk((4,)),
    (Head(),) * len(tasks),
    names(tasks),
    tied=('block',),
    conventions={
      'trunk': models.Sharing('the trunk', gramian=('trunk/.*',)),
      'more': models.Sharing('and the blocks'),
    },
  )


SUITE = Suite(
  name='toy',
  title='noise',
  tasks=(make_task('a'), make_task('b')),
  load=load,
  networks={
    'mtan_segnet': Network(make=make, batch_statistics=True),
    'small': Network(make=small, batch_statistics=True),
    'group': Network(make=functools.partial(make, norm='group')),
  },
)


def prepare(out, **options):
  config = comparison.ComparisonConfig(
    out=out,
    methods=('mgda',),
    baselines=False,
    batch_size=3,
    seeds=1,
    progress=False,
    tensorboard=False,
    **options,
  )
  config = comparison.complete(config, SUITE)
  text = io.StringIO()
  console = rich.console.Console(file=text, width=1000)
  found = comparison.prepare(config, SUITE, 'compare', console)
  return config, found, text.getvalue(), console


@pytest.mark.parametrize(
  ('shared', 'gramian', 'num_shared'),
  [('trunk', 546, 906), ('all_but_predictions', None, 1194)],
)
def test_methods_get_the_convention(shared, gramian, num_shared, tmp_path):
  config, found, text, _ = prepare(tmp_path, shared=shared)
  assert f'--shared {shared} (' in text
  assert f'{num_shared:,} of 1,276 parameters are shared' in text
  assert ('Gramians are taken over' in text) == (gramian is not None)
  if gramian is not None:
    assert f'Gramians are taken over {gramian:,}' in text
  problem = make_problem(
    SUITE, load(None, ('a', 'b'), None), SUITE.networks['group'], shared=shared
  )
  assert problem.sharings.name == shared
  make_one = functools.partial(
    methods.make_method,
    num_tasks=2,
    labels=problem.labels,
    rho=0.1,
    gramian_labels=problem.sharings.gramian_labels,
  )
  for name in ('mgda', 'flat_mgda', 'sam_cagrad'):
    assert make_one(name).gramian_labels == problem.sharings.gramian_labels
  assert make_one('graddrop').gramian_labels is None
  assert found.tasks == ('a', 'b')
  assert dataclasses.asdict(config)['shared'] == shared


def test_the_first_convention_is_the_default(tmp_path):
  config, _, text, _ = prepare(tmp_path)
  assert config.shared == 'trunk'
  assert '--shared trunk (the network that attention looks at' in text


def test_a_convention_that_is_not_there_is_named(tmp_path):
  with pytest.raises(ValueError, match="--shared.*Did you mean 'trunk'"):
    prepare(tmp_path, shared='trunc')


def test_a_network_of_two_conventions_is_trained(tmp_path):
  """To the end, with state in its heads, by a command's own way."""
  config, found, _, console = prepare(
    tmp_path / 'out', model='small', shared='more'
  )
  assert study.run(config, found, console) == 0
  kept = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert kept['shared'] == 'more'
  assert kept['num_gramian'] == kept['num_shared'] < kept['num_params']
  assert (tmp_path / 'out' / 'results.csv').read_text().count('ok') == 1


def test_every_method_takes_or_needs_no_gramian_labels():
  """Those that take none are the ones that read gradients themselves."""
  labels = {'trunk': 'shared', 'more': 'shared', 'heads_0': 0}
  marks = {'trunk': True, 'more': False, 'heads_0': False}
  without = set()
  for name in methods.plain_names():
    method = methods.make_method(name, 2, labels, rho=0.1, gramian_labels=marks)
    assert isinstance(method, mtl.Aggregator)
    if method.gramian_labels != marks:
      without.add(name)
  assert {'graddrop', 'trimmed_mean'} <= without
  assert not without & {'mgda', 'pcgrad', 'cagrad', 'nash_mtl', 'fairgrad'}
