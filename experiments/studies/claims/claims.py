"""The claims on SLAW, FairGrad, Nash-MTL, CAGrad, BMTL and EMTL.

What is algebra among them is in tests/weightings, see the page.
"""

from __future__ import annotations

from experiments.report.statistics import LEVEL, corrected
from experiments.report.verdicts import Verdict, exact
from experiments.studies.claims import measures
from experiments.studies.claims.arms import (
  ALPHAS,
  LOG,
  MEASURED,
  PLAIN,
  RADII,
  TEMPERATURES,
)
from experiments.studies.claims.measures import Table
from experiments.studies.claims.rules import (
  APART,
  CHEAP,
  CORRELATED,
  COUNTS,
  DEAR,
  FIRST_STEP,
  MARGIN,
  NOISY,
  RARE,
  SLOPES,
  SMALL,
  UNLIKE,
  Costs,
  Points,
  Rules,
)


def claims(
  table: Table, points: Points, costs: Costs, min_seeds: int, first: int = 0
) -> list[Verdict]:
  """The verdicts.

  Args:
    table: finished runs on suites.
    points: ``stationarity`` and ``gap`` of runs on quadratics.
    costs: operations of a step.
    min_seeds: with fewer seeds no claim is decided.
    first: the measurement from which the weights of SLAW count.

  Returns:
    One verdict a claim, intervals at Bonferroni's level for all numbers that
    are compared.
  """
  draft = _Claims(table, points, costs, min_seeds, first, LEVEL).all()
  wanted = sum(
    m.wanted is not None and m.value.n > 1 for x in draft for m in x.measured
  )
  level = corrected(wanted)
  return _Claims(table, points, costs, min_seeds, first, level).all()


