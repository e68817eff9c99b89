"""Flights from New York: delays, time in the air, cancellation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lab.owned import TaskRows, task_rows
from experiments.suites import (
  SPLITS,
  Data,
  DataOptions,
  Measure,
  Network,
  Suite,
  Task,
  binary_task,
  experts,
  first_rows,
  names,
)
from mtljax import data, models
from mtljax.metrics import R2, Mean

MINUTES = ('dep_delay', 'arr_delay', 'air_time')
#: Of the categorical columns: carrier, origin, dest, month, weekday, hour. A
#: code of a row that was not trained on is below 0.
SIZES = (16, 3, 105, 12, 7, 20)
UNITS = 8
#: Minutes at which delays are cut in `by_carrier`: one flight of a day late
#: would decide the fit of a carrier with few rows.
LONGEST = 120.0


def load(options: DataOptions, tasks: tuple[str, ...], say) -> Data:
  """Reads the rows, preparing them first if they are not there yet.

  With ``--data.source standardised`` minutes have mean 0 and variance 1 over
  the rows trained on; errors are then in deviations.
  """
  splits = {
    split: data.load_flights(
      split=split, tasks=tasks, data_dir=options.dir, progress=say
    )
    for split in SPLITS
  }
  splits = first_rows(splits, options)
  if options.source == 'standardised':
    for name in set(tasks) & set(MINUTES):
      train = splits['train'][name]
      mean, std = np.nanmean(train), np.nanstd(train)
      for arrays in splits.values():
        arrays[name] = ((arrays[name] - mean) / std).astype(np.float32)
  keys = ('numeric', 'categorical')
  return Data(splits, lambda batch: {key: batch[key] for key in keys})


def is_known(labels: jax.Array) -> jax.Array:
  """Which minutes there are."""
  return ~jnp.isnan(labels)


def squared_errors(outputs: jax.Array, labels: jax.Array) -> jax.Array:
  """Of each row, ``(B,)``; 0 where the label is missing."""
  known = is_known(labels)
  return jnp.where(known, outputs[:, 0] - jnp.where(known, labels, 0), 0) ** 2


def errors(outputs, labels, mask):
  """The mean absolute error, and the variance explained."""
  found = jnp.abs(outputs[:, 0] - labels)
  return {
    'mae': Mean.from_values(found, mask=mask),
    'r2': R2.from_values(outputs[:, 0], labels, mask=mask),
  }


def least_squares(found: Data) -> dict[str, dict[str, float]]:
  """Errors on test of the mean and of least squares, of minutes.

  Least squares on the distance and one-hot carrier, origin, destination, month
  and hour, without a column of ones; both are fitted to the train and
  validation rows at hand whose minutes are known. Their r2 is against the mean
  of the rows fitted to, that of runs against the mean of the test rows: 3e-4
  apart.
  """
  tasks = [name for name in MINUTES if name in found.splits['train']]
  if not tasks:
    return {}

  def known(split):
    rows = found.splits[split]
    kept = ~np.isnan([rows[name] for name in tasks]).any(0)
    return {name: x[kept] for name, x in rows.items()}

  def design(rows):
    codes = rows['categorical'][:, [0, 1, 2, 3, 5]]
    one_hot = [
      c[:, None] == np.arange(n)
      for c, n in zip(codes.T, np.array(SIZES)[[0, 1, 2, 3, 5]], strict=True)
    ]
    # The ones of each category span what standardising has subtracted.
    return np.concatenate(
      [*one_hot, rows['numeric'][:, :1]], 1, dtype=np.float64
    )

  fit, test = [known('train'), known('validation')], known('test')
  x = np.concatenate([design(rows) for rows in fit])
  y = np.concatenate(
    [np.stack([rows[name] for name in tasks], 1) for rows in fit]
  ).astype(np.float64)
  weights = np.linalg.lstsq(x.T @ x, x.T @ y, rcond=1e-12)[0]
  guesses = {
    'mean': y.mean(0)[None],
    'least squares': design(test) @ weights,
  }
  errors_of = {}
  for predictor, guess in guesses.items():
    errors_of[predictor] = {}
    for i, name in enumerate(tasks):
      target = test[name].astype(np.float64)
      error = target - guess[:, i]
      spread = np.mean((target - y[:, i].mean()) ** 2)
      errors_of[predictor] |= {
        f'mae/{name}': float(np.abs(error).mean()),
        f'r2/{name}': float(1 - np.mean(error**2) / spread),
      }
  return errors_of


def by_carrier(options: DataOptions, say) -> TaskRows:
  """Reads all flights with arrivals, each of the carrier that is its task.

  Features are distance, planned minute, and ones for origin, month and weekday,
  24 in all; labels are delays on arrival in minutes, cut at `LONGEST`. The
  three splits are together.

  Args:
    options: of which only ``dir`` is read.
    say: prints a line before slow work.

  Raises:
    FileNotFoundError: the raw file has not been fetched.
    ValueError: it is not in the raw format.
  """
  builder = data.prepare_flights(data_dir=options.dir, progress=say)
  parts = [
    data.load_flights(split=split, data_dir=options.dir) for split in SPLITS
  ]
  codes, numeric, delay = (
    np.concatenate([part[name] for part in parts])
    for name in ('categorical', 'numeric', 'arr_delay')
  )
  # A carrier that is in no train row has no name in the vocabulary.
  known = codes[:, 0] >= 0
  codes, numeric = codes[known], numeric[known]
  delay = np.minimum(delay[known], np.float32(LONGEST))
  ones = [
    codes[:, column, None] == np.arange(SIZES[column]) for column in (1, 3, 4)
  ]
  owner = codes[:, 0]
  names_ = builder.info.metadata['vocabularies']['carrier']
  return task_rows(
    tuple(names_),
    owner,
    np.concatenate([numeric, *ones], 1, dtype=np.float32),
    delay,
  )


def multi_mlp(tasks, widths):
  """Dense layers on the embedded columns."""
  return models.multi_mlp(
    names(tasks),
    num_classes=[task.num_outputs for task in tasks],
    hidden_sizes=widths.hidden_sizes,
    head_sizes=widths.head_sizes,
    encoder=models.EmbedColumns(SIZES, UNITS),
  )


SUITE = Suite(
  name='flights',
  title='flights from New York',
  tasks=(
    *(
      Task(
        name=name,
        num_outputs=1,
        example_losses=squared_errors,
        metrics=errors,
        present=is_known,
        measures=(
          Measure(name='mae', unit='min', higher_is_better=False),
          Measure(name='r2', in_delta_m=False),
        ),
      )
      for name in MINUTES
    ),
    binary_task('cancelled'),
  ),
  load=load,
  sources=('minutes', 'standardised'),
  networks={
    'multi_mlp': Network(make=multi_mlp),
    **experts(models.EmbedColumns(SIZES, UNITS), expert_size=32, tower=16),
  },
  presets={
    'quick': {
      'tasks': MINUTES,
      'epochs': 2,
      'learning_rate': 3e-3,
      'batch_size': 256,
      'head_sizes': (16,),
      'data.num_train': 100_000,
    },
    'paper': {
      'tasks': (*MINUTES, 'cancelled'),
      'epochs': 10,
      'seeds': 5,
      'learning_rate': 3e-3,
      'batch_size': 256,
      'head_sizes': (16,),
    },
  },
  floors=least_squares,
)
