"""Reads what `readers.dicom` wrote, once you have added the classes.

    images.csv                         path, patient, class, and whatever else
    <patient>/<study>/<image>.png

Fill a column `class` of `images.csv`; pictures without a class are left out, and counted. So are
volumes, which only the layout of MRNet holds: theirs has to stay empty. Classes are ordered as
those of class folders are.
"""

import pandas as pd

from medkeras.errors import Problem
from medkeras.readers import listing

TABLE = "images.csv"
VOLUMES = "sort volumes into the layout of MRNet, see data/README.md"


def fits(root) -> bool:
    """Says whether the folder holds the table of an import.

    Args:
        root: the data folder.
    """
    header = listing.read_csv(root / TABLE, root, []) if (root / TABLE).is_file() else None
    return header is not None and {"path", "patient"} <= set(header.columns)


def rows(root, paths, problems: list[Problem], notes: list[Problem]):
    """Reads the table.

    Args:
        root: the data folder.
        paths: pictures below it, relative.
        problems: list that grows by what is wrong.
        notes: list that grows by what should be known.

    Returns:
        DataFrame with `path`, `patient` and `class`, and the names of the classes in order.
    """
    empty = pd.DataFrame(columns=["path", "patient", "class"], dtype=object)
    table = listing.read_csv(root / TABLE, root, problems)
    if table is None:
        return empty, []
    volume = table["path"].str.lower().str.endswith(".npy")
    if len(table) and volume.all():
        problems.append(Problem(TABLE, f"lists {len(table)} volumes and no picture", VOLUMES))
        return empty, []
    if "class" not in table:
        problems.append(
            Problem(
                TABLE, "has no column 'class'", "add it, and write the class of each picture there"
            )
        )
        return empty, []
    for path in table["path"][volume & (table["class"] != "")]:
        reason = f"is a volume with a class in {TABLE}, where only pictures are read"
        problems.append(Problem(path, reason, f"empty its class; {VOLUMES}"))
    if volume.any():
        reason = f"{volume.sum()} of {len(table)} rows are volumes and were left out"
        notes.append(Problem(TABLE, reason, VOLUMES, "note"))
    table = table[~volume].reset_index(drop=True)
    matched = listing.match(table["path"], paths, TABLE, problems)
    table = table.loc[list(matched), ["path", "patient", "class"]].assign(path=matched.values())
    without = table["class"] == ""
    if without.any():
        reason = f"{without.sum()} of {len(table)} pictures have no class and were left out"
        notes.append(Problem(TABLE, reason, "", "note"))
    alone = table["patient"] == ""
    for path in table["path"][alone]:
        problems.append(Problem(path, f"has no patient in {TABLE}", "write one into its row"))
    table = table[~without & ~alone].reset_index(drop=True)
    return table, listing.class_order(table["class"])
