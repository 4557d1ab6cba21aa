"""Whom a run's starting weights have seen: none of them may be tested or validated on again.

A run that starts from another run's weights (`--weights RUN`) has learned from that one's training
patients, and from those of the runs before it. `check` refuses a split that judges by any of them;
`follow` makes one that does not. `keep` writes down who they are, so that a run knows it of all
before it, also when those are gone:

    lineage.csv    patient: everyone that the starting weights were trained on

Patients are compared by the text of their id, whatever the layout of the two data sets. One who
has another id there is not found: films that were imported under pseudonyms do not match the ids
of the same people in a published table.
"""

from pathlib import Path

import pandas as pd

from medkeras.errors import DataError, Problem
from medkeras.files import atomic
from medkeras.preparation.splits import SIDES

KEPT = "lineage.csv"
JUDGING = ("val", "test")


def check(weights, table) -> None:
    """Refuses a split that judges by patients whom the starting weights were trained on.

    Args:
        weights: as of `--weights`; only the folder of a run is looked at.
        table: rows with `patient` and `split`.

    Raises:
        DataError: patients of the validation or test part were trained on; says how many. Or
            nothing says whom the run was trained on.
    """
    if not _is_run(weights):
        return
    trained, problems = _trained(Path(weights)), []
    for side in JUDGING:
        own = set(table.loc[table["split"] == side, "patient"].astype(str))
        seen = len(own & trained)
        if seen:
            problems.append(
                Problem(
                    str(weights),
                    f"was trained on {seen} of the {len(own)} patients of the {side} part",
                    "divide the patients as that run did (lineage.follow), or start from a run "
                    "that has the same split, or from other weights",
                )
            )
    if problems:
        raise DataError(problems)


def follow(weights, table) -> pd.DataFrame:
    """Puts the patients of a run on the sides that they had there, so that `check` is content.

    Whom any run before was trained on is trained on again. The others of that run stay where they
    validated or tested it, and those it did not know keep their side. Patients that the audit
    joined (column `group`) move together.

    Args:
        weights: as of `--weights`; without the folder of a run nothing is moved.
        table: from `splits.by_patient`.

    Returns:
        A copy of the table with that `split`.

    Raises:
        DataError: nothing says whom the run was trained on, or a side is left without patients.
    """
    if not _is_run(weights):
        return table
    split = _split(Path(weights))
    order = dict(zip(SIDES, range(len(SIDES))))
    sides = dict(zip(split["patient"], split["split"].map(order)))
    sides |= dict.fromkeys(_trained(Path(weights)), order["train"])
    moved, groups = table.copy(), table["group" if "group" in table else "patient"]
    first = table["patient"].astype(str).map(sides).groupby(groups).transform("min")
    moved["split"] = first.map(dict(enumerate(SIDES))).fillna(table["split"])
    empty = [side for side in SIDES if not (moved["split"] == side).any()]
    if empty:
        reason = f"knows so many of the patients that none is left for the part {empty[0]}"
        raise DataError([Problem(str(weights), reason, "start from other weights")])
    return moved


def keep(weights, folder) -> None:
    """Writes down whom the starting weights of a run were trained on.

    Args:
        weights: as of `--weights`; without the folder of a run nothing is written.
        folder: of the run that starts from them.

    Raises:
        DataError: nothing says whom the run was trained on.
    """
    if _is_run(weights):
        patients = pd.DataFrame({"patient": sorted(_trained(Path(weights)))})
        atomic.write_csv(Path(folder) / KEPT, patients)


def _is_run(weights):
    return bool(weights) and (Path(weights) / "predictor.json").is_file()


def _trained(run):
    """Patients that a run and all before it were trained on, as texts."""
    split = _split(run)
    before = _read(run / KEPT, ["patient"]) if (run / KEPT).is_file() else split[:0]
    return {*split.loc[split["split"] == "train", "patient"], *before["patient"]}


def _split(run):
    return _read(run / "split.csv", ["patient", "split"])


def _read(path, columns):
    try:
        return pd.read_csv(path, usecols=columns, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as fault:
        reason = f"cannot be read, so nothing says whom the run was trained on ({fault})"
        remedy = "restore it, or start from other weights"
        raise DataError([Problem(str(path), reason, remedy)]) from fault
