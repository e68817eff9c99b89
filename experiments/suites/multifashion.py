"""Multi-Fashion: two overlapping articles of Fashion-MNIST, whole."""

from __future__ import annotations

from experiments.suites import multi_mnist

SUITE = multi_mnist.make_suite(
  'multifashion',
  'Multi-Fashion, two overlapping articles',
  'fashion_mnist',
  {
    'STL': 86.65,
    'MGDA': 86.27,
    'PCGrad': 86.57,
    'CAGrad': 86.51,
    'IMTL': 86.90,
    'Nash-MTL': 86.54,
    'FairGrad': 86.51,
    'F-MGDA': 87.73,
    'F-PCGrad': 87.76,
    'F-CAGrad': 87.82,
    'F-IMTL': 87.80,
    'F-Nash-MTL': 87.81,
    'F-FairGrad': 87.73,
  },
)
