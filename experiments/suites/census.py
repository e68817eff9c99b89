"""Census-Income (KDD), the data of MMoE and PLE: three yes-or-no tasks."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from experiments.suites import (
  SPLITS,
  Data,
  DataOptions,
  Suite,
  binary_task,
  experts,
  first_rows,
  mlp,
)
from mtljax import data


def load(options: DataOptions, tasks: tuple[str, ...], say) -> Data:
  """Reads the rows, preparing them first if they are not there yet.

  The columns of the tasks at hand are no inputs. Numbers are standardised,
  categories one-hot; a value not trained on is all 0.
  """
  splits = {
    split: data.load_census(
      split=split, tasks=tasks, data_dir=options.dir, progress=say
    )
    for split in SPLITS
  }
  splits = first_rows(splits, options)
  categorical = splits['train']['categorical']
  column, value = np.array(
    [
      (column, value)
      for column, values in enumerate(categorical.T)
      for value in np.unique(values)
    ]
  ).T

  def inputs(batch):
    one_hot = batch['categorical'][:, column] == jnp.asarray(value)[None]
    return jnp.concatenate([batch['numeric'], one_hot], axis=-1)

  return Data(splits, inputs)


def shuffled(found: Data, options: DataOptions, say):
  """The test rows, every column shuffled apart."""
  del options, say
  rng = np.random.default_rng(0)
  return {
    name: rng.permuted(found.splits['test'][name], axis=0)
    for name in ('numeric', 'categorical')
  }


SUITE = Suite(
  name='census',
  title='Census-Income (KDD)',
  tasks=tuple(map(binary_task, data.CENSUS_TASKS)),
  load=load,
  networks={'multi_mlp': mlp(), **experts()},
  others={'shuffled': shuffled},
  presets={
    'quick': {
      'tasks': ('income', 'never_married'),
      'epochs': 2,
      'batch_size': 256,
      'head_sizes': (16,),
      'data.num_train': 50_000,
    },
    'paper': {
      'tasks': ('income', 'never_married'),
      'epochs': 10,
      'seeds': 5,
      'batch_size': 256,
      'head_sizes': (16,),
    },
  },
)
