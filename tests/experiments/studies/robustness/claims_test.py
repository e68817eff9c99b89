"""The verdict of the study of robustness, of planted runs."""

import numpy as np
import pytest

from experiments.report.verdicts import FAILS, HOLDS, UNDECIDED
from experiments.studies.robustness import claims
from experiments.studies.robustness.claims import SINGLE, Kept, Key, Score


def kept(clean, refit, zero_shot=0.5):
  return Kept(clean, np.array(refit), np.full(len(refit), zero_shot))


def test_delta_of_planted_runs():
  own, alone = Key('net', 'cagrad', 'left'), Key('net', SINGLE + 'left', 'left')
  runs = {
    own: {
      0: kept(0.8, [0.6, 0.4], 0.4),
      1: kept(0.8, [0.6, 0.4]),
      2: kept(0.8, [0.1, 0.1]),
    },
    # The seed 2 has nothing to be compared with.
    alone: {0: kept(0.9, [0.9, 0.45]), 1: kept(0.5, [0.25, 0.15])},
  }
  found = claims.deltas(runs)
  assert list(found) == [own]
  # (1 - 0.75 + 0.5 - 0.5) / 2, (0.5 - 0.75 + 0.3 - 0.5) / 2
  assert found[own] == pytest.approx({0: 0.125, 1: -0.225})
  by_pair = claims.change(runs, own, 'refit')
  np.testing.assert_allclose(by_pair, [0, -0.1], atol=1e-12)
  assert by_pair.mean() == pytest.approx((0.125 - 0.225) / 2)
  zero_shot = claims.deltas(runs, 'zero_shot')[own]
  assert zero_shot[0] == pytest.approx(0.5 / 0.9 - 0.4 / 0.8)


def planted(means, seeds=3, spread=1e-3):
  """By network and task, then method: deltas around a mean."""
  return {
    Key(model, method, 'left'): {
      seed: mean + spread * (seed - 1) for seed in range(seeds)
    }
    for (model, method), mean in means.items()
  }


@pytest.mark.parametrize(
  'means, outcome',
  [
    ((0.1, -0.1, 0.1, -0.1), HOLDS),
    ((0.1, -0.1, -0.1, 0.1), HOLDS),
    ((0.1, 0.1, -0.1, -0.1), FAILS),  # the second method is always below
    ((0.1, 0.1, 0.1, 0.1), FAILS),  # one sign
    ((0.1, -0.1, 0.0, -0.1), UNDECIDED),  # the second is above nowhere
    ((0.0, 0.1, 0.1, 0.1), UNDECIDED),  # none below
    ((0.0, 0.0, 0.0, 0.0), UNDECIDED),
  ],
)
def test_verdict_follows_from_the_deltas(means, outcome):
  names = [('mlp', 'a'), ('lenet', 'a'), ('mlp', 'b'), ('lenet', 'b')]
  found = planted(dict(zip(names, means, strict=True)))
  assert claims.claims(found, 3)[0].outcome == outcome
  assert claims.claims(found, 4)[0].outcome == UNDECIDED


def test_nothing_measured_is_undecided():
  verdict = claims.claims({}, 3)[0]
  assert verdict.outcome == UNDECIDED
  assert 'not there' in verdict.sentence


def test_where_lower_is_better_the_sign_is_turned():
  own, alone = (
    Key('net', 'cagrad', 'depth'),
    Key('net', SINGLE + 'depth', 'depth'),
  )
  runs = {own: {0: kept(0.5, [0.6, 1.0])}, alone: {0: kept(0.4, [0.4, 0.6])}}
  scores = {'depth': Score('abs_err', False, 'm')}
  # 1.2 - 1 and 2 - 1.5: the multi-task network loses more.
  assert claims.deltas(runs, scores=scores)[own][0] == pytest.approx(0.35)
  np.testing.assert_allclose(
    claims.change(runs, own, 'refit', scores), [0.2, 0.5]
  )
