"""Table to batches: checks, splits, the stored pictures, augmentation, pipelines."""
