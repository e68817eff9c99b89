"""What the progress of a study says, by a clock of our own."""

import io

import rich.console

from experiments.lab.progress import GridProgress, peak_bytes


class Clock:
  now = 100.0

  def __call__(self):
    return self.now


def grid(total, terminal=False):
  clock, text = Clock(), io.StringIO()
  console = rich.console.Console(
    file=text, force_terminal=terminal, width=200, legacy_windows=False
  )
  return GridProgress(total, console, True, clock), clock, text


def row(score, seed=0):
  return {'method': 'cagrad', 'seed': seed, 'validation/score': score}


def test_time_left_is_that_of_the_whole_grid():
  bar, clock, _ = grid(400)
  assert bar.facts() == ''
  bar.finish(100, row(0.5))  # done before, and no evidence of the speed
  assert bar.facts() == ''
  bar.step(1)
  for step in range(2, 52):
    clock.now += 2.0
    bar.step(step)
  # 50 steps in 100 s, and 249 are left.
  assert bar.facts().startswith('8 min left, 0.5 steps/s, best cagrad, seed 0')
  bar.finish(100, row(0.25, 1))
  assert bar.facts().startswith('7 min left')
  assert 'best cagrad, seed 0: 0.5, ' in bar.facts()
  bar.finish(100, row(0.75, 2))
  assert 'best cagrad, seed 2: 0.75, ' in bar.facts()


def test_a_run_without_a_score_is_not_the_best():
  bar, clock, _ = grid(10)
  bar.step(1)
  clock.now += 1
  bar.step(2)
  for score in (None, float('nan')):
    bar.finish(2, row(score))
  assert 'best' not in bar.facts()


def test_runs_that_share_a_program_are_counted_together():
  bar, clock, _ = grid(60)
  for step in range(1, 11):
    clock.now += 1.0
    bar.step(step * 3)
  for seed in range(3):
    bar.finish(10, row(seed, seed))
  # 27 steps since the first in 10 s, and 30 are left.
  assert bar.facts().startswith('11 s left, 2.7 steps/s, best cagrad, seed 2')


def test_lines_are_plain_where_there_is_no_terminal():
  bar, clock, text = grid(20)
  with bar:
    bar.start('[1/2] cagrad, seed 0')
    bar.step(1)
    clock.now += 5
    bar.step(10)
    bar.finish(10, row(0.5))
    bar.start('[2/2] cagrad, seed 1')
  lines = text.getvalue().splitlines()
  assert lines[0] == '[1/2] cagrad, seed 0'
  assert lines[1].startswith(
    '[2/2] cagrad, seed 1 (6 s left, 1.8 steps/s, best'
  )
  assert lines[1].endswith(' MB)')
  assert len(lines) == 2
  assert '\x1b' not in text.getvalue()


def test_a_terminal_has_one_bar():
  bar, clock, text = grid(20, terminal=True)
  with bar:
    bar.start('[1/2] cagrad, seed 0')
    bar.step(1)
    clock.now += 5
    bar.step(10)
  assert '[1/2] cagrad, seed 0 6 s left' in text.getvalue()


def test_memory_is_that_of_the_process():
  assert 1e7 < peak_bytes() < 1e12
