"""Multi-Fashion+MNIST: an article of fashion, and a digit over it, whole."""

from __future__ import annotations

from experiments.suites import multi_mnist

SUITE = multi_mnist.make_suite(
  'fashion_and_mnist',
  'Multi-Fashion+MNIST, an article and a digit',
  'fashion_and_mnist',
  {
    'STL': 93.91,
    'MGDA': 92.72,
    'PCGrad': 92.78,
    'CAGrad': 92.68,
    'IMTL': 92.97,
    'Nash-MTL': 92.70,
    'FairGrad': 92.70,
    'F-MGDA': 93.28,
    'F-PCGrad': 93.50,
    'F-CAGrad': 93.54,
    'F-IMTL': 93.29,
    'F-Nash-MTL': 93.48,
    'F-FairGrad': 93.46,
  },
)
