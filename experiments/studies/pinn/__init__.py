"""The study of physics-informed networks."""
