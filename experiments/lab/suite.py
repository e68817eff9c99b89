"""What a run is trained on: data, tasks and networks, behind one face."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from experiments.lab import identity
from experiments.lab.options import DataOptions, flag
from experiments.lab.task import Task
from mtljax import _validate, data, models
from mtljax.metrics import delta_m

SPLITS = ('train', 'validation', 'test')
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Data:
  """A data set in memory, and how a batch becomes inputs of a network.

  Attributes:
    splits: by ``'train'``, ``'validation'`` and ``'test'``, arrays with an
      example a row; the labels under the names of the tasks.
    inputs: from a batch to what a network reads.
    eval_batch: examples that are measured at a time.
    probe_rows: examples that the cosines of gradients are taken on.
    augment: what ``--augment`` does to an example, from a key and the example;
      None: nothing is known.
    validates_on_test: whether the validation split is the test split, as in
      protocols without one, so that no state may be selected on it.
    spread: whether all tasks are on one batch, which can be cut into rows.
  """

  splits: Mapping[str, Mapping[str, np.ndarray]]
  inputs: Callable[[Mapping[str, jax.Array]], jax.Array]
  eval_batch: int = 500
  probe_rows: int = 256
  augment: Callable[[jax.Array, Any], Any] | None = None
  validates_on_test: bool = False
  spread: ClassVar[bool] = True

  def batches(
    self,
    batch_size: int,
    seed: int,
    rows: Any = None,
    tasks: Sequence[str] | None = None,
    augment: bool = False,
  ) -> Any:
    """The training batches of a seed, without end; of each batch some rows.

    ``tasks`` are those that are trained, None: all.
    """
    del tasks  # all are on the same examples
    return data.make_train_iterator(
      self.splits['train'],
      batch_size=batch_size,
      seed=seed,
      rows=rows,
      augment=self.augment if augment else None,
    )

  def split_train(self, share: float, seed: int) -> tuple[Data, Data]:
    """The data twice, the training examples in the one or in the other.

    The other splits are in both.

    Args:
      share: of the training examples that the second has, drawn at random.
      seed: of the draw.

    Raises:
      ValueError: batches are made in a way of their own, which this does not
        know.
    """
    own = type(self)
    if own.batches is not Data.batches and own.split_train is Data.split_train:
      raise ValueError(
        f'{own.__name__} makes its own batches, of which no part can be held '
        'out: give it split_train, or leave out methods that learn their '
        'weights on validation batches.'
      )
    second = rows_apart(self.num_examples('train'), share, seed)
    return self._with_train(~second), self._with_train(second)

  def _with_train(self, rows: np.ndarray) -> Any:
    """The data with some of the training examples only."""
    return dataclasses.replace(self, splits=with_train(self.splits, rows))

  def num_examples(self, split: str) -> int:
    """Rows of a split."""
    return len(next(iter(self.splits[split].values())))

  def steps_per_epoch(
    self, batch_size: int, tasks: Sequence[str] | None = None
  ) -> int:
    """Whole batches in a pass over the training data of these tasks."""
    del tasks
    return self.num_examples('train') // batch_size

  def counted(self, batch_size: int, tasks: Sequence[str]) -> int:
    """The examples that `mtljax.training.fit` counts in a step."""
    del tasks
    return batch_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Widths:
  """Units of a network whose layers an option names; others ignore them."""

  hidden_sizes: tuple[int, ...] = (128, 64)
  head_sizes: tuple[int, ...] = ()
  expert_sizes: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
  """A network that fits a suite.

  Attributes:
    make: from some of the tasks, and widths, to the model.
    mode: how a step's T backward passes are fastest on a CPU.
    batch_statistics: whether an example's output hangs on others of the batch.
  """

  make: Callable[[Sequence[Task], Widths], models.MultiTaskModel]
  mode: str = 'unroll'
  batch_statistics: bool = False

  def mode_of(self, mode: str, route: str = 'auto') -> str:
    """How the backward passes run: what is asked for, or the fastest."""
    if mode != 'auto':
      return mode
    return 'unroll' if route == 'gramian' else self.mode


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
  """A paper's table, which the report shows beside the methods.

  Attributes:
    source: the paper.
    baseline: the row that delta-m is taken against.
    rows: by method, values by ``'<metric>/<task>'``.
    differs: how the paper's protocol differs from what runs here, in sentences.
    means: by method, of what is published no closer: means over all tasks by
      ``'<metric>'``, and ``'delta_m'`` in percent.
  """

  source: str
  baseline: str
  rows: Mapping[str, Mapping[str, float]]
  differs: str = ''
  means: Mapping[str, Mapping[str, float]] = dataclasses.field(
    default_factory=dict
  )

  def __post_init__(self):
    _validate.one_of('baseline', self.baseline, {**self.rows, **self.means})

  def score(
    self,
    found: Mapping[str, float],
    higher_is_better: Callable[[str], bool] = lambda name: False,
  ) -> float:
    """Less delta-m against the baseline's row, over what is in both."""
    base = self.rows[self.baseline]
    there = [name for name in base if name in found]
    return -float(
      delta_m(
        [found[name] for name in there],
        [base[name] for name in there],
        [higher_is_better(name) for name in there],
      )
    )


