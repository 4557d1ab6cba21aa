"""How well a finished run's Grad-CAM maps point at what radiologists boxed.

    python -m medkeras.evaluation.localise saved_models/chexpert_densenet/20250101-120000-ab12 NIH
    python -m medkeras.evaluation.localise RUN NIH --finding Cardiomegaly --out boxes

NIH is a folder of ChestX-ray14 with BBox_List_2017.csv (`readers.nih`). Its findings are the
run's of the same name, or of the name that CheXpert has for them; Mass and Nodule are both Lung
Lesion then. The map of each picture and finding is compared with all its boxes together, as
`boxes.scores` says: does the hottest point lie in them, how far do they overlap with the hot part
(IoU), and how much of the heat lies inside?

Writes localisation.csv, localisation.json and a PNG for each; the run is not changed. Pictures of
patients that the run learned from are left out: those with a number that a patient of its
training or validation part has. If those were another hospital's patients, equal numbers mean
nothing: say --other-patients.
"""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from medkeras import commands
from medkeras.errors import DataError, MedkerasError, Problem, UsageError
from medkeras.evaluation.evaluate import logits, probabilities
from medkeras.evaluation.heat import boxes, pointing
from medkeras.evaluation.heat.explain_maps import beside, fine, heat
from medkeras.evaluation.heat.gallery import plain
from medkeras.evaluation.heat.overlays_findings import Answer, sheet
from medkeras.evaluation.writing.pages import aligned, percent, share
from medkeras.files import atomic
from medkeras.files.foreign import Unreadable
from medkeras.models import stored
from medkeras.preparation import conform
from medkeras.readers import nih

BATCH = 16
SHOWN = 20  # problems
NUMBER = re.compile(r"(?:patient)?0*(\d+)")
HEAD = ["finding", "pictures", "patients", "point in box", "box covers", "IoU", "heat in box"]


def localise(run, data, out, finding=None, other_patients=False) -> str:
    """Scores a run's maps against boxes, and writes the three kinds of files above.

    Args:
        run: folder of a finished run on single pictures.
        data: folder that `readers.nih` reads.
        out: folder to write, made where it is not there.
        finding: name of the run's finding, or NIH's; None for all that have boxes.
        other_patients: equal numbers of patients mean nothing.

    Returns:
        The table, and what was left out, for the terminal.

    Raises:
        UsageError: the run cannot be used, or none of its findings has a box.
        DataError: the data folder is not as expected, or nothing is left to score.
    """
    run, out = Path(run), Path(out)
    model, predictor = stored.load(run)
    _refuse(run, model, predictor)
    names = predictor["labels"]
    names = names[1:] if predictor["task"] == "binary" else names
    learned = [name for name in names if name not in predictor.get("untrained", [])]
    boxed, notes = _boxed(data, learned, finding)
    if not other_patients:
        boxed, more = _strangers(boxed, run)
        notes += more
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    layer = fine(model, model.feature_map)
    passed = beside(model, layer)
    for row, png in _judged(model, predictor, names, boxed, layer, passed):
        atomic.write_bytes(out / row["file"], png)
        rows.append(row)
    table = pd.DataFrame(rows)
    atomic.write_csv(out / "localisation.csv", table)
    found = {name: _summed(own) for name, own in table.groupby("finding")}
    found["all"] = _summed(table)
    notes += passed
    facts = {"run": run.resolve().name, "layer": layer, "notes": notes}
    atomic.write_json(out / "localisation.json", facts | {"findings": found})
    return "\n".join([aligned([HEAD, *_lines(found)]), *notes, f"localisation: {out}"])


def main(arguments=None) -> int:
    """Runs the command line above; returns its exit code."""
    parser = commands.parser("python -m medkeras.evaluation.localise", __doc__)
    add = parser.add_argument
    add("run", type=Path, help="folder of a finished run on chest X-rays")
    add("data", type=Path, help="folder of ChestX-ray14; nothing is written there")
    add("--out", type=Path, default=Path("localisation"), help="folder to write")
    add("--finding", help="score this one alone, by the run's name or NIH's")
    add("--other-patients", action="store_true", help="equal numbers are not the same patient")
    given = parser.parse_args(arguments)
    try:
        if given.out.resolve().is_relative_to(given.data.resolve()):
            raise UsageError(f"--out {given.out} lies in the data folder: choose another")
        chosen = {"finding": given.finding, "other_patients": given.other_patients}
        print(localise(given.run, given.data, given.out, **chosen))
    except DataError as fault:
        for one in fault.problems[:SHOWN]:
            print(" | ".join(filter(None, (one.path, one.reason, one.remedy))), file=sys.stderr)
        return fault.exit_code
    except MedkerasError as fault:
        print(fault, file=sys.stderr)
        return fault.exit_code
    return 0


