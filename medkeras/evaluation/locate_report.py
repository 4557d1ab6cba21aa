"""The report and the card of a locator: one HTML file that opens offline, and a README.md.

Neither names a patient or a file; a knee is named by its line in `predictions.csv`.
"""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from medkeras.evaluation import locate
from medkeras.evaluation.figures import canvas, curves
from medkeras.evaluation.writing.markdown import entry, plain, table
from medkeras.evaluation.writing.pages import share, written
from medkeras.preparation import copies, jointless, splits

TEMPLATE = Path(__file__).with_name("locate.html.j2")
SHOWN, COLUMNS = 20, 5
PARTS = {"train": "training", "val": "validation", "test": "test"}
NOT_STATED = "_not stated_"


def write(run, model, data, found) -> Path:
    """Writes `report.html` and `README.md` into the run folder.

    Args:
        run: `.folder`, `.experiment`, `.synthetic`, `.seed`.
        model: the locator.
        data: `preparation.boxes.Data`.
        found: from `locate.evaluate`.

    Returns:
        Path of the report.
    """
    context = _context(run, model, data, found)
    return written(run.folder, TEMPLATE, context, _card(context))


def boxed(pictures, true, found, titles, synthetic=False) -> bytes:
    """Draws knees with their boxes as PNG: the true one dashed, the found one solid.

    Args:
        pictures: uint8 (n, height, width, 1).
        true: boxes (n, 4) as `halves.BOX`.
        found: the same.
        titles: one a picture.
        synthetic: writes "synthetic data" on it.
    """
    figure, axes = canvas.axes(len(pictures), 2, 2.15, min(COLUMNS, len(pictures)))
    looks = (true, {"color": canvas.COLOURS[5], "ls": (0, (4, 3))}), (found, {"color": "#56B4E9"})
    for n, (axis, picture, title) in enumerate(zip(axes, pictures, titles, strict=True)):
        axis.imshow(picture[..., 0], cmap="gray", vmin=0, vmax=255)
        for boxes, look in looks:
            size = np.array(picture.shape[1::-1])
            centre, half = boxes[n, :2] * size - 0.5, boxes[n, 2:] * size / 2
            (left, top), (right, bottom) = centre - half, centre + half
            corners = [left, right, right, left, left], [top, top, bottom, bottom, top]
            axis.plot(*corners, lw=1.4, **look)
        axis.set_title(title, fontsize=8)
        axis.set(xlim=(-0.5, size[0] - 0.5), ylim=(size[1] - 0.5, -0.5))
        axis.axis("off")
    return canvas.png(figure, synthetic)


def _context(run, model, data, found):
    synthetic = bool(run.synthetic)
    environment = _json(run.folder / "environment.json")
    described = environment.get("data", {})
    settings = _json(run.folder / "hyperparameters.json")
    return {
        "experiment": run.experiment,
        "folder": Path(run.folder).name,
        "date": datetime.now(UTC).strftime("%d %B %Y"),
        "synthetic": synthetic,
        "metrics": found.metrics,
        "least": locate.FOUND,
        "kinds": jointless.KINDS,
        "data": {
            "root": described.get("root_name", Path(run.data).name),
            "counts": _counts(data),
            "skipped": _tally(data.table.attrs.get("skipped") or []),
            "notes": _tally(data.table.attrs.get("notes") or []),
            "image_shape": " × ".join(map(str, data.image_shape)),
        },
        "figures": _figures(run, data, found, synthetic),
        "model": {
            "function": model.recipe["function"],
            "layers": len(model.layers),
            "parameters": model.count_params(),
        },
        "hyperparameters": settings.get("values", {}) | _shown(settings.get("augmentation") or {}),
        "environment": environment,
        "seed": run.seed,
    }


def _figures(run, data, found, synthetic):
    test = found.predictions[found.predictions["split"] == "test"]
    worst = np.argsort(test["iou"].to_numpy(), kind="stable")[:SHOWN]
    titles = [
        f"line {row.Index + 2}: IoU {row.iou:.2f}, conf. {row.confidence:.2f}"
        for row in test.iloc[worst].itertuples()
    ]
    drawn = data.test.pictures(worst), data.test.labels[worst], found.answers[worst, :4]
    figures = {
        "worst": boxed(*drawn, titles, synthetic),
        "spread": _spread(test, found.metrics["threshold"], synthetic),
    }
    history = run.folder / "history.csv"
    if history.is_file() and len(records := pd.read_csv(history)):
        figures["history"] = curves.learned(records, synthetic)
    return figures