class _Claims(Rules):
  """One method a claim."""

  def all(self) -> list[Verdict]:
    return [
      self.s1(),
      self.s2(),
      self.s3(),
      self.s4(),
      self.fg1(),
      self.fg3(),
      self.fg4(),
      self.fg5(),
      self.n3(),
      self.n4(),
      self.n5(),
      self.c3(),
      self.c4(),
      self.c5(),
      self.b1(),
      self.b2(),
      self.em1(),
      self.em3(),
    ]

  def s1(self) -> Verdict:
    slopes, correlations = self.agreements('regression', 'slaw')
    label = 'slope of log weights, SLAW on SLW'
    measured = self.measure(label, slopes, 'above', SLOPES[0])
    measured += self.measure(label, slopes, 'below', SLOPES[1])
    measured += self.measure(
      'their correlation', correlations, 'above', CORRELATED
    )
    for problem in self.suites:
      for arm in ('slaw', 'dwa', 'uncertainty'):
        measured += self.measure(
          f'{problem}: correlation of {arm}',
          self.agreements(problem, arm)[1],
          None,
        )
    return self.verdict(
      'S1',
      'The weights of SLAW are those by gradient norms, SLW.',
      'on regression, over tasks and measurements from step '
      f'{FIRST_STEP} on, the slope in logarithms is between {SLOPES[0]:g} and '
      f'{SLOPES[1]:g}, and the correlation above {CORRELATED:g}. Control: '
      'those of DWA and uncertainty weighting.',
      measured,
    )

  def s2(self) -> Verdict:
    measured = []
    for name, wanted in (
      ('slaw', 'below'),
      ('gradnorm', None),
      ('pcgrad', None),
    ):
      for count in COUNTS:
        costs = [self.costs.get((x, count)) for x in (name, 'sum_losses')]
        if None in costs:
          continue
        measured.append(
          exact(
            f'operations of a step with {count} tasks, {name} by the sum',
            costs[0] / costs[1],
            'above' if name == 'pcgrad' and count == COUNTS[-1] else wanted,
            CHEAP if wanted else DEAR,
          )
        )
    return self.verdict(
      'S2',
      'A step of SLAW costs what a step on the sum does, whatever the number '
      'of tasks; those of methods by gradients grow with it.',
      f'at every T operations are less than {CHEAP:g} times as many, and '
      f'those of PCGrad at {COUNTS[-1]} tasks more than {DEAR:g} times. The '
      'compiler counts them; time is not measured.',
      measured,
      min_seeds=1,
    )

  def s3(self) -> Verdict:
    return self.verdict(
      'S3',
      'SLAW is as good as uncertainty weighting and DWA, or better.',
      f'both differences in score are above -{MARGIN:g} points, means over '
      'problems.',
      self.more('slaw', 'uncertainty', 'above', -MARGIN)
      + self.more('slaw', 'dwa', 'above', -MARGIN),
    )

  def s4(self) -> Verdict:
    measured = []
    for problem in (NOISY, RARE):
      slopes, correlations = self.agreements(problem, 'slaw')
      measured += self.measure(
        f'{problem}: correlation of log weights', correlations, 'below', APART
      )
      measured += self.measure(f'{problem}: slope', slopes, None)
      if problem in self.table:
        measured += self.measure(
          f'{problem}: points, slaw less sum',
          measures.more(self.table, problem, 'slaw', ('sum',)),
          None,
        )
    return self.verdict(
      'S4',
      'SLAW is no longer SLW where losses vary by noisy labels, or by whether '
      'there is a rare positive in the batch (a caveat of ours).',
      f'on both problems the correlation of S1 is below {APART:g}.',
      measured,
    )

  def fg1(self) -> Verdict:
    def trends(number):
      return lambda name: measures.trend(self.suites, name, ALPHAS, number)

    return self.verdict(
      'FG1',
      'A larger alpha of FairGrad helps the worst task at the cost of the '
      'mean.',
      "Kendall's tau of alpha with the least score of a task is above 0, and "
      'with the mean score below, means over problems.',
      self.pooled(
        'tau with the least score',
        trends(lambda row: float(row.scores.min())),
        'above',
      )
      + self.pooled(
        'tau with the mean score', trends(measures.mean_score), 'below'
      ),
    )

  def fg3(self) -> Verdict:
    measured = []
    for other in ALPHAS:
      if other != 'fair_2':
        measured += self.more('fair_2', other)
    return self.verdict(
      'FG3',
      'Alpha 2 is the best of 1, 2, 5 and 10 for FairGrad.',
      'all three differences in score are above 0, means over problems.',
      measured,
    )

  def fg4(self) -> Verdict:
    return self.verdict(
      'FG4',
      'FairGrad converges to Pareto-stationary points.',
      'on quadratics the shortest convex combination of the gradients is, of '
      f'that at the start, less than 10 to the {SMALL:g}, for every alpha.',
      self.orders('stationarity', ('fair_1', 'fair_2', 'fair_5'), ('mgda',)),
    )

  def fg5(self) -> Verdict:
    measured = []
    for plain in PLAIN:
      measured += self.more(LOG[plain], plain)
    return self.verdict(
      'FG5',
      'The fair transform of the losses, here the logarithm, improves other '
      'methods.',
      'with it all of sum, RLW, DWA, MGDA and CAGrad have a higher score, '
      'means over problems.',
      measured,
    )

  def n3(self) -> Verdict:
    return self.verdict(
      'N3',
      'Where losses have unlike scales, methods that scales do not change beat '
      'those that they do.',
      'UW-O and IMTL-G both have a higher score than the mean of sum, RLW, '
      'DWA, MGDA, PCGrad and CAGrad, means over problems.',
      self.more('uw_o', UNLIKE) + self.more('imtl_g', UNLIKE),
    )

  def n4(self) -> Verdict:
    measured = self.more('nash', 'sum')
    for held in ('nash_10', 'nash_50'):

      def kept(name, held=held):
        return measures.paired(
          self.suites,
          name,
          (held, 'nash', 'sum'),
          lambda held, nash, plain: (
            measures.mean_score(held)
            - 0.5 * measures.mean_score(nash)
            - 0.5 * measures.mean_score(plain)
          ),
        )

      measured += self.pooled(
        f'points, {held} less halfway from sum to nash', kept, 'above'
      )
    return self.verdict(
      'N4',
      'Weights of Nash-MTL that are held for tens of steps keep most of the '
      'gain.',
      'Nash-MTL has a higher score than the sum, and held for 10 and for 50 '
      'steps more than half of what it is ahead, means over problems.',
      measured,
    )

  def n5(self) -> Verdict:
    return self.verdict(
      'N5',
      'Gradients at the features instead of those of the parameters hurt '
      'Nash-MTL.',
      'its score is lower with them, means over problems.',
      self.more('nash_features', 'nash', 'below'),
    )

  def c3(self) -> Verdict:
    return self.verdict(
      'C3',
      'With c below 1 CAGrad converges to the minimum of the mean loss.',
      'on quadratics the mean loss above its minimum is, of that at the start, '
      f'less than 10 to the {SMALL:g}, for c of 0.2, 0.5 and 0.9. Control: '
      'MGDA, which goes to other Pareto points. (The toy problem has a study.)',
      self.orders('gap', ('cagrad_0_2', 'cagrad_0_5', 'cagrad_0_9'), ('mgda',)),
    )

  def c4(self) -> Verdict:
    def change(arm):
      return lambda name: measures.paired(
        self.suites,
        name,
        (arm, 'sum'),
        lambda row, base: 100 * (row.train.mean() / base.train.mean() - 1),
      )

    measured = []
    for arm in RADII:
      measured += self.pooled(
        f'mean training loss, {arm} by sum, less 1, in percent',
        change(arm),
        'below',
      )
    return self.verdict(
      'C4',
      'CAGrad with c of 0.2 to 0.5 reaches a lower mean training loss than '
      'descent on the mean.',
      'both losses, by that of the sum, are below, means over problems.',
      measured,
    )

  def c5(self) -> Verdict:
    return self.verdict(
      'C5',
      'CAGrad that draws some of the tasks at every step, and sees the others '
      'in the mean, is as good as with all of them (CAGrad-Fast).',
      f'with 2 tasks drawn and c of 0.5 the difference in score is above '
      f'-{MARGIN:g} points, mean over problems of four tasks or more. Shown: '
      'what both have over the sum.',
      self.more('cagrad_fast', 'cagrad_0_5', 'above', -MARGIN)
      + self.more('cagrad_fast', 'sum', None)
      + self.more('cagrad_0_5', 'sum', None),
    )

  def b1(self) -> Verdict:
    measured = []
    colder = {name: -tau for name, tau in TEMPERATURES.items()}
    for kind, wanted, part in (
      ('larger', 'above', slice(-2, None)),
      ('smaller', 'below', slice(None, 2)),
    ):
      parts = []
      for name in self.equal():
        order = self.order(name)
        if order is None or len(order) < 4:
          continue
        chosen = order[part]
        parts.append(
          measures.trend(
            self.suites,
            name,
            colder,
            lambda row, chosen=chosen: float(row.scores[chosen].mean()),
          )
        )
      measured += self.measure(
        f'tau of the cold with the score of the two {kind} losses',
        measures.over_problems(parts),
        wanted,
      )
    return self.verdict(
      'B1',
      'A lower temperature of BMTL helps tasks with larger losses at the cost '
      'of those with smaller.',
      "Kendall's tau of less temperature with the score of the two tasks of "
      'the largest losses is above 0, with that of the two smallest below. '
      'Losses are those after training on the sum.',
      measured,
    )

  def b2(self) -> Verdict:
    sums = ('sum', 'sum_slow', 'sum_fast')
    measured = []
    for label, others in (
      ('sum at the best of three learning rates', sums),
      ('uncertainty', ('uncertainty',)),
      ('mgda', ('mgda',)),
    ):
      count = len(TEMPERATURES)
      parts = [
        measures.paired(
          self.suites,
          name,
          (*TEMPERATURES, *others),
          lambda *rows, count=count: (
            measures.mean_score(measures.best(rows[:count]))
            - measures.mean_score(measures.best(rows[count:]))
          ),
        )
        for name in self.equal()
      ]
      measured += self.measure(
        f'points, bmtl less {label}', measures.over_problems(parts), 'above'
      )
    return self.verdict(
      'B2',
      'BMTL beats the sum, uncertainty weighting and MGDA.',
      'all three differences in score are above 0, with the temperature, and '
      "the sum's learning rate, that are best on validation.",
      measured,
    )

  def em1(self) -> Verdict:
    def falls(name):
      return measures.paired(
        self.probed,
        name,
        ('emtl', 'sum'),
        lambda row, base: measures.spread(row) - measures.spread(base),
      )

    def goes_with(name):
      there = [x for x in MEASURED if self.probed[name].get(x)]
      if len(there) < 4:
        return {}
      return measures.rank_correlation(
        self.probed,
        name,
        there,
        measures.spread,
        measures.generalization_gap,
      )

    return self.verdict(
      'EM1',
      'EMTL makes the variance of relative contributions smaller, and a '
      'smaller one goes with a smaller gap between training and test.',
      'the variance over tasks of log L / norm of w g is lower than by the '
      "sum, and Spearman's correlation over methods of it with the gap, (test "
      '- train) / test, is above 0, means over problems.',
      self.pooled('variance, emtl less sum', falls, 'below')
      + self.pooled('correlation with the gap', goes_with, 'above'),
    )

  def em3(self) -> Verdict:
    return self.verdict(
      'EM3',
      'EMTL beats the sum and uncertainty weighting where scales of losses are '
      'far apart.',
      'both differences in score are above 0, means over problems.',
      self.more('emtl', 'sum') + self.more('emtl', 'uncertainty'),
    )
