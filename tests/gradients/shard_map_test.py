"""Gradients inside `jax.shard_map`, for every form and setting."""

import pathlib

import eight_devices

SCRIPT = pathlib.Path(__file__).parent / 'shard_map_main.py'


def test_every_form_and_setting():
  assert eight_devices.output_of(SCRIPT).strip() == 'ok'
