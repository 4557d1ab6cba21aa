"""Asks a finished run about pictures: one line of JSON for each, in the order given.

    python -m medkeras.serving.predict RUN FILE [FILE ...]
    python -m medkeras.serving.predict saved_models/bone_xception/20250101-120000-ab12 xrays/
    python -m medkeras.serving.predict RUN FILE [FILE ...] --risks TABLE.csv

    {"path": "xrays/1.png", "probabilities": {"healthy": 0.93, "fractured": 0.07}}
    {"path": "xrays/2.png", "error": "is empty", "remedy": "copy or download it again"}

A folder stands for the pictures in and below it, masks apart. Of grades, "grade" is the most
probable one. Findings that the run was never trained on are named under "untrained" and have no
probability. Pictures are decoded and brought to their size as in training. A run that knows risk
factors reads them from a table, see `risk_table`.

Nothing else is written to the standard output. Exit code 0, or 3 where a picture has no answer,
2 for arguments that cannot be used.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from medkeras import commands
from medkeras.errors import DataError, MedkerasError, UsageError
from medkeras.evaluation import evaluate
from medkeras.evaluation.numbers import metrics
from medkeras.files.foreign import Unreadable
from medkeras.models import stored
from medkeras.preparation import conform
from medkeras.readers import listing
from medkeras.serving import risk_table

BATCH = 32
TASKS = ("binary", "multiclass", "multilabel", "ordinal")
RISKS = "risk"  # the model's input of risk factors; any other one is the picture


class Predictor:
    """A finished run, loaded, that answers for single pictures.

    Args:
        folder: of the run.
        risks: path of a table of risk factors, for a run that knows them.

    Raises:
        UsageError: no finished run, one whose pictures cannot be prepared here, or a table that
            does not fit it.
        DataError: the table cannot be read.
    """

    def __init__(self, folder, risks=None):
        self.model, self.run = stored.load(folder)
        _refuse(folder, self.model, self.run)
        self.labels, self.task = self.run["labels"], self.run["task"]
        self.untrained = self.run.get("untrained", [])
        self.inputs = [tensor.name for tensor in self.model.inputs]
        columns = self.run.get("risks", {}).get("columns", ())
        if columns and not risks:
            raise UsageError(
                f"run {folder} knows risk factors too: give --risks TABLE.csv with a column path "
                f"or ID, and {', '.join(columns)}"
            )
        if risks and not columns:
            raise UsageError(f"--risks: run {folder} knows no risk factors; leave it out")
        self.table = risk_table.read(risks, self.run["risks"]) if risks else None

    def answers(self, files):
        """Answers for each picture, in order, as soon as its batch is computed.

        Args:
            files: paths of pictures and folders.

        Yields:
            Dicts as they are printed.
        """
        files = [one for file in files for one in _expanded(file)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(files), BATCH):
                batch = files[start : start + BATCH]
                read = list(pool.map(self._read, batch))
                whole = [one for one in read if isinstance(one, list)]
                said = iter(self._said([np.stack(part) for part in zip(*whole)]) if whole else ())
                for (path, _), one in zip(batch, read):
                    yield {"path": path} | (next(said) if isinstance(one, list) else one)

    def _read(self, file):
        """Makes what the model takes of a file, as a list; or says what is wrong, as a dict."""
        path, refused = file
        try:
            return refused or [
                self.table.of(path) if name == RISKS else conform.load(path, self._shape)
                for name in self.inputs
            ]
        except Unreadable as fault:
            return _refused(fault.reason, fault.remedy)

    @property
    def _shape(self):
        return tuple(self.run["image_shape"])

    def _said(self, arrays):
        logits = evaluate.logits(self.model, [arrays], self.run.get("views", 1))
        # Findings with a third class, uncertain, have as many logits again: see `evaluate`.
        logits = logits[:, : len(self.labels)]
        # Here a calibration would change them; `_refuse` lets none pass by.
        chances = metrics.probabilities(logits, self.task)
        if self.task == "binary":
            chances = np.hstack([1 - chances, chances])
        return [self._answer(row) for row in chances]

    def _answer(self, chances):
        if not np.isfinite(chances).all():
            return _refused("gets an answer that is no number", "train the run again")
        each = zip(self.labels, evaluate.as_written(chances).tolist())
        answer = {"probabilities": {name: p for name, p in each if name not in self.untrained}}
        if self.task == "ordinal":
            answer["grade"] = int(chances.argmax())
        return answer | ({"untrained": self.untrained} if self.untrained else {})


def probabilities(folder, files, risks=None) -> list[dict]:
    """Asks a finished run about pictures.

    Args:
        folder: of the run.
        files: paths of pictures and folders.
        risks: path of a table of risk factors, for a run that knows them.

    Returns:
        A dict for each picture, as it is printed.

    Raises:
        UsageError, DataError: as of `Predictor`.
    """
    return list(Predictor(folder, risks).answers(files))


def main(argv=None) -> int:
    """Runs the command; returns its exit code: 0, 2 (usage), 3 (not all answered), 130."""
    parser = commands.parser("python -m medkeras.serving.predict", __doc__)
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    parser.add_argument("files", nargs="+", metavar="FILE", help="picture, or folder of pictures")
    parser.add_argument("--risks", metavar="TABLE", help="risk factors, csv")
    flags = parser.parse_args(argv)
    lines, failed = sys.stdout, False
    try:
        with redirect_stdout(sys.stderr):  # what a library prints is no answer
            for answer in Predictor(flags.run, flags.risks).answers(flags.files):
                failed |= "error" in answer
                print(json.dumps(answer, allow_nan=False), file=lines, flush=True)
    except MedkerasError as fault:
        print(f"predict: {fault}", file=sys.stderr)
        return fault.exit_code
    except KeyboardInterrupt:
        return 130
    return DataError.exit_code if failed else 0


def _refuse(folder, model, run):
    """Refuses a run whose pictures cannot be prepared, or whose answers not be read, here."""

    def refuse(reason):
        return UsageError(f"run {folder}: {reason}")

    if "heads" in run:
        named = " or ".join(str(Path(folder, name)) for name in run["heads"])
        raise refuse(f"has several heads, each a run of its own: ask {named}")
    if run.get("task") not in TASKS:
        raise refuse(f"its task is {run.get('task')}, expected {', '.join(TASKS)}")
    prepared, labels = run.get("preprocessing", {}), run.get("labels", [])
    if "planes" in prepared:
        planes = ", ".join(prepared["planes"])
        raise refuse(f"it reads exams ({planes}), not pictures; volumes come later")
    if {name: prepared.get(name) for name in conform.CONFIG} != conform.CONFIG:
        raise refuse("its pictures were prepared in another way than today; train it again")
    if run.get("calibration") is not None:
        raise refuse("its probabilities are calibrated in a way that this version does not know")
    outputs = {"binary": [1], "multilabel": [len(labels), 2 * len(labels)]}
    fits = model.output_shape[-1] in outputs.get(run["task"], [len(labels)])
    if not fits or any(tensor.name == RISKS for tensor in model.inputs) != ("risks" in run):
        raise refuse("predictor.json does not fit its model; train it again")


def _expanded(file):
    """Lists pictures: a path and None, or what is wrong with it; a folder stands for its own."""
    if not Path(file).is_dir():
        return [(str(file), None)]
    problems = []
    paths = listing.pictures(Path(file).resolve(), problems, skip=("masks",))
    found = [(str(Path(file, path)), None) for path in paths]
    found += [(str(Path(file, one.path)), _refused(one.reason, one.remedy)) for one in problems]
    return found or [(str(file), _refused("holds no pictures", "name a folder of PNG or JPEG"))]


def _refused(reason, remedy):
    return {"error": reason, "remedy": remedy}


if __name__ == "__main__":
    sys.exit(main())
