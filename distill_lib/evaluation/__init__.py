"""Evaluation: predictions on a split, and the numbers that are read from them."""
