"""Networks of one plane and one finding, combined for each finding by a logistic regression.

    python -m medkeras.evaluation.combine RUN RUN ... --out DIR

As in Bien et al., "Deep-learning-assisted diagnosis for knee magnetic resonance imaging", PLOS
Medicine 2018: nine networks, three planes by three findings, and for each finding the planes'
answers weighted by a logistic regression. The paper fitted it on the exams that the networks had
been trained on; here it is fitted on the validation exams, because a network's scores of exams
that it has learned by heart would give most weight to the one that overfits most. Test exams are
only ever predicted.

Each RUN is a run with one finding, or a grid of such runs. Writes predictions.csv and
metrics.json as a run has them, and combination.json: coefficients, numbers of exams, versions.
"""

import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

import medkeras
from medkeras import commands
from medkeras.errors import DataError, MedkerasError, Problem, UsageError
from medkeras.evaluation import records
from medkeras.evaluation.numbers import metrics, paired, singles
from medkeras.evaluation.writing.pages import aligned, number
from medkeras.files import atomic
from medkeras.training.folder import refuse_files

L2 = 1.0  # scikit-learn's C: the inverse of the penalty on standardised logits
FLATTERS = (
    "The coefficients were fitted on the validation exams, so the combination's numbers on the "
    "validation part flatter; the single networks' do too, less, for it only chose their epoch."
)
HEAD = ["finding", "network", "coefficient", "test AUC (95 %)", "exams", "positive"]


@dataclass(frozen=True)
class Combination:
    """The runs of one finding and the logistic regression over their logits.

    Args:
        finding: its name.
        inputs: name of each run: its plane, or its folder.
        tables: predictions of each run, all with the same exams in the same order.
        fitted: content of `combination.json` for this finding.
        predictions: table as those, of the combination; None where it is undefined.
    """

    finding: str
    inputs: list[str]
    tables: list[pd.DataFrame]
    fitted: dict
    predictions: pd.DataFrame | None


def combined(finding, runs) -> Combination:
    """Fits the combination of a finding on the validation exams, and predicts those and the test's.

    Args:
        finding: its name.
        runs: list of `records.Record` with that finding alone.

    Raises:
        DataError: a run has other exams, labels or another split than the first one.
    """
    tables, inputs = singles.tables(runs), singles.names(runs)
    labels = tables[0]["label"].to_numpy(dtype=float)
    logits = np.column_stack([table["logit"] for table in tables])
    n, parts = {}, {}
    for split in ("val", "test"):
        rows = parts[split] = (tables[0]["split"] == split).to_numpy() & np.isfinite(labels)
        n |= {split: int(rows.sum()), f"{split}_positive": int(labels[rows].sum())}
    undefined = _undefined(labels[parts["val"]], len(runs))
    if undefined:
        return Combination(finding, inputs, tables, {"n": n, "undefined": undefined}, None)
    scaler, model = fit(logits[parts["val"]], labels[parts["val"]])
    values = model.decision_function(scaler.transform(logits))
    numbers = zip(model.coef_[0].tolist(), scaler.mean_.tolist(), scaler.scale_.tolist())
    fitted = {
        "n": n,
        "intercept": float(model.intercept_[0]),
        "inputs": [
            {"name": name, "run": run.name, "coefficient": weight, "mean": mean, "scale": scale}
            for name, run, (weight, mean, scale) in zip(inputs, runs, numbers)
        ],
    }
    chances = metrics.probabilities(values, "binary")
    predictions = tables[0].assign(logit=values, probability=chances)
    return Combination(finding, inputs, tables, fitted, predictions)


def fit(logits, labels):
    """Fits standardisation, and a logistic regression with an L2 penalty, on the same exams.

    Args:
        logits: (exams, runs).
        labels: (exams,) 0 or 1, both present.

    Returns:
        (fitted `StandardScaler`, fitted `LogisticRegression`).
    """
    scaler = StandardScaler().fit(logits)
    model = LogisticRegression(C=L2, max_iter=1000)
    return scaler, model.fit(scaler.transform(logits), labels)


