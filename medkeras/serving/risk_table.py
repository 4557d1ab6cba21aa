"""Risk factors of pictures out of a table, filled and scaled as in training.

    path,age,female,bmi,...
    complete_images/9001897_1.png,61,1,28.4,...

A column `path` names pictures by the end of their path, as much of it as needed; a column `ID` by
their name without ending. Beside it stand the columns that the run was trained on, in its units,
blank where a value is unknown. Further columns are not read. The table of the OAI, `JSL.csv`, is
read as it is (`readers.oai`); its progression may be left out.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from medkeras.errors import DataError, Problem, UsageError
from medkeras.files.foreign import Unreadable
from medkeras.preparation.risks import Scale
from medkeras.readers import listing, oai

UNKNOWN = ("", "na", "nan")
SCALE = ("columns", "fill", "mean", "deviation")


@dataclass(frozen=True)
class Table:
    """Risk factors by picture.

    Args:
        rows: parts of a path, or (ID,), -> row of `values`.
        by_path: whether rows are named by paths.
        values: float32 (rows, factors), as the model takes them.
    """

    rows: dict
    by_path: bool
    values: np.ndarray

    def of(self, path) -> np.ndarray:
        """Returns the risk factors of a picture, float32 (factors,).

        Raises:
            Unreadable: the table has no row for it.
        """
        parts = Path(path).parts if self.by_path else (Path(path).stem,)
        ends = (parts[start:] for start in range(len(parts)))  # the longest first
        row = next((self.rows[end] for end in ends if end in self.rows), None)
        if row is None:
            raise Unreadable("has no row in the table of risk factors", "add one, or leave it out")
        return self.values[row]


def read(path, described) -> Table:
    """Reads a table.

    Args:
        path: csv file.
        described: of the run, "risks" in `predictor.json`: names of the "columns", and of each
            what stands for an unknown value ("fill"), "mean" and "deviation" in training.

    Returns:
        The table.

    Raises:
        UsageError: it lacks columns; names them.
        DataError: it cannot be read, names a picture twice, or a cell is no number.
    """
    path, problems = Path(path), []
    rows = listing.read_csv(path, path.parent, problems)
    if problems:
        raise DataError(problems)
    columns = [name.lower() for name in described["columns"]]
    ours = set(columns) <= set(oai.RISK_FACTORS)
    coded = oai.factors(rows, problems) if ours else None
    missing = [name for name in columns if coded is None and name not in rows]
    named = next((name for name in ("path", "id") if name in rows), None)
    if missing or not named:
        lacks = [] if named else ["path or ID"]
        raise UsageError(f"--risks {path}: has no column {', '.join([*lacks, *missing])}")
    if coded is None:
        values = np.column_stack([_numbers(rows, named, name, problems) for name in columns])
    else:
        values = coded[columns].to_numpy(float)
    keys = [Path(cell).parts if named == "path" else (cell,) for cell in rows[named]]
    found = {key: row for row, key in enumerate(keys)}
    if len(found) < len(keys):
        twice = next(cell for key, cell in zip(keys, rows[named]) if keys.count(key) > 1)
        problems.append(Problem(twice, f"stands in {path.name} more than once", "keep one row"))
    if problems:
        raise DataError(problems)
    scale = Scale(**{key: tuple(described[key]) for key in SCALE})
    table = pd.DataFrame(values, columns=scale.columns)
    return Table(found, named == "path", scale.values(table))


def _numbers(rows, named, column, problems):
    """Returns the values of a column, NaN where unknown, and reports what is no number."""
    cells = rows[column]
    values = pd.to_numeric(cells, errors="coerce").to_numpy(float)
    wrong = ~np.isfinite(values) & ~cells.str.lower().isin(UNKNOWN).to_numpy()
    for row in np.flatnonzero(wrong):
        reason = f"has {column} = {listing.shown([cells.iloc[row]])}"
        remedy = "write a number, or nothing where it is unknown"
        problems.append(Problem(rows[named].iloc[row], reason, remedy))
    return values