def mlp() -> Network:
  """Dense layers for inputs of any shape."""

  def make(tasks, widths):
    return models.multi_mlp(
      names(tasks),
      num_classes=[task.num_outputs for task in tasks],
      hidden_sizes=widths.hidden_sizes,
      head_sizes=widths.head_sizes,
    )

  return Network(make=make)


def names(tasks: Sequence[Task]) -> tuple[str, ...]:
  """Of the tasks."""
  return tuple(task.name for task in tasks)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
  """Data, tasks and networks, and what comparisons on them begin with.

  Attributes:
    name: as in ``--suite``.
    title: what it is, in a line.
    tasks: all its tasks; those trained by default come from ``defaults``.
    load: from the options, the tasks and what prints a line to the data. It
      reads, or makes, all three splits; checks come from `Suite.read`.
    networks: that fit, by name; the first by default.
    sources: what ``--data.source`` may be; none: there is only one.
    images: whether its inputs are under ``'image'``, uint8 ``(N, H, W, C)``.
    others: inputs that no network of the suite is trained for, by name: from
      the data, the options and what prints a line to arrays.
    presets: options of a comparison of methods, by the name of the preset; the
      first by default. Inner ones are named as in ``'data.num_train'``.
    select: from validation metrics to the score of a state; None: the mean
      over tasks of their scores, less where lower is better.
    published: rows of a paper, shown beside the methods; None: there are none.
    floors: from the data to test metrics, by ``'<metric>/<task>'``, of
      predictors that a network has to beat, by their names; None likewise.
    pictures: from the data, and from a function from a batch to outputs by
      task, to arrays that the report shows, named as in `lab.paint`.
  """

  name: str
  title: str
  tasks: tuple[Task, ...]
  load: Callable[[DataOptions, tuple[str, ...], Say], Data]
  networks: Mapping[str, Network]
  sources: tuple[str, ...] = ()
  images: bool = False
  others: Mapping[
    str, Callable[[Data, DataOptions, Say], Mapping[str, Any]]
  ] = dataclasses.field(default_factory=dict)
  presets: Mapping[str, Mapping[str, Any]] = dataclasses.field(
    default_factory=lambda: {'quick': {}}
  )
  select: Callable[[Mapping[str, float]], float] | None = None
  published: Published | None = None
  floors: Callable[[Data], Mapping[str, Mapping[str, float]]] | None = None
  pictures: Callable[[Data, Any], Mapping[str, Any]] | None = None

  @property
  def task_names(self) -> tuple[str, ...]:
    """Of all its tasks."""
    return names(self.tasks)

  @property
  def default_tasks(self) -> tuple[str, ...]:
    """Those that its first preset trains."""
    preset = next(iter(self.presets.values()))
    return tuple(preset.get('tasks', self.task_names))

  def default_network(self, preferred: str) -> str:
    """That one, or where it is not among them that of its first preset."""
    if preferred in self.networks:
      return preferred
    preset = next(iter(self.presets.values()))
    return preset.get('model', next(iter(self.networks)))

  def tasks_of(self, chosen: Sequence[str]) -> tuple[Task, ...]:
    """Some tasks by name, in the order named."""
    by_name = {task.name: task for task in self.tasks}
    for name in chosen:
      _validate.one_of('--tasks', name, by_name)
    if not chosen or len(set(chosen)) != len(chosen):
      raise ValueError(f'--tasks={tuple(chosen)} must be different tasks.')
    return tuple(by_name[name] for name in chosen)

  def network(self, name: str, option: str = '--model') -> Network:
    """A network by name."""
    _validate.one_of(option, name, self.networks)
    return self.networks[name]

  def with_tasks(self, chosen: Sequence[str]) -> Suite:
    """The suite with some of its tasks only."""
    tasks, published = self.tasks_of(chosen), self.published
    if published is not None and len(tasks) < len(self.tasks):
      rows = {published.baseline: {}, **published.rows}
      # Means over all tasks say nothing of those of some.
      published = dataclasses.replace(published, rows=rows, means={})
    return dataclasses.replace(self, tasks=tasks, published=published)

  def score_of(self, metrics: Mapping[str, float]) -> float:
    """The score of a state, from its validation metrics; higher is better."""
    if self.select is not None:
      return self.select(metrics)
    scores = []
    for task in self.tasks:
      value = metrics.get(f'{task.score.name}/{task.name}')
      if value is not None:
        scores.append(value if task.score.higher_is_better else -value)
    return sum(scores) / len(scores)

  def facts(
    self, found: Data | None = None, floors: Mapping[str, Any] | None = None
  ) -> dict[str, Any]:
    """What ``config.json`` says of its measures.

    Args:
      found: the data, of which the floors are taken; None: there are none.
      floors: those of an earlier time, of the same data.
    """
    listed = [
      (f'{measure.name}/{task.name}', measure)
      for task in self.tasks
      for measure in task.measures
    ]
    facts = {
      'suite': self.name,
      'higher_is_better': {name: x.higher_is_better for name, x in listed},
      'delta_m_metrics': [name for name, x in listed if x.in_delta_m],
    }
    units = {name: x.unit for name, x in listed if x.unit}
    if units:
      facts['units'] = units
    known = {name for name, _ in listed}
    if self.published is not None:
      facts['published'] = dataclasses.asdict(self.published) | {
        'rows': _rounded(self.published.rows, known)
      }
    if self.floors is not None and found is not None:
      facts['floors'] = floors or _rounded(self.floors(found), known)
    return facts

  def digests(self, data: Data) -> dict[str, str]:
    """A digest of each split; of a suite of one's own, of its file as well.

    Those of `experiments` are in what every ``config.json`` says of the code.
    """
    found = identity.digests(data.splits)
    load = getattr(self.load, 'func', self.load)  # of a partial
    try:
      file = inspect.getsourcefile(load)
    except TypeError:  # an object that is called
      file = inspect.getsourcefile(type(load))
    here = pathlib.Path(__file__).parent.parent
    if file is not None and not pathlib.Path(file).is_relative_to(here):
      code = pathlib.Path(file).read_bytes()
      found['code'] = hashlib.sha256(code).hexdigest()
    return found

  def check_data(self, options: DataOptions) -> None:
    """Raises ValueError for data that the suite cannot be loaded with."""
    if options.source:
      if not self.sources:
        raise ValueError(
          f'--data.source={options.source!r}: the suite {self.name} has one '
          'source only; leave it out.'
        )
      _validate.one_of('--data.source', options.source, self.sources)
    _validate.in_range('--data.seed', options.seed, 0)
    for name in ('num_train', 'num_validation', 'num_test'):
      value = getattr(options, name)
      if value is not None:
        _validate.in_range(f'--data.{flag(name)[2:]}', value, 1)
    _validate.in_range('--data.pool', options.pool, 1)
    if options.pool > 1 and not self.images:
      raise ValueError(
        f'--data.pool={options.pool}: the suite {self.name} has no images to '
        'average.'
      )

  def read(
    self,
    options: DataOptions,
    batch_size: int,
    say: Say,
    *,
    selects: bool = True,
  ) -> Data:
    """Loads the data, and refuses what cannot be trained on.

    Args:
      options: which data, and how much.
      batch_size: examples a step.
      say: prints a line before slow work.
      selects: whether states are selected on the validation split.

    Returns:
      The `Data`.

    Raises:
      ValueError: the options do not fit, a batch is larger than the training
        data, or a task has no labels.
      FileNotFoundError: the data is not on this machine.
    """
    self.check_data(options)
    found = self.load(options, self.task_names, say)
    for split in SPLITS:
      if split not in found.splits:
        raise ValueError(f'the suite {self.name} loaded no split {split!r}.')
    for split in SPLITS:
      for task in self.task_names:
        if task not in found.splits[split]:
          raise ValueError(f'task {task} has no labels in the split {split}.')
    if selects and found.validates_on_test:
      raise ValueError(
        f'--data.source={options.source!r} has no validation examples to '
        'select a state on: compare by the mean over the last epochs '
        '(--last-epochs 10), or take another source.'
      )
    count = found.num_examples('train')
    if batch_size > count:
      raise ValueError(
        f'--batch-size={batch_size} is more than the {count} training examples.'
      )
    return found


