"""The study of single claims about methods."""
