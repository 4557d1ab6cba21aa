"""Divides patients, never pictures, between training, validation and test.

Test patients are fixed by a keyed hash of their name alone: pictures that are added later move
nobody into the test part or out of it. Validation parts and folds are stratified: the labels,
one of many or many at once, are spread as evenly as whole patients allow.
"""

import hashlib

import pandas as pd

from medkeras.errors import DataError, Problem
from medkeras.preparation.sets import joined
from medkeras.preparation.stratify import spread
from medkeras.readers import tables

SIDES = ("train", "val", "test")


def by_patient(
    table: pd.DataFrame,
    *,
    seed: int,
    resplit: bool = False,
    test: float = 0.15,
    validation: float = 0.15,
    fold: tuple[int, int] | None = None,
) -> pd.DataFrame:
    """Adds the column `split`, with all pictures of a patient on one side.

    Patients that the audit joined (column `group`, else a byte-identical picture) count as one.
    A patient is tested on where the hash of seed and name falls into the lowest `test` of all
    hashes; joined patients have the lowest hash among them. A class, or the presence or absence
    of a finding, that chance left without a patient there gives the one with the lowest hash, and
    a note says so. Validation is cut from the others, stratified. The order of the rows does not
    matter.

    A published split (column `split`) is honoured: its test side stays, and validation is
    cut from its training side unless it has one.

    Args:
        table: rows with `patient` and labels (see `tables`); optionally `group`, `split`.
        seed: any whole number, the key of the hash; the same one gives the same split.
        resplit: ignore a published split.
        test: expected share of the patients on the test side, 0..1.
        validation: share of the pictures on the validation side, 0..1; of the training side
            where the test side is published or a fold.
        fold: (k, K), k in 0..K-1, for cross-validation: part k of K stratified parts is the
            test side; with a published test side, it is the validation side.

    Returns:
        A copy of the table, rows in the same order, `split` one of "train", "val", "test".

    Raises:
        DataError: a published split divides a patient, or a class has too few patients.
    """
    if not (0 < test < 1 and 0 < validation < 1 and test + validation < 1):
        raise ValueError(
            f"test={test} and validation={validation} must be above 0 and below 1 together"
        )
    if fold and not 0 <= fold[0] < fold[1]:
        raise ValueError(f"fold={fold}: expected (k, K) with k in 0..K-1")
    if table["patient"].isna().any():
        rows = ", ".join(table.loc[table["patient"].isna(), "path"].head().astype(str))
        raise DataError(
            [Problem(rows, "has no patient", "name one, or the path where none is known")]
        )
    result = table.copy()
    groups = _groups(table)
    tags, keys = _tags(table, groups), _keys(table, groups, seed)
    if "split" in table and not resplit:
        result["split"] = _completed(table, groups, tags, keys, validation, fold)
    else:
        if fold:
            _refuse_few(table, tags, fold[1])
            tested = set(_folds(tags, fold[1], keys)[fold[0]])
        else:
            tested, lent = _tested(table, tags, keys, test)
            result.attrs["notes"] = [*table.attrs.get("notes", []), *lent]
            validation = validation / (1 - test)
        sides = _validated(tags[~_of(tags).isin(tested)], validation, keys)
        result["split"] = groups.map(sides | dict.fromkeys(tested, "test"))
    _refuse_missing(result, groups)
    return result


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """Counts pictures and patients per class and side.

    Args:
        table: rows with `patient`, labels and `split`.

    Returns:
        DataFrame with the columns `class` (in the order of the labels, "all" last; the positives
        of each finding in a multi-label table), `split` ("train", "val", "test", "all"),
        `pictures` and `patients`.
    """
    if "label" in table:
        names = table.sort_values("label", kind="stable")["class"].unique()
        chosen = [(name, table["class"] == name) for name in names]
    else:
        chosen = [(name, table[name] == 1) for name in tables.labels(table)]
    rows = []
    for name, those in [*chosen, ("all", slice(None))]:
        own = table[those]
        for side in [*SIDES, "all"]:
            part = own if side == "all" else own[own["split"] == side]
            rows.append((name, side, len(part), part["patient"].nunique()))
    return pd.DataFrame(rows, columns=["class", "split", "pictures", "patients"])


def _groups(table):
    """Names for each row the set of patients that must stay together."""
    if "group" in table:
        return table["group"]
    pairs = []
    if "sha256" in table:
        same = table[table["sha256"].notna()].groupby("sha256")["patient"].unique()
        pairs = [(patients[0], other) for patients in same for other in patients[1:]]
    return table["patient"].map(joined(pairs))


