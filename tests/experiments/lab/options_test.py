"""Options say themselves whether they may change."""

import dataclasses
import pathlib

import pytest

from experiments.lab import options
from experiments.lab.comparison import ComparisonConfig


def test_options_that_may_change_when_a_study_goes_on():
  config = ComparisonConfig()
  always = options.changing(config, options.ALWAYS)
  assert {'out', 'methods', 'seeds', 'baselines', 'force'} <= set(always)
  between = options.changing(config, options.BETWEEN_RUNS)
  assert set(between) == {'sweep', 'layout', 'data.dir'}
  fixed = {'learning_rate', 'epochs', 'batch_size', 'model', 'data.seed'}
  assert not fixed & set(options.changing(config))


def test_override_reaches_inner_options():
  found = options.override(
    ComparisonConfig(), {'epochs': 7, 'data.dir': pathlib.Path('x')}
  )
  assert found.epochs == 7
  assert found.data == dataclasses.replace(
    ComparisonConfig().data, dir=pathlib.Path('x')
  )
  with pytest.raises(AttributeError):
    options.override(ComparisonConfig(), {'dat.dir': 'x'})