def _rounded(
  rows: Mapping[str, Mapping[str, float]], known: set[str]
) -> dict[str, dict[str, float]]:
  """Rows of known metrics, to six digits: the rest hangs on the machine."""
  return {
    row: {
      name: float(f'{x:.6g}')
      for name, x in sorted(values.items())
      if name in known
    }
    for row, values in rows.items()
  }


def with_train(
  splits: Mapping[str, Mapping[str, np.ndarray]], rows: np.ndarray
) -> dict[str, Mapping[str, np.ndarray]]:
  """The splits with some of the training examples only."""
  train = {name: x[rows] for name, x in splits['train'].items()}
  return {**splits, 'train': train}


def rows_apart(count: int, share: float, seed: int) -> np.ndarray:
  """Which of ``count`` rows are of a share drawn at random, ``(count,)``."""
  order = np.random.default_rng([seed, count]).permutation(count)
  return order < round(share * count)


def first_rows(
  splits: Mapping[str, Mapping[str, np.ndarray]], options: DataOptions
) -> dict[str, dict[str, np.ndarray]]:
  """The first rows of each split, as many as the options say."""
  counts = {
    'train': options.num_train,
    'validation': options.num_validation,
    'test': options.num_test,
  }
  return {
    split: {name: x[: counts[split]] for name, x in arrays.items()}
    for split, arrays in splits.items()
  }


def pool_images(images: np.ndarray, size: int) -> np.ndarray:
  """Means over squares of pixels, rounded to uint8.

  Args:
    images: uint8, shape ``(N, H, W, C)``.
    size: side of the squares; it must divide H and W.

  Raises:
    ValueError: it does not.
  """
  if size == 1:
    return images
  count, height, width, channels = images.shape
  if height % size or width % size:
    raise ValueError(
      f'--data.pool={size} does not divide the {height} x {width} pixels of '
      'an image.'
    )
  squares = (count, height // size, size, width // size, size, channels)
  means = images.reshape(squares).mean(axis=(2, 4), dtype=np.float32)
  return np.rint(means).astype(np.uint8)


def check_widths(
  hidden_sizes: Sequence[int],
  head_sizes: Sequence[int],
  expert_sizes: Sequence[int] = (),
) -> None:
  """Raises ValueError for what is no trunk or no head of an MLP."""
  if not hidden_sizes:
    raise ValueError('--hidden-sizes is empty: the trunk needs a layer.')
  for option, sizes in (
    ('--hidden-sizes', hidden_sizes),
    ('--head-sizes', head_sizes),
    ('--expert-sizes', expert_sizes),
  ):
    for size in sizes:
      _validate.in_range(option, size, 1)
