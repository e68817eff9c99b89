"""Office-Home: objects in four kinds of images, a task a kind."""

from __future__ import annotations

from experiments.suites import office31

SUITE = office31.make_suite(
  'office_home',
  'Office-Home, objects in four domains',
  65,
  {
    'STL': (78.91, 0.0),
    'EW': (78.17, -0.92),
    'Nash-MTL': (78.80, -0.08),
    'DB-MTL': (78.95, 0.17),
  },
)
