"""The report of a run: one HTML file that opens offline, and a model card beside it.

Neither names a patient, nor a file: paths often hold the patient's number. A picture is named by
its line in `predictions.csv`, which stays with the run.
"""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from medkeras.evaluation import mistakes, report_figures
from medkeras.evaluation.exploration import sizes
from medkeras.evaluation.figures import diagram, plots
from medkeras.evaluation.numbers import grades, metrics
from medkeras.evaluation.writing import card, findings, summary
from medkeras.evaluation.writing.pages import written
from medkeras.preparation import control, copies
from medkeras.training.folder import read

TEMPLATE = Path(__file__).with_name("report.html.j2")


def write(run, model, data, scores, cams=None) -> Path:
    """Writes `report.html` and `README.md` into the run folder.

    Args:
        run: `.folder`, `.experiment`, `.synthetic`; what else the report says is read from the
            files in the folder, and a part without its file is left out.
        model: the model, for the diagram.
        data: `pipeline.Data`.
        scores: from `evaluate.evaluate`.
        cams: from `explain.grad_cam`, or None.

    Returns:
        Path of the report.
    """
    context = _context(run, model, data, scores, cams)
    return written(run.folder, TEMPLATE, context, card.text(run, data, scores, context))


def _context(run, model, data, scores, cams):
    synthetic = bool(run.synthetic)
    environment = read(run.folder / "environment.json")
    described = environment.get("data", {})
    table = data.table
    shown = findings.judged(scores)
    return {
        "experiment": run.experiment,
        "folder": Path(run.folder).name,
        "date": datetime.now(UTC).strftime("%d %B %Y"),
        "synthetic": synthetic,
        "null": control.NULLS.get(described.get("null_control")),
        "task": scores.task,
        "asked": summary.ASKED[scores.views],
        "classes": scores.classes,
        "metrics": scores.metrics,
        "names": findings.ordered(scores.metrics),
        "never": findings.never(data, scores.metrics),
        "labels": findings.labels(data),
        "grades": grades.named(scores.metrics),
        "verdict": summary.verdict(scores, data),
        "words": summary.words(data),
        "data": {
            "root": described.get("root_name", Path(run.data).name),
            "counts": summary.counts(data),
            "alone": bool((table["patient"].astype(str) == table["path"].astype(str)).all()),
            "skipped": _tally(described.get("skipped") or table.attrs.get("skipped") or []),
            "notes": _tally(described.get("notes") or table.attrs.get("notes") or []),
            "image_shape": " × ".join(map(str, data.image_shape)),
        },
        "size": _sizes(data, synthetic),
        "figures": report_figures.drawn(run, data, shown, synthetic),
        "outcomes": _outcomes(shown),
        "mistakes": mistakes.surest(data, shown, synthetic),
        "gallery": cams.items if cams else [],
        "cams": cams,
        "diagram": Markup(diagram.svg(model)),
        "model": _model(model, environment),
        "hyperparameters": {
            name: "none" if value is None else value
            for name, value in _hyperparameters(run.folder).items()
        },
        "sweep": _sweep(run.folder),
        "environment": environment,
    }


def _tally(problems):
    """Counts problems by reason; paths stay out, which often name the patient."""
    reasons = [one["reason"] if isinstance(one, dict) else str(one) for one in problems]
    return Counter(map(copies.unnamed, reasons)).most_common()


def _outcomes(scores):
    test = scores.predictions[scores.predictions["split"] == "test"]
    if scores.task != "multilabel" or test.empty:
        return []
    rows = {row["name"]: row for row in mistakes.outcomes(*metrics.arrays(test))}
    never = scores.metrics.get("untrained", ())
    return [rows[name] for name in findings.ordered(scores.metrics) if name not in never]


def _sizes(data, synthetic):
    # The slices of exams have one size, or the audit refuses them: nothing to study. Nor is there
    # where no picture is seen.
    if summary.words(data)["shown"] or not {"width", "height"} <= set(data.table.columns):
        return None
    widths, heights = data.table["width"], data.table["height"]
    found = sizes.study(widths, heights)
    drawn = plots.sizes(widths, heights, found["centres"], found["recommended"], synthetic)
    return found | {"figure": drawn, "centres": found["centres"].round().astype(int).tolist()}


def _model(model, environment):
    total = model.count_params()
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    return {
        "name": model.name,
        "function": (getattr(model, "recipe", None) or {}).get("function"),
        "layers": len(model.layers),
        "parameters": total,
        "trainable": trainable,
        "weights": environment.get("weights_origin") or getattr(model, "weights_origin", None),
    }


def _hyperparameters(folder):
    found = read(folder / "hyperparameters.json")
    return found.get("values", found)


def _sweep(folder):
    path = folder / "tuning" / "trials.csv"
    if not path.is_file():
        return None
    trials = pd.read_csv(path)
    values = _hyperparameters(folder)
    searched = [name for name in trials.columns if name in values]
    won = np.ones(len(trials), dtype=bool) if searched else np.zeros(len(trials), dtype=bool)
    for name in searched:
        won &= [_same(cell, values[name]) for cell in trials[name]]
    rows = trials.astype(object).where(trials.notna(), None).to_numpy().tolist()
    return {
        "columns": list(trials.columns),
        "rows": [
            {"cells": ["" if c is None else _plain(c) for c in row], "won": bool(one)}
            for row, one in zip(rows, won, strict=True)
        ],
        "failed": int((~trials["status"].isin(["COMPLETED", "completed"])).sum()),
    }


def _same(cell, value):
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = pd.to_numeric(cell, errors="coerce")
        return bool(np.isclose(number, value, rtol=1e-9, atol=0))
    return str(cell) == str(value)


def _plain(cell):
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)
