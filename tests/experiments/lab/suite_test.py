"""Suites: their face, their scores, and what is refused."""

import dataclasses

import numpy as np
import pytest

from experiments import suites
from experiments.lab.suite import check_widths
from experiments.suites import DataOptions, Measure, pool_images

DIGITS, CENSUS = suites.find('digits'), suites.find('census')


def test_every_file_is_a_suite_of_its_name():
  for name in suites.available():
    suite = suites.find(name)
    assert suite.name == name
    assert suite.title
    assert set(suite.default_tasks) <= set(suite.task_names)
  assert {'census', 'digits'} <= set(suites.available())


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('cenus', "Did you mean 'census'"),
    ('experiments.suites', 'defines no SUITE'),
    ('nowhere.at_all', 'cannot be imported'),
  ],
)
def test_no_suite_of_a_name(name, message):
  with pytest.raises(ValueError, match=message):
    suites.find(name)


def test_the_score_is_the_mean_in_its_direction():
  found = {'accuracy/left': 0.5, 'accuracy/right': 1.0, 'loss/left': 9.0}
  assert DIGITS.score_of(found) == 0.75
  # A task alone has one score only.
  assert DIGITS.score_of({'accuracy/right': 0.25}) == 0.25
  task = dataclasses.replace(
    DIGITS.tasks[0], measures=(Measure(name='mse', higher_is_better=False),)
  )
  suite = dataclasses.replace(DIGITS, tasks=(task, DIGITS.tasks[1]))
  assert suite.score_of({'mse/left': 2.0, 'accuracy/right': 1.0}) == -0.5


def test_facts_say_which_measures_count():
  facts = CENSUS.with_tasks(('income',)).facts()
  assert facts['delta_m_metrics'] == ['auc/income']
  assert facts['higher_is_better'] == {
    'auc/income': True,
    'accuracy/income': True,
  }


@pytest.mark.parametrize(
  ('suite', 'options', 'message'),
  [
    (DIGITS, {'source': 'mnits'}, "Did you mean 'mnist'"),
    (CENSUS, {'source': 'mnist'}, 'has one source only'),
    (CENSUS, {'pool': 2}, 'has no images'),
    (CENSUS, {'num_train': 0}, '--data.num-train=0'),
    (DIGITS, {'pool': 0}, '--data.pool=0'),
  ],
)
def test_data_that_do_not_fit_are_refused(suite, options, message):
  with pytest.raises(ValueError, match=message):
    suite.check_data(DataOptions(**options))


def test_splits_and_labels_must_be_there():
  whole = {'image': np.zeros((4, 2, 2, 1)), 'left': np.zeros(4)}

  def suite(splits):
    data = suites.Data(splits, lambda batch: batch['image'])
    return dataclasses.replace(DIGITS, load=lambda *_: data)

  splits = dict.fromkeys(('train', 'validation', 'test'), whole)
  with pytest.raises(ValueError, match='task right has no labels'):
    suite(splits).read(DataOptions(), 2, print)
  splits = dict.fromkeys(('train', 'test'), whole)
  with pytest.raises(ValueError, match="no split 'validation'"):
    suite(splits).read(DataOptions(), 2, print)
  splits = dict.fromkeys(suites.SPLITS, whole | {'right': np.zeros(4)})
  assert suite(splits).read(DataOptions(), 2, print).steps_per_epoch(2) == 2
  with pytest.raises(ValueError, match='--batch-size=5 is more than the 4'):
    suite(splits).read(DataOptions(), 5, print)


def test_widths_are_checked():
  check_widths((4,), ())
  for sizes in (((), ()), ((0,), ()), ((4,), (-1,))):
    with pytest.raises(ValueError, match='-sizes'):
      check_widths(*sizes)


def test_pooling_is_the_mean_of_squares():
  images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
  found = pool_images(images, 2)
  assert found.shape == (2, 2, 2, 1)
  assert found[0, 0, 0, 0] == round((0 + 1 + 4 + 5) / 4)
  assert pool_images(images, 1) is images
  with pytest.raises(
    ValueError, match='--data.pool=3 does not divide the 4 x 4'
  ):
    pool_images(images, 3)


def test_published_means_are_of_all_tasks_or_of_none():
  published = suites.Published(
    source='a paper',
    baseline='STL',
    rows={'LS': {'accuracy/left': 0.9}},
    means={'STL': {'accuracy': 0.8}},
  )
  suite = dataclasses.replace(suites.find('digits'), published=published)
  assert suite.facts()['published']['means'] == {'STL': {'accuracy': 0.8}}
  both = suite.with_tasks(('right', 'left')).facts()['published']
  assert both['means'] == {'STL': {'accuracy': 0.8}}
  one = suite.with_tasks(('left',)).facts()['published']
  assert one['means'] == {}
  assert one['rows'] == {'STL': {}, 'LS': {'accuracy/left': 0.9}}
  with pytest.raises(ValueError, match="baseline='EW'"):
    dataclasses.replace(published, baseline='EW')
