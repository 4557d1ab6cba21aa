"""What the report and the card say of a run's data and result: words, counts, verdict."""

import numpy as np

from medkeras.preparation import risks, splits

PARTS = {"train": "training", "val": "validation", "test": "test"}
GUESS = 0.5  # the AUC of guessing
ASKED = {  # see `evaluate.logits`
    1: "",
    2: "Each answer is the mean of those to the picture and to its mirror image.",
    6: "Each answer is the mean of those to the picture and its mirror image, at three sizes.",
}
FINDINGS = {
    "around": "It includes 0.5 for {}: no gain over guessing is shown there.",
    "below": "It lies below 0.5 for {}: worse than guessing.",
    "few": "Too few patients for an interval: {}.",
    "undefined": "Undefined, for want of known positives or negatives in the test part: {}.",
    "never": "Never trained, for want of positives or negatives in the training part: {}.",
}


def words(data) -> dict:
    """Names what the rows and labels of a data set are, and what a picture of a row shows.

    Args:
        data: `pipeline.Data`.

    Returns:
        "unit", "units": of rows; "label", "labels": "class" or "finding"; "shown": a sentence on
        the pictures, empty where they are what the model receives; "input": what it receives.
    """
    found = {"unit": data.unit, "units": f"{data.unit}s", "label": "class", "labels": "classes"}
    if data.findings:
        found |= {"label": "finding", "labels": "findings"}
    size = " × ".join(map(str, data.image_shape))
    shape = f"{size} (height, width, channels), raw pixels 0..255"
    if isinstance(data, risks.Data):
        columns = data.risks.columns
        factors = f"{len(columns)} risk factors: {', '.join(columns)}"
        if not data.seen:
            return found | {"shown": "The model sees no picture.", "input": factors}
        return found | {"shown": "", "input": f"{shape}, and {factors}"}
    if data.unit == "picture":
        return found | {"shown": "", "input": shape}
    first, planes = data.planes[0], ", ".join(data.planes)
    return found | {
        "shown": f"Of each {data.unit}, the middle slice of its {first} plane is shown.",
        "input": f"all slices of each plane ({planes}), each {shape}",
    }


def counts(data) -> dict:
    """Counts the rows and patients of each class, or with each finding, in each part.

    Args:
        data: `pipeline.Data`.

    Returns:
        "parts": names, "all" last. "rows": a name and one cell a part each, the total last. A cell
        has `n` and `patients`; a finding's also `known` and `unknown`, the rows of the part
        in which it is stated or not, so that its prevalence is n / known.
    """
    table, findings = data.table, list(data.findings)
    known = table[findings].notna().groupby(table["split"]).sum()
    known.loc["all"] = known.sum()
    if findings:
        table = table[["patient", "split", *findings]]
        table.attrs = {"labels": findings}
    parts = [part for part in splits.SIDES if part in set(table["split"])]
    # A block for each class or finding, a line for each side and for all of them.
    blocks = splits.counts(table).to_numpy().reshape(-1, len(splits.SIDES) + 1, 4)
    rows = [
        {
            "name": block[0][0],
            "cells": [
                {"part": side, "n": n, "patients": patients}
                for _, side, n, patients in block
                if side in (*parts, "all")
            ],
        }
        for block in blocks
    ]
    if findings:
        rows[-1]["name"] = f"all {data.unit}s"
    for name, row in zip(findings, rows, strict=False):
        for cell, whole in zip(row["cells"], rows[-1]["cells"], strict=True):
            cell["known"] = int(known.loc[cell["part"], name])
            cell["unknown"] = whole["n"] - cell["known"]
    return {"parts": [PARTS[part] for part in parts] + ["all"], "rows": rows}


def verdict(scores, data) -> dict:
    """Says in plain words what the test numbers mean beside a baseline.

    Of classes that exclude each other it is the accuracy of always giving the commonest answer,
    of findings the AUC of guessing.

    Args:
        scores: from `evaluate.evaluate`.
        data: `pipeline.Data`.

    Returns:
        "words"; of classes also "common" and "baseline"; of findings "above", "around", "below",
        "few", "undefined" and "never": the names of those whose interval lies above, around or
        below 0.5, that have too few patients for one, that have no AUC, and that were never
        trained.
    """
    if data.findings:
        return _of_findings(scores.metrics)
    found, label = scores.metrics["accuracy"], data.train.labels
    common = scores.classes[int(np.bincount(label, minlength=len(scores.classes)).argmax())]
    baseline = scores.metrics["majority_accuracy"]
    said = {
        "above": "The whole interval lies above that baseline.",
        "around": "The interval includes the baseline: no gain over it is shown.",
        "below": "That is worse than the baseline.",
        "few": "Too few patients in the test part for an interval: read this as a trial of the "
        "method.",
        "undefined": "No comparison with a baseline can be made here.",
    }
    place, auc = _place(found, baseline), scores.metrics["mean"]["auc"]
    words = said[place]
    if place in ("around", "below") and _place(auc, GUESS) == "above":
        # Trained with the classes weighed alike, a model seldom beats the commonest answer.
        words += (
            f" The interval of the AUC, {auc['low']:.2f} to {auc['high']:.2f}, lies above {GUESS}: "
            "it does tell the classes apart, at other thresholds than one half."
        )
    return {"common": common, "baseline": baseline, "words": words}


def _of_findings(found):
    classes, never = found["classes"], found.get("untrained", ())
    names = {place: [] for place in ("above", *FINDINGS)}
    for name, own in classes.items():
        names["never" if name in never else _place(own["auc"], GUESS)].append(name)
    some = f": {', '.join(names['above'])}" if names["above"] else ""
    said = [
        f"The whole interval of the AUC lies above {GUESS}, the value of guessing, for "
        f"{len(names['above']) or 'none'} of {len(classes)} findings{some}."
    ]
    if len(names["few"] + names["undefined"] + names["never"]) == len(classes):
        said = ["No finding has an interval of its AUC: read this as a trial of the method."]
    for place, text in FINDINGS.items():
        if names[place]:
            said.append(text.format(", ".join(names[place])))
    if names["above"] and len(classes) > 1:
        said.append(
            "Each is judged alone: one that cannot be told at all would still lie above once in "
            "40 times."
        )
    return names | {"words": " ".join(said)}


def _place(entry, baseline):
    """Where an interval lies: "above", "below" or "around" the baseline, "few", "undefined"."""
    if entry["value"] is None or baseline is None:
        return "undefined"
    if entry["low"] is None:
        return "few"
    if entry["low"] > baseline:
        return "above"
    return "below" if entry["high"] < baseline else "around"
