"""What is searched when methods are tuned: their own numbers, and rates."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.lab import methods

SEED = 0
DIGITS = 3


class Range(NamedTuple):
  """Numbers between two, evenly or evenly in their logarithm."""

  low: float
  high: float
  log: bool = True

  def draw(self, random: np.random.Generator) -> float:
    """One of them, in few digits."""
    low, high = self.low, self.high
    if self.log:
      low, high = math.log(low), math.log(high)
    found = random.uniform(low, high)
    return float(f'{math.exp(found) if self.log else found:.{DIGITS}g}')


class Choice(NamedTuple):
  """Some values."""

  values: tuple[Any, ...]

  def draw(self, random: np.random.Generator) -> Any:
    """One of them."""
    return self.values[random.integers(len(self.values))]


#: Times ``--learning-rate``.
RATE = Range(0.1, 10.0)
#: Radius of the sharpness-aware forms.
RHO = Range(0.005, 0.5)
_RULE_RATE = Range(0.0025, 0.25)

#: A decade on each side of the default, or where the numbers are defined.
SPACES: dict[str, dict[str, Range | Choice]] = {
  'aligned_mtl': {'scale_mode': Choice(('min', 'median', 'mean'))},
  'auto_lambda': {
    'learning_rate': Range(1e-5, 1e-3),
    'inner_learning_rate': Range(0.01, 1.0),
  },
  'balancer': {'decay': Choice((0.9, 0.99, 0.999))},
  'bmtl': {'temperature': Range(0.1, 10.0)},
  'cagrad': {'c': Range(0.05, 0.95, log=False)},
  'coba': {'temperature': Range(0.02, 2.0)},
  'conic_grad': {'c': Range(0.05, 0.95, log=False)},
  'cosmos': {'cosine_weight': Range(0.2, 20.0)},
  'db_mtl': {'decay': Choice((0.1, 0.5, 0.9, 0.99))},
  'dwa': {'temperature': Range(0.2, 20.0)},
  'emtl': {'strength': Range(0.1, 10.0)},
  'excess_mtl': {'learning_rate': Range(0.001, 0.1)},
  'fairgrad': {'alpha': Range(0.5, 10.0)},
  'famo': {
    'learning_rate': _RULE_RATE,
    'weight_decay': Range(1e-4, 1e-2),
  },
  'gcond': {'stability_weight': Range(0.1, 1.0, log=False)},
  'go4align': {'learning_rate': Range(1e-5, 1e-2)},
  'gradnorm': {
    'alpha': Range(0.25, 3.0, log=False),
    'learning_rate': _RULE_RATE,
  },
  'gradvac': {'decay': Choice((0.9, 0.99, 0.999))},
  'graddrop': {'leak': Range(0.0, 0.9, log=False)},
  'imtl': {'learning_rate': _RULE_RATE},
  'imtl_l': {'learning_rate': _RULE_RATE},
  'ldc_mtl': {'strength': Range(0.01, 1.0), 'learning_rate': _RULE_RATE},
  'lr_annealing': {'decay': Choice((0.5, 0.9, 0.99))},
  'm_config': {'b1': Choice((0.0, 0.5, 0.9, 0.99))},
  'meta_balance': {'relax_factor': Range(0.1, 0.9, log=False)},
  'mgda': {'normalize': Choice(('none', 'l2', 'loss', 'loss+'))},
  'moco': {'learning_rate': Range(0.01, 1.0), 'decay': Range(0.001, 0.5)},
  'modo': {'learning_rate': Range(0.01, 1.0)},
  'moml': {
    'learning_rate': Range(1e-4, 1e-2),
    'inner_learning_rate': Range(0.01, 1.0),
  },
  'nash_mtl': {'max_norm': Range(0.1, 10.0)},
  'pbi': {'penalty': Range(0.5, 50.0)},
  'pcd': {'tau': Range(0.002, 0.2)},
  'pcgrad': {'reduction': Choice(('sum', 'mean'))},
  'pivrg': {'bound': Range(1.1, 5.0)},
  'relobralo': {'temperature': Range(0.01, 1.0)},
  'rlw': {'distribution': Choice(('normal', 'dirichlet'))},
  'sdmgrad': {'lambda_': Range(0.03, 3.0)},
  'slaw': {'decay': Choice((0.5, 0.9, 0.99, 0.999))},
  'son_goku': {'threshold': Range(0.01, 0.9)},
  'stch': {'temperature': Range(0.1, 10.0)},
  'uncertainty': {'learning_rate': _RULE_RATE},
  'uw_so': {'temperature': Range(0.1, 10.0)},
}


class Trial(NamedTuple):
  """Hyper-parameters of a method.

  Attributes:
    rate: times ``--learning-rate``.
    options: of the method, beside its defaults; ``rho`` is that of a
      sharpness-aware form.
  """

  rate: float = 1.0
  options: Mapping[str, Any] = {}

  @property
  def words(self) -> dict[str, str]:
    """The options that decide the program."""
    return {key: x for key, x in self.options.items() if isinstance(x, str)}

  def numbers(self, learning_rate: float) -> dict[str, Any]:
    """The others, and the rate, which is times ``learning_rate``."""
    found = {k: x for k, x in self.options.items() if k not in self.words}
    return {'learning_rate': self.rate * learning_rate, **found}

  @property
  def program(self) -> tuple[Any, ...]:
    """Trials that agree in it differ in numbers alone."""
    return *sorted(self.words.items()), *sorted(self.numbers(1.0))


DEFAULTS = Trial()


def draw_trials(name: str, num_tasks: int, count: int) -> list[Trial]:
  """What is tried for a method: its defaults, then what is drawn at random.

  The k-th trials of all methods have one learning rate, so that none has more
  luck with it than another.

  Args:
    name: of the method, or of a task alone.
    num_tasks: T; of ``fixed`` a point of the simplex is drawn, times T.
    count: how many.
  """
  prefix, plain = methods.split_name(name)
  space = dict(SPACES.get(plain, {}))
  if prefix:
    space['rho'] = RHO
  found = [DEFAULTS]
  for k in range(1, count):
    rate = RATE.draw(np.random.default_rng([SEED, k]))
    random = np.random.default_rng([SEED, k, zlib.crc32(name.encode())])
    options = {key: x.draw(random) for key, x in space.items()}
    if plain == 'fixed':
      shares = num_tasks * random.dirichlet(np.ones(num_tasks))
      options['weights'] = tuple(float(f'{x:.{DIGITS}g}') for x in shares)
    found.append(Trial(rate, options))
  return found
