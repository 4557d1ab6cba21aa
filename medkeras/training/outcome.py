"""What a run found, in a line for the terminal: read from its `metrics.json`."""

from medkeras.training import folder


def overall(metrics) -> dict:
    """The AUC that a run stands for: of the scored findings where there are some, else the mean.

    Args:
        metrics: content of `metrics.json`.

    Returns:
        {value, low, high, ...}.
    """
    return metrics.get("scored", metrics["mean"])["auc"]


def line(run_folder) -> str | None:
    """Says what the test part showed; None where the page wrote no numbers of this kind."""
    metrics = folder.read(run_folder / "metrics.json")
    if "heads" in metrics:
        each = [f"{name} {_said(own)}" for name, own in metrics["heads"].items()]
        return f"test part: {'; '.join(each)}"
    return f"test part {_said(metrics)}" if "classes" in metrics else None


def _said(metrics):
    of = "mean AUC of the scored findings" if "scored" in metrics else "mean AUC"
    auc = overall(metrics)
    said = f"{'AUC' if len(metrics['classes']) == 1 else of} {_number(auc)}"
    if "kappa" in metrics:
        said = f"kappa {_number(metrics['kappa'])}, {said}"
    if metrics["task"] != "multilabel":
        said = f"accuracy {_number(metrics['accuracy'])}, {said}"
    return f"(n = {metrics['n']}, {metrics['n_patients']} patients): {said}"


def _number(entry):
    if entry["value"] is None:
        return f"undefined ({entry['undefined']})"
    if entry["low"] is None:
        return f"{entry['value']:.3f} (no interval: too few patients, or answers all alike)"
    return f"{entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f})"
