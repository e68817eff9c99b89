"""How methods rank, by what is measured in training and by the test."""
