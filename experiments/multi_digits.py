"""Compares multi-task methods on two overlapping handwritten digits.

  python -m experiments.multi_digits

Single-task baselines first, then each method, over several seeds; the state
with the best validation accuracy is measured on test. Everything goes to
``--out``: ``config.json``, ``runs/<method>/seed_<k>/`` with metrics and
checkpoints, ``results.csv``, ``summary.json`` and ``report.html``. The same
command again goes on where it was stopped, and skips what is finished.
"""

from __future__ import annotations

import dataclasses
import pathlib

import rich.console
import tyro

from experiments import _comparison, _conflict, _digits, _sources
from experiments._digits import MODELS, TASKS, DataConfig
from mtljax import _validate, data


@dataclasses.dataclass(frozen=True)
class Config(_comparison.Options):
  """Compares multi-task methods on two overlapping handwritten digits."""

  out: pathlib.Path = pathlib.Path('results/multi_digits')
  """Folder for everything this run writes."""
  weights: tuple[float, ...] = (1.0, 0.5)
  """Weights of the method fixed, one a task."""
  scores: tuple[float, ...] = (0.1, 0.1)
  """Training losses that the tasks reach alone, for the method pivrg."""
  epochs: int = 4
  """Passes over the training pairs."""
  model: str = 'multi_lenet'
  """multi_lenet, multi_mlp, resnet (small) or resnet18."""
  learning_rate: float = 2e-3
  """Of the optimizer; it falls to zero along a cosine."""
  mode: str = 'auto'
  """How a step's T backward passes run: unroll, vmap or map. auto takes map
  for multi_lenet, unless the route is gramian, and unroll for the others."""
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  """The data set."""


def check(config: Config) -> None:
  """Raises ValueError for options that no run could be made of."""
  _comparison.check(config, TASKS)
  _validate.one_of('--model', config.model, MODELS)
  _validate.one_of('--data.source', config.data.source, data.SOURCES)
  _conflict.check_model(config, config.model)


def prepare(config: Config, console: rich.console.Console) -> _comparison.Study:
  """Everything that can be refused, before anything is written or trained."""
  check(config)
  return _comparison.prepare(
    config,
    console,
    name='multi_digits',
    load=lambda say: _sources.load_digits(config.data, config.batch_size, say),
    make_problem=lambda source, tasks: _digits.make_problem(
      MODELS[config.model](tasks=tasks, num_classes=source.num_outputs),
      source.loaded,
    ),
    mode=_digits.mode_of(config.mode, config.model, config.route),
  )


def main() -> None:
  """The command line."""
  _comparison.main(
    lambda: tyro.cli(Config, prog='python -m experiments.multi_digits'), prepare
  )


if __name__ == '__main__':
  main()
