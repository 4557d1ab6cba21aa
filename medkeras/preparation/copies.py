"""Finds pictures that stand in a table more than once, and what follows from that.

Copies must not be on two sides of a split, their labels must agree, and the patients that share
them count as one.
"""

import re
from collections import Counter

import numpy as np
import pandas as pd

from medkeras.errors import Problem
from medkeras.preparation import duplicates
from medkeras.preparation.sets import joined
from medkeras.readers import tables

# From the surest kind to the least sure, and how a sentence names the other one.
KINDS = {
    "identical file": "the identical file",
    "identical pixels": "the picture of identical pixels",
    "near duplicate": "the near duplicate",
}
ALTERED = re.compile(
    r"[-_ .](rot(ated?)?|flip(ped)?|mirror(ed)?|aug(mented)?|copy|copie|kopie)"
    r"[-_ ]?(\(?\d+\)?|[hv])?$",
    re.IGNORECASE,
)
SPLIT = "split"
AGAIN = re.compile(r" ?\(\d+\)$")
# How Roboflow names the versions that it makes of a picture: NAME.rf.<32 hexadecimal digits>.
EXPORTED = re.compile(r"(.+)\.rf\.[0-9a-f]{32}")
RESPLIT = "use --resplit for a split that keeps them together, or remove the copies"


# How the sentences below name files, and what is left of them without.
NAMES = (
    (re.compile(r"(has \d+ [a-z ]+?)( \(\w+ volume\))?: .*", re.DOTALL), r"\1\2"),
    (re.compile(rf"but ({'|'.join(KINDS.values())}) .* is ", re.DOTALL), r"but \1 is "),
    (re.compile(r".* (are named like changed copies)", re.DOTALL), r"some \1"),
)


def found(verdicts: dict[str, list[dict]]) -> list[dict]:
    """Finds the sets of rows that show the same picture.

    Args:
        verdicts: column of files -> verdict of each row.

    Returns:
        A dict of each set: "kind" (a key of `KINDS`), "column", "rows" (positions, ascending),
        "correlation" (the least of the pairs that join near duplicates, else 1.0). A set of
        near duplicates names the identical ones among them too.
    """
    result = []
    for column, own in verdicts.items():
        # A damaged picture can be a copy too; a thousand empty files are no copies.
        content = [one["sha256"] if one.get("content", True) else None for one in own]
        result += _equal("identical file", column, content)
        pixels = [one.get("pixels") for one in own]
        result += [
            same
            for same in _equal("identical pixels", column, pixels)
            if len({content[row] for row in same["rows"]}) > 1
        ]
        result += _near(column, own, pixels)
    return result


def groups(table: pd.DataFrame, sets: list[dict]) -> pd.Series:
    """Names for each row the patients that must stay together, by the first in order.

    Args:
        table: rows with `patient`.
        sets: from `found`.
    """
    patients = table["patient"].tolist()
    pairs = [(patients[same["rows"][0]], patients[row]) for same in sets for row in same["rows"]]
    return table["patient"].map(joined(pairs))


def conflicts(table: pd.DataFrame, sets: list[dict]) -> list[Problem]:
    """Lists copies whose labels contradict each other: one is wrong, and nobody knows which.

    Args:
        table: rows with `path` and labels.
        sets: from `found`.
    """
    named, told = "labels" not in table.attrs, {}
    for same in sets:
        for column in ["class"] if named else tables.labels(table):
            cells = table[column].iloc[same["rows"]].tolist()
            firsts = {}
            for row, cell in zip(same["rows"], cells, strict=True):
                if not pd.isna(cell):  # the unknown contradicts nothing
                    firsts.setdefault(cell, row)
            for row, cell in zip(same["rows"], cells, strict=True):
                other = next((value for value in firsts if value != cell), None)
                if other is None or pd.isna(cell) or row in told:
                    continue
                own, theirs = (cell, other) if named else (f"{column} = {cell:g}", f"{other:g}")
                twin = f"{_other(same)} {table['path'].iloc[firsts[other]]}"
                reason = f"is {own}, but {twin} is {theirs}{_plane(same)}"
                remedy = "keep the one with the right label"
                told[row] = Problem(table["path"].iloc[row], reason, remedy)
    return [told[row] for row in sorted(told)]


