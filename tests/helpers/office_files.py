"""Small made-up images in the folders of Office-31 and Office-Home."""

import numpy as np
from PIL import Image

CLASSES = {'office31': 31, 'office_home': 65}
#: The brightness of blue says the domain.
DOMAINS = {
  'office31': {'amazon': 20, 'dslr': 120, 'webcam': 220},
  'office_home': {'Art': 20, 'Clipart': 90, 'Product': 160, 'Real World': 230},
}


def class_names(name):
  """In the order of their labels."""
  return [f'thing_{i:02d}' for i in range(CLASSES[name])]


def write(data_dir, name, counts=5):
  """Writes images of one colour: red by the class, blue by the domain.

  Args:
    data_dir: the tfds directory.
    name: ``'office31'`` or ``'office_home'``.
    counts: of images of a class; by domain, or a number.

  Returns:
    The folder of the domains.
  """
  folder = data_dir / 'downloads' / 'manual' / name
  for domain, blue in DOMAINS[name].items():
    inside = folder / domain / ('images' if name == 'office31' else '')
    count = counts if isinstance(counts, int) else counts[domain]
    for label, class_name in enumerate(class_names(name)):
      (inside / class_name).mkdir(parents=True)
      for i in range(count):
        red = 255 * label // (CLASSES[name] - 1)
        pixels = np.full((9, 12, 3), (red, 40 * i, blue), np.uint8)
        path = inside / class_name / f'frame_{i + 1:04d}.png'
        Image.fromarray(pixels).save(path)
  return folder
