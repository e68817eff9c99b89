"""Small data sets in the form of MTAN's: one .npy file an example and field."""

import numpy as np

NYUV2 = {'image': (288, 384, 3), 'label': (288, 384), 'depth': (288, 384, 1)}
NYUV2['normal'] = (288, 384, 3)


def fields(rng, shapes, classes):
  """One example by folder, in the dtypes of numpy's defaults."""
  found = {}
  for folder, shape in shapes.items():
    if folder.startswith('label'):
      found[folder] = rng.integers(-1, classes, shape).astype(np.float64)
    elif folder == 'normal':
      normal = rng.normal(size=shape)
      found[folder] = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    else:
      low = 0.0 if folder == 'image' else 0.5
      found[folder] = rng.uniform(low, 1, shape)
  found['depth'][:4] = 0
  if 'normal' in found:
    found['normal'][:4] = 0
  return found


def write(root, shapes, classes, counts):
  """Writes splits of so many examples, such as ``{'train': 4, 'val': 2}``."""
  rng = np.random.default_rng(0)
  for split, count in counts.items():
    for i in range(count):
      for folder, array in fields(rng, shapes, classes).items():
        path = root / split / folder / f'{i}.npy'
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array.astype(np.float32))


def write_nyuv2(data_dir, train=4, val=2):
  """Into a tfds directory."""
  root = data_dir / 'downloads' / 'manual' / 'nyuv2'
  write(root, NYUV2, 13, {'train': train, 'val': val})
  return root
