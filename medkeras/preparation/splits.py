"""Divides patients, never pictures, between training, validation and test.

Test patients are fixed by a keyed hash of their name alone: pictures that are added later move
nobody into the test part or out of it. Validation parts and folds are stratified: the labels,
one of many or many at once, are spread as evenly as whole patients allow.
"""

import hashlib

import pandas as pd

from medkeras.errors import DataError, Problem
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
    hashes; a class that chance left without a patient there gives the one with the lowest hash.
    Validation is cut from the others, stratified. The order of the rows does not matter.

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
    result = table.copy()
    groups = _groups(table)
    tags = _tags(table, groups)
    if "split" in table and not resplit:
        result["split"] = _completed(table, groups, tags, seed, validation, fold)
    else:
        if fold:
            _refuse_few(table, tags, fold[1])
            tested = set(_folds(tags, fold[1], seed)[fold[0]])
        else:
            tested, lent = _tested(table, tags, seed, test)
            result.attrs["notes"] = [*table.attrs.get("notes", []), *lent]
            validation = validation / (1 - test)
        sides = _validated(tags[~_of(tags).isin(tested)], validation, seed)
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


def _tested(table, tags, seed, share):
    """Chooses the test groups by their hash alone, where every class can spare one."""
    order = sorted(_of(tags).unique(), key=lambda group: _key(seed, group))
    limit, notes = int(share * 2**256), []
    tested = {group for group in order if int.from_bytes(_key(seed, group)) < limit}
    if "label" not in table:
        return tested or set(order[:1]), notes
    place = {group: number for number, group in enumerate(order)}
    names = table.groupby("label")["class"].first()
    for label, name in names.items():
        groups = sorted(tags.xs(f"label = {label}", level="tag").index, key=place.get)
        if not tested & set(groups):
            tested.add(groups[0])
            notes.append(_lent(name).as_dict())
        # Two must stay, to train and to validate.
        spare = max(len(groups) - 2, 1)
        tested -= set([group for group in groups if group in tested][spare:])
    return tested, notes


def _lent(name):
    return Problem(
        name,
        "is so small a class that no patient's hash falls into the test part: the one with the "
        "lowest was taken, and may leave it when patients are added",
        "add patients before results are compared over time",
        "note",
    )


def _validated(tags, share, seed):
    sides = _spread(tags, {"val": share, "train": 1 - share}, seed)
    return {group: side for side, groups in sides.items() for group in groups}


def _folds(tags, number, seed):
    return list(_spread(tags, dict.fromkeys(range(number), 1 / number), seed).values())


def _spread(tags, shares, seed):
    """Spreads groups over sides, label by label, the rarest label first.

    A stratification of many labels at once, after the idea of Sechidis, Tsoumakas and Vlahavas
    (2011). Within a label the groups are taken in the order of their hashes, and each side in
    turn takes what it still misses: a few further groups move few of the others.

    Args:
        tags: pictures by (group, tag).
        shares: side -> share of the pictures; the last side takes the rest.
        seed: of the order of the groups.

    Returns:
        dict of side -> list of groups.
    """
    brings, holders = {}, {}
    for (group, tag), pictures in tags.items():
        brings.setdefault(group, {})[tag] = pictures
        holders.setdefault(tag, []).append(group)
    sides, placed = {side: [] for side in shares}, set()
    has = {tag: dict.fromkeys(shares, 0) for tag in holders}
    *filled, last = shares
    for tag in sorted(holders, key=lambda tag: (len(holders[tag]), tag)):
        goal = sum(brings[group][tag] for group in holders[tag])
        free = sorted(
            (group for group in holders[tag] if group not in placed),
            key=lambda group: _key(seed, group),
            reverse=True,
        )
        allowed = taken = 0
        for number, side in enumerate([*filled, last]):
            lacking = sum(not has[tag][later] for later in [*filled, last][number + 1 :])
            allowed += max(0, shares[side] * goal - has[tag][side])
            # A label goes round first: one group stays for each side that still lacks it.
            while free and (
                side == last
                or len(free) > lacking
                and (has[tag][side] == 0 or taken + brings[free[-1]][tag] / 2 <= allowed)
            ):
                group = free.pop()
                taken += brings[group][tag]
                sides[side].append(group)
                placed.add(group)
                for other, pictures in brings[group].items():
                    has[other][side] += pictures
    return sides


def _completed(table, groups, tags, seed, validation, fold):
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
        chosen = set(_folds(tags, fold[1], seed)[fold[0]])
        sides = {group: "val" if group in chosen else "train" for group in groups[rest]}
    else:
        sides = _validated(tags, validation, seed)
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
    if "label" not in table:  # real sets have findings that nobody has
        return
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


def _refuse_few(table, tags, folds):
    if "label" not in table:
        return
    names = table.groupby("label")["class"].first()
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


def _key(seed, group):
    return hashlib.sha256(f"{int(seed)}\0{group}".encode()).digest()
