"""Float32 against float64 on the zoo, up to 64 tasks.

The error is that of the update, relative to the longest term of the exact one.
It is held to 1e-4 up to a condition number of 1e3 of the row-normalised
Gramian, and to ten times eps times the condition number beyond.
"""

import accuracy
import pytest

FAST = ('mgda', 'nash_mtl', 'conflict_free')


@pytest.fixture(scope='module')
def cases():
  return accuracy.cases()


def _methods():
  for name in accuracy.METHODS:
    marks = () if name in FAST else pytest.mark.slow
    yield pytest.param(name, marks=marks)


@pytest.mark.parametrize('name', list(_methods()))
def test_float32_is_within_the_bound(name, cases, x64):
  for result in accuracy.measure(accuracy.METHODS[name], cases):
    assert result.finite, result.case.name
    assert result.error <= accuracy.allowed(name, result.case), (
      result.case.name,
      result.error,
      result.case.condition,
    )


def test_the_cases_cover_both_sides_of_the_bound(cases):
  well = [case for case in cases if case.condition <= 1e3]
  ill = [case for case in cases if case.condition > 1e3]
  assert len(well) > 20 and len(ill) > 10
  assert max(len(case.jacobian) for case in cases) == accuracy.SIZE
