"""Times preparing, loading and batching the default multi_digits data set.

python -m benchmarks.data [repeats]
"""

import sys
import tempfile
import time

import tensorflow_datasets as tfds

from mtljax import data

BATCH = 256


def main():
  repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
  times = {}
  for _ in range(repeats):
    with tempfile.TemporaryDirectory() as data_dir:
      run(data_dir, times)
  for name, values in times.items():
    print(
      f'{name:<40} {min(values):10.3f} {sorted(values)[repeats // 2]:10.3f}'
    )


def run(data_dir, times):
  def measure(name, fun):
    start = time.perf_counter()
    result = fun()
    times.setdefault(name, []).append(time.perf_counter() - start)
    return result

  measure(
    'prepare (s): min, median',
    lambda: data.prepare_multi_digits(data_dir=data_dir),
  )
  for split in ('train', 'validation', 'test'):
    arrays = measure(
      f'load_arrays {split} (s)',
      lambda split=split: data.load_arrays(split=split, data_dir=data_dir),
    )
    if split == 'train':
      train = arrays
  in_memory = data.make_train_iterator(train, batch_size=BATCH, seed=0)
  source = tfds.data_source(
    'multi_digits', split='train', data_dir=data_dir, download=False
  )
  streamed = data.make_streaming_iterator(source, batch_size=BATCH, seed=0)
  for name, batches, count in (
    ('in memory', in_memory, 100),
    ('streamed', streamed, 10),
  ):
    next(batches)
    measure(
      f'{name}: {count} batches of {BATCH} (s)',
      lambda b=batches, n=count: [next(b) for _ in range(n)],
    )


if __name__ == '__main__':
  main()
