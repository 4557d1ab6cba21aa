"""Divides patients, never pictures, between training, validation and test."""

import hashlib

import pandas as pd

from medkeras.errors import DataError, Problem

SIDES = ("train", "val", "test")


def by_patient(
    table: pd.DataFrame,
    *,
    seed: int,
    resplit: bool = False,
    test: float = 0.15,
    validation: float = 0.15,
) -> pd.DataFrame:
    """Adds the column `split`, with all pictures of a patient on one side.

    Patients that share a byte-identical picture (column `sha256`) count as one. Patients are
    ordered by a hash of seed and name, separately for each class (a patient with several
    counts for the rarest). The first ones become the test side until it has its share of the
    pictures, the next ones validation: the order of the rows does not matter, and further
    patients move few of the others.

    A published split (column `split`) is honoured: its test side stays, and validation is
    cut from its training side unless it has one.

    Args:
        table: rows with `patient`, `label` and `class`; optionally `path`, `sha256`, `split`.
        seed: any whole number; the same one gives the same split.
        resplit: ignore a published split.
        test: share of the pictures on the test side, 0..1, as near as whole patients allow.
        validation: share on the validation side, 0..1; of the training side where the test
            side is published.

    Returns:
        A copy of the table, rows in the same order, `split` one of "train", "val", "test".

    Raises:
        DataError: a published split divides a patient, or a class has no patient on a side.
    """
    if not (0 < test < 1 and 0 < validation < 1 and test + validation < 1):
        raise ValueError(
            f"test={test} and validation={validation} must be above 0 and below 1 together"
        )
    result = table.copy()
    groups = _groups(table)
    if "split" in table and not resplit:
        result["split"] = _completed(table, groups, seed, validation)
    else:
        result["split"] = groups.map(
            _assigned(table, groups, seed, {"test": test, "val": validation})
        )
    _refuse_missing(result, groups)
    return result


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """Counts pictures and patients per class and side.

    Args:
        table: rows with `patient`, `label`, `class` and `split`.

    Returns:
        DataFrame with the columns `class` (in the order of the labels, "all" last), `split`
        ("train", "val", "test", "all"), `pictures` and `patients`.
    """
    names = table.sort_values("label", kind="stable")["class"].unique()
    rows = []
    for name in [*names, "all"]:
        of_class = table if name == "all" else table[table["class"] == name]
        for side in [*SIDES, "all"]:
            part = of_class if side == "all" else of_class[of_class["split"] == side]
            rows.append((name, side, len(part), part["patient"].nunique()))
    return pd.DataFrame(rows, columns=["class", "split", "pictures", "patients"])


def _groups(table):
    """Names for each row the set of patients that must stay together."""
    parent = {patient: patient for patient in table["patient"]}

    def root(patient):
        while parent[patient] != patient:
            parent[patient] = parent[parent[patient]]
            patient = parent[patient]
        return patient

    if "sha256" in table:
        same = table[table["sha256"].notna()].groupby("sha256")["patient"].unique()
        for patients in same:
            for other in patients[1:]:
                # The smaller name leads, so that the order of the rows does not matter.
                low, high = sorted((root(patients[0]), root(other)))
                parent[high] = low
    return table["patient"].map(root)


def _assigned(table, groups, seed, shares):
    """Gives each group of patients a side, class by class, the rarest class first."""
    labels = table["label"].groupby(groups).unique()
    patients = pd.Series([label for found in labels for label in found]).value_counts()
    rarest = sorted(patients.index, key=lambda label: (patients[label], label))
    strata = {label: [] for label in rarest}
    for group, found in labels.items():
        strata[min(found, key=rarest.index)].append(group)

    sides, pictures = {}, groups.value_counts()
    for label in rarest:
        ordered = sorted(strata[label], key=lambda group: _key(seed, group))
        # Patients of a rarer class may have brought this one already.
        covered = {
            sides[group] for group in labels.index if group in sides and label in labels[group]
        }
        goal = pictures[ordered].sum()
        for later, (side, share) in zip(range(len(shares), 0, -1), shares.items(), strict=True):
            taken = 0
            # One patient stays for each side that follows, training included.
            while len(ordered) > later and (
                (not taken and side not in covered)
                or taken + pictures[ordered[0]] / 2 <= share * goal
            ):
                group = ordered.pop(0)
                sides[group] = side
                taken += pictures[group]
        sides.update(dict.fromkeys(ordered, "train"))
    return sides


def _completed(table, groups, seed, validation):
    published = table["split"]
    unknown = sorted(set(published) - set(SIDES), key=str)
    if unknown:
        raise DataError(
            [Problem("split", f"holds {unknown}, expected {list(SIDES)}", "use --resplit")]
        )
    problems = []
    for _, rows in table.groupby(groups, sort=True):
        sides = rows["split"].unique()
        if len(sides) < 2:
            continue
        names = rows["patient"].unique()
        who = f"patient {names[0]}" if len(names) == 1 else "patients " + ", ".join(names)
        why = "" if len(names) == 1 else " (they share identical pictures)"
        listed = ", ".join(side for side in SIDES if side in sides)
        problems.append(
            Problem(
                who,
                f"is on {len(sides)} sides of the published split: {listed}{why}",
                "use --resplit for a split that divides nobody",
            )
        )
    if problems:
        raise DataError(problems)
    if "val" in set(published):
        return published
    rest = published == "train"
    sides = _assigned(table[rest], groups[rest], seed, {"val": validation})
    return published.where(~rest, groups.map(sides))


def _refuse_missing(table, groups):
    problems = []
    for name, rows in table.groupby("class", sort=False):
        found = {side: groups[rows.index[rows["split"] == side]].nunique() for side in SIDES}
        if min(found.values()) == 0:
            listed = ", ".join(f"{side} {number}" for side, number in found.items())
            problems.append(
                Problem(
                    name,
                    f"needs a patient on every side, has {listed}",
                    "add pictures of other patients, remove the class, or use --resplit",
                )
            )
    if problems:
        raise DataError(problems)


def _key(seed, patient):
    return hashlib.sha256(f"{int(seed)}\0{patient}".encode()).digest()
