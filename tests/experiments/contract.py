"""What a run folder holds, as saved_models/README.md promises."""

FILES = (
    "status.json predictor.json hyperparameters.json environment.json split.csv history.csv "
    "predictions.csv metrics.json model.keras report.html README.md"
).split()
