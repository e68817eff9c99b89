"""The folder of a made-up experiment, its numbers known."""

import csv
import json
import math

import numpy as np

TASKS = ('left', 'right')
# Accuracy of left and right, by method and seed.
ACCURACY = {
  'single_left': [(0.90, None), (0.92, None)],
  'single_right': [(None, 0.80), (None, 0.80)],
  'sum_losses': [(0.91, 0.76), (0.91, 0.80)],
  'pcgrad': [(0.93, 0.72), (0.95, 0.72)],
}
SPEED = {'sum_losses': 40.0, 'pcgrad': 20.0}


def _train_lines(method, seed, steps):
  rng = np.random.default_rng(seed)
  single = method.startswith('single_')
  own = [method.removeprefix('single_')] if single else TASKS
  for step in range(0, steps, 10):
    line = {'kind': 'train', 'step': step, 'epoch': step / 100}
    for task in own:
      line[f'loss/{task}'] = 2 * math.exp(-step / 500) + 0.1 * rng.random()
    if len(own) > 1:
      line['weight/left'], line['weight/right'] = 1.0, 0.5 + rng.random()
      line['cosine/left,right'] = math.cos(step / 200)
    line['examples_per_second'] = 1000.0
    yield line
    if step % 500 == 0:
      yield {'kind': 'eval', 'split': 'validation', 'step': step} | {
        f'accuracy/{task}': 0.5 + step / 10_000 for task in own
      }


def write(directory, accuracy, *, steps=1000, **config):
  """Writes the folder of a finished experiment."""
  config = {
    'experiment': 'fake',
    'data': 'two digits',
    'seeds': 2,
    'methods': list(accuracy),
    'tasks': list(TASKS),
    **config,
  }
  (directory / 'config.json').write_text(json.dumps(config))
  columns = ['method', 'seed', 'best_step', 'validation/accuracy/left']
  columns += [
    f'test/{kind}/{t}' for t in TASKS for kind in ('accuracy', 'loss')
  ]
  columns += ['wall_time', 'steps_per_second', 'status']
  with (directory / 'results.csv').open('w', newline='') as file:
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    for method, seeds in accuracy.items():
      for seed, pair in enumerate(seeds):
        row = {
          'method': method,
          'seed': seed,
          'best_step': 900,
          'wall_time': 10 + seed,
          'steps_per_second': SPEED.get(method, 50.0),
          'status': 'ok',
        }
        for task, value in zip(TASKS, pair, strict=True):
          if value is not None:
            row[f'test/accuracy/{task}'] = value
            row[f'test/loss/{task}'] = 1 - value
        writer.writerow(row)
        folder = directory / 'runs' / method / f'seed_{seed}'
        folder.mkdir(parents=True)
        lines = _train_lines(method, seed, steps)
        (folder / 'metrics.jsonl').write_text(
          ''.join(json.dumps(line) + '\n' for line in lines)
        )
  return directory
