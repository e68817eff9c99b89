#!/usr/bin/env bash
# The disparity maps of tfds' Cityscapes are declared as 8 bits a pixel, and the
# files hold 16: without OpenCV only the low byte of each is read, and no error.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -q tensorflow-datasets==4.9.10 array_record==0.8.6 numpy==2.4.6 pillow==12.1.0 importlib_resources==6.5.2
cd "$scratch"
cat > disparity.py <<'PY'
from importlib import metadata
from unittest import mock

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

print('tensorflow-datasets', metadata.version('tensorflow-datasets'))
PIXELS = 100.0  # the data set's own coding: 256 a pixel, plus 1
stored = np.full((1024, 2048), int(256 * PIXELS) + 1, np.uint16)
Image.fromarray(stored).save('disparity.png', compress_level=1)
Image.fromarray(np.zeros((1024, 2048, 3), np.uint8)).save('image.png')
row = {
  'image_id': 'a',
  'image_left': 'image.png',
  'image_right': 'image.png',
  'disparity_map': 'disparity.png',
}
builder = tfds.builder(
  'cityscapes/stereo_disparity', data_dir='data', file_format='array_record'
)
feature = builder.info.features['disparity_map']
print('declared:', feature.np_dtype, 'in the file:', stored.dtype)
splits = lambda *_: {'train': iter([('a', row)])}
with mock.patch.object(builder, '_split_generators', splits):
  builder.download_and_prepare()
found = builder.as_data_source(split='train')[0]['disparity_map']
print('stored:', np.unique(stored), 'read:', found.dtype, np.unique(found))
assert feature.np_dtype == np.uint8, 'it has changed'
assert found.dtype == np.uint8, 'it has changed'
assert np.unique(found).tolist() == [stored[0, 0] % 256], 'it has changed'
PY
venv/bin/python disparity.py
