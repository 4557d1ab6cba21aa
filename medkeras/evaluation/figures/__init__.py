"""Plots as PNG bytes."""