def across(table: pd.DataFrame, sets: list[dict]) -> list[Problem]:
    """Lists the copies that stand on more than one side of a published split, their number first.

    Args:
        table: rows with `path` and `split`.
        sets: from `found`.
    """
    sides, paths = table["split"].tolist(), table["path"].tolist()
    told, pictures = {}, 0
    for same in sorted(sets, key=lambda same: list(KINDS).index(same["kind"])):
        first = next(iter(same["rows"]), None)
        away = [row for row in same["rows"] if sides[row] != sides[first]]
        # Identical files are among the near duplicates again: counted once.
        pictures += bool(away) and not any(row in told for row in same["rows"])
        for row in away:
            there = f"{_other(same)} {paths[first]} in {sides[first]}"
            reason = f"is in {sides[row]}, {there}{_plane(same)}"
            told.setdefault(row, Problem(paths[row], reason, RESPLIT))
    if not pictures:
        return []
    stand = "picture stands" if pictures == 1 else "pictures stand"
    reason = f"{pictures} {stand} on both sides of the published split"
    return [Problem(SPLIT, reason, RESPLIT), *(told[row] for row in sorted(told))]


def listed(table: pd.DataFrame, sets: list[dict]) -> list[dict]:
    """Describes sets for the records: kind, paths, patients, correlation and column."""
    return [
        {
            "kind": same["kind"],
            "paths": table["path"].iloc[same["rows"]].tolist(),
            "patients": table["patient"].iloc[same["rows"]].unique().tolist(),
            "correlation": round(same["correlation"], 4),
            "column": same["column"],
        }
        for same in sets
    ]


def remarks(table: pd.DataFrame, sets: list[dict]) -> list[Problem]:
    """Notes the copies, and the names that look like copies'."""
    notes = []
    for same in listed(table, sets):
        first, *others = same["paths"]
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        reason = f"has {_many(same['kind'], len(others))}{_plane(same)}: "
        reason += ", ".join(others[:3]) + more
        shared = len(same["patients"]) > 1
        remedy = "their patients count as one in a new split" if shared else ""
        notes.append(Problem(first, reason, remedy, "note"))
    names = [path.rsplit("/", 1)[-1].rpartition(".")[0] for path in table["path"]]
    known, exported = set(names), Counter(_original(name) for name in set(names))
    odd = [
        path
        for path, name in zip(table["path"], names, strict=True)
        if ALTERED.search(name)
        or (AGAIN.search(name) and AGAIN.sub("", name) in known)
        or (EXPORTED.fullmatch(name) and exported[_original(name)] > 1)
    ]
    if odd:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        reason = f"{odd[0]}{more} are named like changed copies of other pictures"
        remedy = "if they are, name one patient for original and copy in a csv"
        notes.append(Problem("names", reason, remedy, "note"))
    return notes


def unnamed(reason: str) -> str:
    """Takes the names of files out of a reason: they often hold the patient's number.

    Args:
        reason: of a `Problem`; one that this module did not write stays as it is.
    """
    for names, rest in NAMES:
        reason = names.sub(rest, reason, count=1)
    return reason


def _original(name):
    found = EXPORTED.fullmatch(name)
    return found[1] if found else name


def _equal(kind, column, keys):
    rows = {}
    for row, key in enumerate(keys):
        if key is not None:
            rows.setdefault(key, []).append(row)
    return [
        {"kind": kind, "column": column, "rows": own, "correlation": 1.0}
        for own in rows.values()
        if len(own) > 1
    ]


def _near(column, verdicts, pixels):
    same = {}
    for row, key in enumerate(pixels):
        if key is not None:
            same.setdefault(key, []).append(row)
    firsts = [own[0] for own in same.values() if verdicts[own[0]].get("sketch") is not None]
    if len(firsts) < 2:
        return []
    sketches = np.stack([verdicts[row]["sketch"] for row in firsts])
    pairs = duplicates.links(sketches)
    root, sets, least = joined((one, other) for one, other, _ in pairs), {}, {}
    for place in sorted({place for one, other, _ in pairs for place in (one, other)}):
        sets.setdefault(root(place), []).extend(same[pixels[firsts[place]]])
    for one, _, correlation in pairs:
        least[root(one)] = min(correlation, least.get(root(one), 1.0))
    return [
        {
            "kind": "near duplicate",
            "column": column,
            "rows": sorted(rows),
            "correlation": least[name],
        }
        for name, rows in sets.items()
    ]


def _other(same):
    return KINDS[same["kind"]]


def _plane(same):
    return "" if same["column"] == "image" else f" ({same['column']} volume)"


def _many(kind, number):
    plural = {"identical file": "identical files", "near duplicate": "near duplicates"}
    return f"{number} {kind if number == 1 else plural.get(kind, kind)}"
