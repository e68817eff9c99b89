"""Noise: every value of an image changes by itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def gaussian_noise(image: jax.Array, key: jax.Array, sigma: float) -> jax.Array:
  """Adds normal noise."""
  return image + sigma * jax.random.normal(key, image.shape)


def shot_noise(image: jax.Array, key: jax.Array, photons: float) -> jax.Array:
  """Counts photons: Poisson with mean ``photons * image``, over ``photons``."""
  return jax.random.poisson(key, image * photons) / photons


def impulse_noise(image: jax.Array, key: jax.Array, amount: float) -> jax.Array:
  """Sets a fraction of the values to 0 or 1 (salt and pepper)."""
  hit_key, salt_key = jax.random.split(key)
  hit = jax.random.bernoulli(hit_key, amount, image.shape)
  salt = jax.random.bernoulli(salt_key, 0.5, image.shape)
  return jnp.where(hit, salt.astype(image.dtype), image)


def speckle_noise(image: jax.Array, key: jax.Array, sigma: float) -> jax.Array:
  """Adds normal noise in proportion to the value."""
  return image * (1 + sigma * jax.random.normal(key, image.shape))
