"""The study of curves of trade-offs."""
