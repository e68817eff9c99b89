"""A page in a headless Chromium."""

import re
import shutil
import subprocess

import pytest

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')

needed = pytest.mark.skipif(CHROMIUM is None, reason='no chromium is installed')


def visit(address, profile, width=390, *flags):
  """What a page says to the console, and its tree when loaded."""
  command = [
    CHROMIUM,
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--enable-logging=stderr',
    f'--user-data-dir={profile}',
    f'--window-size={width},900',
    '--virtual-time-budget=3000',
    '--dump-dom',
    *flags,
    address,
  ]
  done = subprocess.run(
    command, capture_output=True, text=True, timeout=120, check=True
  )
  return re.findall(r'CONSOLE[:(]\d+\)?\] (.*)', done.stderr), done.stdout
