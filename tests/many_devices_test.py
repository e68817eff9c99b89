"""The page on eight virtual devices is a script that prints what it says."""

import os
import pathlib
import re
import subprocess
import sys

PAGE = pathlib.Path(__file__).parents[1] / 'docs' / 'many_devices.md'


def test_the_page_prints_what_it_says(tmp_path):
  blocks = re.findall(r'^```(\w+)\n(.*?)^```$', PAGE.read_text(), re.M | re.S)
  script = tmp_path / 'page.py'
  script.write_text(
    '\n'.join(code for kind, code in blocks if kind == 'python')
  )
  (said,) = (text for kind, text in blocks if kind == 'text')
  done = subprocess.run(
    [sys.executable, script],
    env={
      **os.environ,
      'PYTHONPATH': os.pathsep.join(filter(None, sys.path)),
    },
    capture_output=True,
    text=True,
    timeout=1200,  # a machine may have much else to do
  )
  assert done.returncode == 0, done.stderr[-3000:]
  strip = lambda text: [line.rstrip() for line in text.splitlines()]
  assert strip(done.stdout) == strip(said)
