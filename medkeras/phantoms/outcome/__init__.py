"""What is said of a phantom: grades, reports, later loss, and the best score there can be."""
