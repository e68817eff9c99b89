"""The study of sub-models that cooperate."""