def write(folder, members, seed=0) -> str:
    """Combines runs, writes the three files, and returns what to say.

    Args:
        folder: it must exist.
        members: folders of runs with one finding each, or of grids of such.
        seed: of the bootstrap.

    Raises:
        UsageError: a folder is no run.
        DataError: runs that do not belong together, or nothing that could be combined.
    """
    folder, runs, groups = Path(folder), records.read(members), {}
    for run in runs:
        groups.setdefault(singles.finding(run), []).append(run)
    found = [combined(finding, own) for finding, own in groups.items()]
    done = [one for one in found if one.predictions is not None]
    if not done:
        raise DataError(
            [Problem(one.finding, one.fitted["undefined"], "validate on more") for one in found]
        )
    text = _merged(done).to_csv(index=False, float_format="%.9g", lineterminator="\n")
    atomic.write_text(folder / "predictions.csv", text)
    # Measured as written, so that every number can be recomputed from the file.
    predictions = metrics.read(folder / "predictions.csv")
    scores = metrics.measured(predictions, "binary" if len(done) == 1 else "multilabel", seed=seed)
    scores["validation"]["note"] = FLATTERS
    atomic.write_json(folder / "metrics.json", scores)

    rows, notes = [HEAD], []
    for one in found:
        rows += _rows(one, scores, seed)
        notes.append(f"{one.finding}: {_judged(one, seed)}")
    notes += _remarks(runs, predictions)
    content = {
        "findings": {one.finding: one.fitted for one in found},
        "fitted_on": "validation exams",
        "penalty": {"kind": "L2 on the coefficients of standardised logits", "C": L2},
        "synthetic": any(run.synthetic for run in runs),
        "notes": notes,
        "software": {
            "medkeras": medkeras.__version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("scikit-learn", "numpy")},
        },
    }
    atomic.write_json(folder / "combination.json", content)
    return "\n".join([aligned(rows), "", *notes, f"combination: {folder}"])


def main(arguments=None) -> int:
    """Runs the command line above; returns its exit code."""
    parser = commands.parser("python -m medkeras.evaluation.combine", __doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder to write")
    given = parser.parse_args(arguments)
    try:
        refuse_files(given.out)
        if records.is_run(given.out):
            raise UsageError(f"--out {given.out} holds a run: choose another")
        given.out.mkdir(parents=True, exist_ok=True)
        print(write(given.out, given.runs))
    except MedkerasError as fault:
        print(fault, file=sys.stderr)
        return fault.exit_code
    return 0


def _undefined(labels, runs):
    """Why too few validation exams stand behind the numbers to fit; empty where enough do."""
    counts = {"positive": int((labels == 1).sum()), "negative": int((labels == 0).sum())}
    for kind, count in counts.items():
        if count <= runs:
            return (
                f"{count} {kind} validation exam(s), at least {runs + 1} are needed: "
                "as many of each kind as numbers are fitted"
            )
    return ""


def _merged(done):
    """One table of all findings, validation first; NaN where an exam is unknown to a finding."""
    table = None
    for one in done:
        own = _of(one.finding, one.predictions)
        table = own if table is None else table.merge(own, on=singles.KEYS, how="outer")
    return table.sort_values(["split", "path"], ascending=[False, True], ignore_index=True)


def _of(finding, table):
    """Names the columns as `predictions.csv` has them, by the finding."""
    return table.rename(columns={kind: f"{kind}_{finding}" for kind in singles.KINDS})


def _rows(one, scores, seed):
    """Rows of the printed table: the runs of a finding and their combination, on the test exams."""
    weights = [own["coefficient"] for own in one.fitted.get("inputs", ())]
    table = []
    for k, (name, own) in enumerate(zip(one.inputs, one.tables)):
        tested = _of(one.finding, own[own["split"] == "test"])
        alone = metrics.measured(tested, "binary", seed=seed)
        weight = f"{weights[k]:+.2f}" if weights else "-"
        table.append([one.finding, name, weight, *_cells(alone, one.finding)])
    if weights:
        table.append([one.finding, "combination", "", *_cells(scores, one.finding)])
    return table


def _cells(scores, finding):
    entry = scores["classes"][finding]["auc"]
    return [number(entry, 3), str(entry["n"]), str(entry["n_positive"])]


def _judged(one, seed):
    """Compares a combination with the run that was best on validation; keeps and words it."""
    if one.predictions is None:
        return f"undefined: {one.fitted['undefined']}"
    labels = one.tables[0]["label"]
    val = (one.tables[0]["split"] == "val") & labels.notna()
    aucs = [roc_auc_score(labels[val], table["probability"][val]) for table in one.tables]
    best = int(np.argmax(aucs))
    ours, theirs = (
        paired.part(_of(one.finding, table), "test")
        for table in (one.predictions, one.tables[best])
    )
    gap = paired.difference(ours, theirs, seed=seed)
    one.fitted["difference"] = {"from": one.inputs[best], **gap}
    return (
        f"test AUC of the combination minus that of {one.inputs[best]}, which was best on the "
        f"validation part (AUC {aucs[best]:.3f} there): {paired.words(gap)}"
    )


def _remarks(runs, predictions):
    """Sentences without which the numbers could be misread."""
    found = [FLATTERS]
    twice = int(predictions["path"].duplicated().sum())
    if twice:
        found.append(
            f"{twice} exam(s) have two rows in predictions.csv: the networks of different "
            "findings were trained on different splits."
        )
    if any(run.synthetic for run in runs):
        found.append("Synthetic sample data (phantoms): these numbers say nothing about patients.")
    return found


if __name__ == "__main__":
    sys.exit(main())
