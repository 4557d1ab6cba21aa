"""The report and the card of a model of two heads: short, with links to those of each head.

Neither names a patient or a file.
"""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from medkeras.evaluation.figures import curves
from medkeras.evaluation.numbers import grades
from medkeras.evaluation.writing import summary
from medkeras.evaluation.writing.markdown import entry, plain, table
from medkeras.evaluation.writing.pages import written
from medkeras.preparation import splits
from medkeras.training.folder import read

TEMPLATE = Path(__file__).with_name("heads.html.j2")
TITLES = {"kl": "KL grade", "jsl": "joint space loss"}
NOT_STATED = "_not stated_"


def write(run, model, data, scores) -> Path:
    """Writes `report.html` and `README.md` into the run folder.

    Args:
        run: `.folder`, `.experiment`, `.synthetic`, `.seed`; what else they say is read from the
            files in the folder.
        model: from `fusion.multitask`.
        data: from `preparation.heads.both`.
        scores: from `heads_scores.each`.

    Returns:
        Path of the report.
    """
    context = _context(run, model, data, scores)
    return written(run.folder, TEMPLATE, context, _card(context))


def _context(run, model, data, scores):
    environment = read(run.folder / "environment.json")
    used = read(run.folder / "hyperparameters.json")
    history = pd.read_csv(run.folder / "history.csv")
    return {
        "experiment": run.experiment,
        "folder": Path(run.folder).name,
        "date": datetime.now(UTC).strftime("%d %B %Y"),
        "synthetic": bool(run.synthetic),
        "heads": [_head(name, own, data) for name, own in scores.items()],
        "labels": _labels(data),
        "data": {
            "root": environment["data"]["root_name"],
            "image_shape": " × ".join(map(str, data.image_shape)),
        },
        "history": curves.learned(history, bool(run.synthetic)),
        "model": {
            "function": model.recipe["function"],
            "layers": len(model.layers),
            "parameters": model.count_params(),
            "weights": model.weights_origin,
        },
        "monitor": used["stage_1"]["monitor"],
        "swept": (run.folder / "tuning" / "trials.csv").is_file(),
        "hyperparameters": used["values"],
        "environment": environment,
        "seed": run.seed,
    }


def _head(name, scores, data):
    """What is said of a head: its numbers by title, what they are worth, where more stands."""
    found, view = scores.metrics, data.head(name)
    numbers = grades.named(found) or {"area under the ROC curve": found["mean"]["auc"]}
    return {
        "name": name,
        "title": TITLES[name],
        "metrics": found,
        "numbers": {"accuracy": found["accuracy"], **numbers},
        "verdict": summary.verdict(scores, view),
    }


def _labels(data):
    """Counts knees, patients, and the known and unknown labels of each head, by part."""
    rows = [(summary.PARTS[side], data.table[data.table["split"] == side]) for side in splits.SIDES]
    return [
        {
            "part": part,
            "knees": len(own),
            "patients": int(own["patient"].nunique()),
            "known": {name: int(own[name].notna().sum()) for name in TITLES},
            "unknown": {name: int(own[name].isna().sum()) for name in TITLES},
        }
        for part, own in [*rows, ("all", data.table)]
    ]


def _card(context):
    environment, model = context["environment"], context["model"]
    parts = [f"# {plain(context['experiment'])}", "**Research use only, not a medical device.**"]
    if context["synthetic"]:
        parts.append(
            "> **Synthetic sample data (phantoms).** These numbers say nothing about patients."
        )
    numbers = [
        [head["title"], title, entry(found), str(found["n"])]
        for head in context["heads"]
        for title, found in head["numbers"].items()
    ]
    counts = [
        [row["part"], str(row["knees"]), str(row["patients"])]
        + [f"{row['known'][name]} ({row['unknown'][name]} unknown)" for name in TITLES]
        for row in context["labels"]
    ]
    settings = ", ".join(
        f"{plain(name)} = {plain(value)}" for name, value in context["hyperparameters"].items()
    )
    parts += [
        "One trunk with two heads: KL grade, and joint space loss (JSL) in the years after. Each "
        "head is a run of its own with report, card and model, which is what to load, to serve "
        "and to compare: [kl](kl/README.md), [jsl](jsl/README.md). This page is about both.",
        "## Model",
        f"`{model['function']}`, {model['layers']} layers, {model['parameters']:,} parameters. "
        f"Initial weights: {plain(model['weights'])}. "
        f"Input {context['data']['image_shape']} (height, width, channels), raw pixels 0..255.",
        "## Data",
        f"Folder {plain(context['data']['root'])}. Source and licence: {NOT_STATED}.",
        table(["part", "knees", "patients", *TITLES.values()], counts),
        "No patient is on two sides of the split. An unknown label adds nothing to the loss and is "
        "not judged by; the other label of that knee is.",
        "## Results on the test part",
        table(["head", "number", "value (95 % interval)", "knees"], numbers),
        "Intervals by resampling patients.",
        "## Training",
        f"{settings}. Seed {context['seed']}. Epoch chosen by {plain(context['monitor'])}.",
        "## Limits",
        "One split, one seed; no external test set. More in the cards of the heads.",
        f"medkeras {plain(environment.get('medkeras', ''))}. Contact and citation: {NOT_STATED}.",
    ]
    return "\n\n".join(parts) + "\n"
