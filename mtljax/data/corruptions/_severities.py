"""What each severity means: the parameters of both published sets.

Lengths are in pixels, amounts in units of an image in [0, 1], except that the
lengths of elastic are fractions of the shorter side.
"""

from __future__ import annotations

from typing import Any

# ImageNet-C, made for images of 224 pixels.
IMAGENET: dict[str, tuple[Any, ...]] = {
  'gaussian_noise': (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation
  'shot_noise': (60, 25, 12, 5, 3),  # photons of a white pixel
  'impulse_noise': (0.03, 0.06, 0.09, 0.17, 0.27),  # fraction of values
  'speckle_noise': (0.15, 0.2, 0.35, 0.45, 0.6),  # standard deviation
  # radius, standard deviation of its anti-aliasing
  'defocus_blur': ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
  # standard deviation, largest move, rounds
  'glass_blur': (
    (0.7, 1, 2),
    (0.9, 2, 1),
    (1, 2, 3),
    (1.1, 3, 2),
    (1.5, 4, 2),
  ),
  # radius, standard deviation
  'motion_blur': ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
  # end and step of the zoom factors, which begin with 1
  'zoom_blur': ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02))
  + ((1.31, 0.03),),
  'gaussian_blur': (1, 2, 3, 4, 6),  # standard deviation
  # mean and deviation of the flakes, zoom, threshold, radius and deviation of
  # their motion, weight of the image
  'snow': (
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
  ),
  # weights of image and ice
  'frost': ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
  # amount, decay of the roughness from scale to scale
  'fog': ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
  'brightness': (0.1, 0.2, 0.3, 0.4, 0.5),  # added to the value of HSV
  # mean and deviation of the liquid, its blur, threshold, amount or blur of
  # the mask, and whether it is mud
  'spatter': (
    (0.65, 0.3, 4, 0.69, 0.6, False),
    (0.65, 0.3, 3, 0.68, 0.6, False),
    (0.65, 0.3, 2, 0.68, 0.5, False),
    (0.65, 0.3, 1, 0.65, 1.5, True),
    (0.67, 0.4, 1, 0.65, 1.5, True),
  ),
  'contrast': (0.4, 0.3, 0.2, 0.1, 0.05),  # factor
  # strength, blur and affine move
  'elastic_transform': tuple(
    tuple(244 / 224 * x for x in values)
    for values in (
      (2, 0.7, 0.1),
      (2, 0.08, 0.2),
      (0.05, 0.01, 0.02),
      (0.07, 0.01, 0.02),
      (0.12, 0.01, 0.02),
    )
  ),
  'pixelate': (0.6, 0.5, 0.4, 0.3, 0.25),  # factor of the size
  'jpeg_compression': (25, 18, 15, 10, 7),  # quality
  # factor and offset of the saturation of HSV
  'saturate': ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
}

# CIFAR-10-C, made for images of 32 pixels.
CIFAR: dict[str, tuple[Any, ...]] = {
  'gaussian_noise': (0.04, 0.06, 0.08, 0.09, 0.10),
  'shot_noise': (500, 250, 100, 75, 50),
  'impulse_noise': (0.01, 0.02, 0.03, 0.05, 0.07),
  'speckle_noise': (0.06, 0.1, 0.12, 0.16, 0.2),
  'defocus_blur': ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
  'glass_blur': (
    (0.05, 1, 1),
    (0.25, 1, 1),
    (0.4, 1, 1),
    (0.25, 1, 2),
    (0.4, 1, 2),
  ),
  'motion_blur': ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
  'zoom_blur': ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01))
  + ((1.26, 0.01),),
  'gaussian_blur': (0.4, 0.6, 0.7, 0.8, 1),
  'snow': (
    (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
    (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
  ),
  'frost': ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
  'fog': ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
  'brightness': (0.05, 0.1, 0.15, 0.2, 0.3),
  'spatter': (
    (0.62, 0.1, 0.7, 0.7, 0.5, False),
    (0.65, 0.1, 0.8, 0.7, 0.5, False),
    (0.65, 0.3, 1, 0.69, 0.5, False),
    (0.65, 0.1, 0.7, 0.69, 0.6, True),
    (0.65, 0.1, 0.5, 0.68, 0.6, True),
  ),
  'contrast': (0.75, 0.5, 0.4, 0.3, 0.15),
  'elastic_transform': (
    (0, 0, 0.08),
    (0.05, 0.2, 0.07),
    (0.08, 0.06, 0.06),
    (0.1, 0.04, 0.05),
    (0.1, 0.03, 0.03),
  ),
  'pixelate': (0.95, 0.9, 0.85, 0.75, 0.65),
  'jpeg_compression': (80, 65, 58, 50, 40),
  'saturate': ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
}

SCALES = {'imagenet': IMAGENET, 'cifar': CIFAR}
