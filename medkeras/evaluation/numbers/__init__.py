"""Scores, intervals and tests: from labels and probabilities alone."""