def _spread(test, threshold, synthetic):
    figure, (left, right) = canvas.axes(2, 4.6, 2.9)
    left.hist(test["iou"], bins=np.linspace(0, 1, 41), color=canvas.colour(0))
    left.axvline(locate.FOUND, color=canvas.PALE, lw=1, ls="--")
    left.set(xlabel="IoU of true and found box", ylabel="test knees", xlim=(0, 1))
    right.plot(test["confidence"], test["iou"], ".", ms=4, color=canvas.colour(0))
    if threshold is not None:
        right.axvline(threshold, color=canvas.PALE, lw=1, ls="--")
    right.axhline(locate.FOUND, color=canvas.PALE, lw=1, ls="--")
    right.set(xlabel="confidence", ylabel="IoU", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    return canvas.png(figure, synthetic)


def _counts(data):
    rows = [(PARTS[side], data.table[data.table["split"] == side]) for side in splits.SIDES]
    return [
        {
            "part": part,
            "films": int(own["path"].nunique()),
            "knees": len(own),
            "patients": int(own["patient"].nunique()),
        }
        for part, own in [*rows, ("all", data.table)]
    ]


def _tally(problems):
    """Counts problems by reason; paths stay out, which often name the patient."""
    return Counter(copies.unnamed(one["reason"]) for one in problems).most_common()


def _shown(augmentation):
    return {f"augmentation: {name}": value for name, value in augmentation.items()}


def _card(context):
    found, environment, data = context["metrics"], context["environment"], context["data"]
    parts = [f"# {plain(context['experiment'])}", "**Research use only, not a medical device.**"]
    if context["synthetic"]:
        parts.append(
            "> **Synthetic sample data (phantoms).** These numbers say nothing about patients."
        )
    counts = [
        [row["part"], *(str(row[name]) for name in ("films", "knees", "patients"))]
        for row in data["counts"]
    ]
    refused = [
        [f"{kind}: {context['kinds'][kind]}", f"{own['confident']} of {own['n']}"]
        for kind, own in found["jointless"].items()
    ]
    model = context["model"]
    settings = ", ".join(f"{plain(k)} = {plain(v)}" for k, v in context["hyperparameters"].items())
    parts += [
        "## Intended use",
        "Cutting single knees out of frontal films like those it was trained on, for research: "
        "`python -m medkeras.serving.crop IN OUT --model RUN`. "
        f"Intended users, setting and population: {NOT_STATED}.",
        "## Out of scope",
        "Diagnosis or any decision about a patient; lateral films; films of another body part, "
        "modality or source than the training data. A confident answer does not prove that the "
        "film shows a knee.",
        "## Model",
        f"`{model['function']}`, {model['layers']} layers, {model['parameters']:,} parameters, "
        f"random initial weights. Input {data['image_shape']} (height, width, channels): one half "
        "of a film, left ones mirrored, padded to be square.",
        "## Data",
        f"Folder {plain(data['root'])}. Source and licence: {NOT_STATED}.",
        table(["part", "films", "knees", "patients"], counts),
        "No patient is on two sides of the split. Films left out because they could not be read: "
        f"{sum(count for _, count in data['skipped'])}.",
        "## Results on the test part",
        f"Share of the knees with an IoU of at least {context['least']:g}: "
        f"{entry(found['accuracy'])}; always answering the mean box of the training part: "
        f"{found['baseline']['found']:.3f}. Mean IoU {entry(found['mean']['iou'])}. "
        f"{found['n']} knees of {found['n_patients']} patients; 95 % intervals by resampling "
        "patients.",
        _threshold_said(found),
        table(["pictures without a joint", "confident all the same"], refused),
        "## Training",
        f"{settings}. Seed {context['seed']}.",
        "## Limits",
        "One split, one seed; no external test set. The pictures without a joint are made of the "
        f"test part's own. Performance by sex, age, prosthesis or scanner: {NOT_STATED}.",
        "## How to load",
        "```python\nfrom medkeras.models import stored\n\nmodel, predictor = stored.load(RUN)\n```",
        f"medkeras {plain(environment.get('medkeras', ''))}. Contact and citation: {NOT_STATED}.",
    ]
    return "\n\n".join(parts) + "\n"


def _threshold_said(found):
    if found["threshold"] is None:
        return "No validation knee was found, so there is no threshold: **do not crop with it**."
    return (
        f"Threshold of confidence {found['threshold']:.3f}, chosen on the validation part; "
        f"{share(found['confident']['value'])} of the test knees lie above it. Of those "
        f"{entry(found['found_if_confident'])} have the IoU."
    )


def _json(path):
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
