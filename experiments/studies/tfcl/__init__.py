"""The study of linear tasks in groups."""
