"""Runs, stages, frozen features, exact checkpoints, histograms and sweeps."""
