"""The study of curricula over tasks and instances."""
