"""A few made-up faces as tfds stores CelebA: its own builder, no network."""

import contextlib
import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.datasets.celeb_a import celeb_a_dataset_builder

ATTRIBUTES = tuple(celeb_a_dataset_builder.ATTR_HEADINGS)


def make_faces(count, seed=0):
  """Colours, JPEG files and attributes (-1 or 1) of faces of one colour.

  The first attribute is there where red is bright, the second where green is;
  the others are drawn.
  """
  rng = np.random.default_rng(seed)
  colours = rng.integers(0, 256, (count, 3), dtype=np.uint8)
  signs = rng.choice([-1, 1], (count, len(ATTRIBUTES)))
  signs[:, :2] = np.where(colours[:, :2] > 127, 1, -1)
  files = []
  for colour in colours:
    file = io.BytesIO()
    image = np.broadcast_to(colour, (218, 178, 3))
    Image.fromarray(np.ascontiguousarray(image)).save(file, 'JPEG')
    files.append(file.getvalue())
  return colours, files, signs


def write(data_dir, sizes, seed=0):
  """Prepares ``celeb_a`` from raw files as its authors give them.

  Args:
    data_dir: the tfds directory.
    sizes: faces in the train, the validation and the test split.
    seed: of the faces.

  Returns:
    Colours and attributes of all faces, in their raw order: the train split,
    the validation split, the test split.
  """
  colours, files, signs = make_faces(sum(sizes), seed)
  names = [f'{i:06d}.jpg' for i in range(1, len(files) + 1)]
  parts = np.repeat([0, 1, 2], sizes)
  raw = data_dir / 'raw'
  raw.mkdir()

  def table(head, rows):
    pairs = zip(names, rows, strict=True)
    lines = [f'{n} {" ".join(map(str, row))}' for n, row in pairs]
    return '\n'.join([str(len(rows)), ' '.join(head), *lines, ''])

  marks = np.zeros((len(files), 10), int)
  headings = celeb_a_dataset_builder.LANDMARK_HEADINGS
  texts = {
    'list_eval_partition': '\n'.join(map('{} {}'.format, names, parts)) + '\n',
    'list_attr_celeba': table(ATTRIBUTES, signs),
    'landmarks_celeba': table(headings, marks),
    'identity_celeba': ''.join(f'{name} 1\n' for name in names),
  }
  for name, text in texts.items():
    (raw / name).write_text(text)

  class Downloads:
    """Hands out the files above in place of those of the network."""

    downloaded_size = 0

    def download(self, urls):
      return {name: raw / name for name in urls}

    def iter_archive(self, path):
      del path
      for name, content in zip(names, files, strict=True):
        yield f'img_align_celeba/{name}', io.BytesIO(content)

  builder = tfds.builder(
    'celeb_a', data_dir=data_dir, file_format='array_record'
  )
  builder._make_download_manager = lambda **_: Downloads()
  with contextlib.redirect_stderr(io.StringIO()):
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
          try_download_gcs=False,
          compute_stats=tfds.download.ComputeStatsMode.SKIP,
        )
      )
  return colours, signs