def _keys(table, groups, seed):
    """Returns the key of each group: the lowest hash among its patients.

    A copy that joins another patient to a group so never takes a patient out of the test part.
    """
    pairs = set(zip(groups, table["patient"], strict=True))
    keys = {}
    for group, patient in pairs:
        key = hashlib.sha256(f"{int(seed)}\0{patient}".encode()).digest()
        keys[group] = min(key, keys.get(group, key))
    return keys


def _tags(table, groups):
    """Counts what each group brings: a Series of pictures by (group, "label = value")."""
    pieces = []
    for column in tables.labels(table):
        known = table[column].notna()
        named = column + " = " + table.loc[known, column].astype(str)
        pieces.append(pd.DataFrame({"group": groups[known], "tag": named}))
    # Everyone has this one: it balances sizes, and pictures without any known label count too.
    pieces.append(pd.DataFrame({"group": groups, "tag": "all"}))
    return pd.concat(pieces).groupby(["group", "tag"]).size()


def _of(tags):
    return tags.index.get_level_values("group")


def _tested(table, tags, keys, share):
    """Chooses the test groups by their hash alone, where every class can spare one."""
    limit, notes = int(share * 2**256), []
    tested = {group for group, key in keys.items() if int.from_bytes(key) < limit}
    names = {f"label = {label}": name for label, name in _classes(table).items()}
    for tag, own in tags.drop("all", level="tag").groupby("tag"):
        groups = sorted(_of(own), key=keys.get)
        if len(groups) >= len(SIDES) and not tested & set(groups):
            tested.add(groups[0])
            notes.append(_lent(names.get(tag, tag)).as_dict())
        if tag in names:
            # Two must stay, to train and to validate.
            spare = max(len(groups) - 2, 1)
            tested -= set([group for group in groups if group in tested][spare:])
    return tested or {min(keys, key=keys.get)}, notes


def _classes(table):
    return {} if "label" not in table else table.groupby("label")["class"].first()


def _lent(name):
    return Problem(
        name,
        "is so small a class that no patient's hash falls into the test part: the one with the "
        "lowest was taken, and may leave it when patients are added",
        "add patients before results are compared over time",
        "note",
    )


def _validated(tags, share, keys):
    sides = spread(tags, {"val": share, "train": 1 - share}, keys)
    return {group: side for side, groups in sides.items() for group in groups}


def _folds(tags, number, keys):
    return list(spread(tags, dict.fromkeys(range(number), 1 / number), keys).values())


def _completed(table, groups, tags, keys, validation, fold):
    published = table["split"]
    unknown = sorted(set(published) - set(SIDES), key=str)
    if unknown:
        raise DataError(
            [Problem("split", f"holds {unknown}, expected {list(SIDES)}", "use --resplit")]
        )
    problems = divided(table, groups)
    if problems:
        raise DataError(problems)
    if "val" in set(published) and not fold:
        return published
    rest = published != "test"
    tags = tags[_of(tags).isin(groups[rest])]
    if fold:
        chosen = set(_folds(tags, fold[1], keys)[fold[0]])
        sides = {group: "val" if group in chosen else "train" for group in groups[rest]}
    else:
        sides = _validated(tags, validation, keys)
    return published.where(~rest, groups.map(sides))


def divided(table: pd.DataFrame, groups: pd.Series | None = None) -> list[Problem]:
    """Lists who is on more than one side of a published split.

    Args:
        table: rows with `patient` and `split`.
        groups: for each row, the patients that must stay together; each alone if None.
    """
    problems = []
    for _, rows in table.groupby(table["patient"] if groups is None else groups, sort=True):
        sides = rows["split"].unique()
        if len(sides) < 2:
            continue
        names = rows["patient"].unique()
        who = f"patient {names[0]}" if len(names) == 1 else "patients " + ", ".join(names)
        why = "" if len(names) == 1 else " (they share pictures that are copies)"
        listed = ", ".join(side for side in SIDES if side in sides)
        problems.append(
            Problem(
                who,
                f"is on {len(sides)} sides of the published split: {listed}{why}",
                "use --resplit for a split that divides nobody",
            )
        )
    return problems


def _refuse_missing(table, groups):
    # Of findings only the whole is checked: real sets have some that nobody has.
    classes = table.groupby("class", sort=False) if "label" in table else [("the data", table)]
    problems = []
    for name, rows in classes:
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


def _refuse_few(table, tags, folds):
    if "label" not in table:
        return
    names = _classes(table)
    found = tags.drop("all", level="tag").groupby("tag").size()
    problems = [
        Problem(
            names[label],
            f"has {number} patients, expected at least {folds} for {folds} folds",
            "use fewer folds, add patients, or remove the class",
        )
        for label, number in ((label, found[f"label = {label}"]) for label in names.index)
        if number < folds
    ]
    if problems:
        raise DataError(problems)
