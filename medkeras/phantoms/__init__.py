"""Synthetic data sets with known truth, written in the layout of the real ones."""