def _refuse(run, model, predictor):
    if len(model.inputs) != 1 or not predictor["feature_map"]:
        raise UsageError(f"run {run}: its model has no map of a single picture to explain")
    here = {name: predictor["preprocessing"].get(name) for name in conform.CONFIG}
    if here != conform.CONFIG:
        raise UsageError(f"run {run}: its pictures were prepared by another version; train again")


def _boxed(data, names, finding):
    """Returns the boxes of these findings with `label`, `image` and `patient`, and notes."""
    table, found = nih.read(data), nih.boxes(data)
    notes = [note["reason"] for note in found.attrs["notes"]]
    found["label"] = [own if own in names else nih.AS_CHEXPERT[own] for own in found["finding"]]
    there = found["label"].isin(names)
    if not there.any():
        raise UsageError(
            f"none of what the run learned ({', '.join(names)}) has a box; boxes are of "
            f"{', '.join(found['finding'].unique()) or 'nothing that is there'}"
        )
    if not there.all():
        others = ", ".join(found["finding"][~there].unique())
        notes.append(f"{(~there).sum()} boxes are of nothing that the run learned: {others}")
    found = found[there]
    if finding is not None:
        chosen = (found["label"] == finding) | (found["finding"] == finding)
        if not chosen.any():
            known = ", ".join(sorted(set(found["label"])))
            raise UsageError(f"--finding {finding}: has no box; choose from {known}")
        found = found[chosen]
    return found.merge(table[["path", "image", "patient"]], on="path"), notes


def _strangers(boxed, run):
    """Leaves out pictures of patients that the run learned from."""
    split = pd.read_csv(run / "split.csv", dtype=str)
    learned = {_number(name) for name in split["patient"][split["split"].isin(["train", "val"])]}
    known = boxed["patient"].map(_number).isin(learned)
    count = boxed["path"][known].nunique()
    if known.all():
        reason = f"all {count} pictures with boxes are of patients that the run learned from"
        remedy = "take other pictures, or add --other-patients if the numbers mean nothing"
        raise DataError([Problem(nih.BOXES, f"{reason}: {remedy}", remedy)])
    notes = [f"{count} pictures of patients that the run learned from are left out"]
    return boxed[~known], notes if count else []


def _number(patient):
    found = NUMBER.fullmatch(patient)
    return found[1] if found else patient


def _judged(model, predictor, names, boxed, layer, notes):
    """Yields (row of the csv, PNG) of each picture and finding."""
    shape = tuple(predictor["image_shape"])
    groups = list(boxed.groupby(["path", "label"]))
    for start in range(0, len(groups), BATCH):
        batch = groups[start : start + BATCH]
        pictures = np.stack([_picture(own.iloc[0], shape) for _, own in batch])
        maps = heat(model, [pictures], layer, len(names))
        chances = probabilities(logits(model, [[pictures]])[:, : len(names)], predictor["task"])
        for n, ((path, label), own) in enumerate(batch):
            k, marked = names.index(label), boxes.mask(own, nih.SIZE, shape[:2])
            row = {
                "file": f"{start + n:03d}_{plain(label)}.png",
                "path": path,
                "patient": own["patient"].iloc[0],
                "finding": label,
                "boxed_as": "|".join(sorted(set(own["finding"]))),
                "probability": float(chances[n, k]),
                **boxes.scores(maps[n, k], marked),
                "box": float(marked.mean()),
            }
            words = f"{share(chances[n, k])}, {share(row['inside'])} of heat in box"
            answer = Answer(label, words, maps[n, k], marked)
            yield row, sheet(pictures[n], [answer], None, notes, outline="the radiologist's box")


def _picture(row, shape):
    try:
        return conform.load(row["image"], shape)
    except Unreadable as fault:
        raise DataError([Problem(row["path"], fault.reason, fault.remedy)]) from fault


def _summed(table):
    """Scores of several pictures and findings together; the hits with an interval over patients."""
    hits = pointing.scored(table["hit"], table["box"], table["patient"])
    return {"hit": hits, "iou": table["iou"].mean(), "inside": table["inside"].mean()}


def _lines(found):
    for name, own in found.items():
        hits, means = own["hit"], [own["hit"]["chance"], own["iou"], own["inside"]]
        cells = [name, str(hits["n"]), str(hits["n_patients"]), percent(hits)]
        yield [*cells, share(means[0]), f"{means[1]:.2f}", share(means[2])]


if __name__ == "__main__":
    sys.exit(main())
