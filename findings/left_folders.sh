#!/usr/bin/env bash
# Every builder of a data set that is not prepared leaves a folder in $TMPDIR.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -q tensorflow-datasets==4.9.10 array_record==0.8.6 numpy==2.4.6
mkdir "$scratch/temporary"
cd "$scratch"
cat > counts.py <<'PY'
import numpy as np
import tensorflow_datasets as tfds


class Counts(tfds.core.GeneratorBasedBuilder):
  """Three numbers."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    features = tfds.features.FeaturesDict({'n': np.int32})
    return tfds.core.DatasetInfo(builder=self, features=features)

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for n in range(3):
      yield n, {'n': n}
PY
TMPDIR=$scratch/temporary venv/bin/python - <<'PY'
import os
import pathlib

import tensorflow_datasets as tfds
from counts import Counts

temporary = pathlib.Path(os.environ['TMPDIR'])
folders = lambda: sorted(x for x in temporary.iterdir() if x.is_dir())
print('tensorflow-datasets', tfds.__version__)
for i in range(5):
  builder = Counts(data_dir=f'data_{i}', file_format='array_record')
  builder.download_and_prepare()
  assert len(builder.as_data_source('train')) == 3
  del builder
left = folders()
print('expected: nothing left in the folder for temporary files')
print('seen:', len(left), 'folders, of them empty:',
      sum(not list(x.iterdir()) for x in left))
again = Counts(data_dir='data_0', file_format='array_record')
print('a builder of data that are prepared adds', len(folders()) - len(left))
assert len(left) == 5 and len(folders()) == 5, 'it has changed'
PY
