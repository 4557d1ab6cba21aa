"""Opens every picture once before training starts, and lists all that is wrong with a data set.

    python -m medkeras.preparation.audit data/bone
    python -m medkeras.preparation.audit data/knees --reader knee --json

Broken, blank and wrongly shaped files; labels that contradict each other; too few patients;
patients and pictures on both sides of a published split; copies, also turned, flipped, resized
or recompressed ones. Exit code 0: nothing is wrong, though there may be notes; 3: errors; 2: the
command cannot be used so. Nothing is written into the data folder.
"""

import hashlib
import json
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from medkeras import commands
from medkeras.errors import DataError, MedkerasError, Problem
from medkeras.files import atomic
from medkeras.preparation import copies, findings, splits, verdicts
from medkeras.progress import bar
from medkeras.readers import layouts, tables

# Train, validation and test each need one.
PATIENTS_PER_CLASS = 3


def checked(
    table: pd.DataFrame, skip_bad: bool = False, progress=None, *, resplit: bool = False
) -> pd.DataFrame:
    """Checks the pictures or volumes of a table.

    Each file is decoded in full, because a truncated one opens without complaint. The verdict
    is kept by the content of the file, so a second check only reads the bytes.

    Args:
        table: rows from a reader (see `tables`).
        skip_bad: leave out broken pictures, and copies whose labels contradict each other,
            instead of raising an error for them. Faults of a class or the split still raise.
        progress: function of (rows done, rows in all), called after each, or None.
        resplit: a published split is ignored, so what it divides is only noted.

    Returns:
        A copy of the table, rows in the same order, with `sha256` of the file, or of an exam's
        hashes together; `height` and `width`, pixels of the upright picture or of the first
        plane's slices; `slices_<plane>` and `sha256_<plane>` of an exam; and `group`, which
        names the patients that must stay together because they share copies, else the patient.
        `attrs["skipped"]` lists what was left out and `attrs["notes"]` gains what should be
        known, as dicts of a `Problem`; `attrs["duplicates"]` lists copies: kind, paths,
        patients, correlation.

    Raises:
        DataError: all problems at once, worst first; its table is what would be returned,
            and the broken pictures too unless `skip_bad`.
    """
    found = _opened(table, progress)
    broken, remarks = _per_file(table, found)
    sets = copies.found(found)
    result = _measured(table, found)
    result["group"] = copies.groups(table, sets)

    sound = _without(sets, table, broken)
    conflicts = copies.conflicts(table, sound)
    bad = [*conflicts, *broken]
    kept = result[~result["path"].isin({problem.path for problem in bad})]
    kept = kept.astype({"height": "int64", "width": "int64"}).reset_index(drop=True)
    leaks = []
    if "split" in table:
        shared = copies.across(table, _without(sound, table, conflicts if skip_bad else []))
        divided = splits.divided(kept if skip_bad and not resplit else table)
        # One line is enough where the new split puts it right.
        leaks = _noted(shared, divided) if resplit else [*shared, *divided]
    classes = _per_label(kept) if "labels" in table.attrs else _per_class(table, kept)

    notes = [problem for problem in [*leaks, *classes] if problem.severity == "note"]
    notes += [*copies.remarks(table, sets), *remarks]
    kept.attrs = result.attrs = {
        **table.attrs,
        "skipped": [problem.as_dict() for problem in bad] if skip_bad else [],
        "notes": [*table.attrs.get("notes", []), *(note.as_dict() for note in notes)],
        "duplicates": copies.listed(table, sets),
    }
    problems = [*leaks, *classes] if skip_bad else [*leaks, *conflicts, *classes, *broken]
    problems = [problem for problem in problems if problem.severity == "error"]
    if problems:
        raise DataError(problems, kept if skip_bad else result)
    return kept


def opened(
    reader, root, skip_bad: bool = False, progress=None, *, resplit: bool = False
) -> pd.DataFrame:
    """Reads a data folder and checks its pictures.

    Args:
        reader: function of a folder, such as `readers.bone.read`.
        root: the folder.
        skip_bad: as in `checked`.
        progress: as in `checked`.
        resplit: as in `checked`.

    Returns:
        The table of `checked`.

    Raises:
        DataError: what is wrong with layout and pictures together, so that nobody mends the
            folders and then finds broken files.
    """
    try:
        table = reader(root)
    except DataError as layout:
        if layout.table is None or layout.table.empty:
            raise
        try:
            table, more = checked(layout.table, skip_bad, progress, resplit=resplit), []
        except DataError as pictures:
            table, more = pictures.table, pictures.problems
        worst = [problem for problem in more if problem.path == copies.SPLIT]
        rest = [problem for problem in more if problem.path != copies.SPLIT]
        raise DataError([*worst, *layout.problems, *rest], table) from None
    return checked(table, skip_bad, progress, resplit=resplit)


def main(argv=None) -> int:
    """Runs the command and returns its exit code."""
    parser = _parser()
    given = parser.parse_args(argv)
    root = Path(given.data)
    if not root.is_dir():
        parser.error(f"{root} is not a folder")
    if given.out and Path(given.out).resolve().is_relative_to(root.resolve()):
        parser.error(f"--out {given.out} lies in the data folder, where nothing is written")
    name, table, problems = given.reader, None, []
    try:
        name = name or layouts.recognised(root)
        with bar("checking") as progress:
            table = opened(
                layouts.READERS[name], root, given.skip_bad, progress, resplit=given.resplit
            )
    except DataError as fault:
        table, problems = fault.table, fault.problems
    except MedkerasError as fault:
        print(f"audit: {fault}", file=sys.stderr)
        return fault.exit_code
    except KeyboardInterrupt:
        return 130
    found = findings.summary(name, table, problems)
    if given.out:
        try:
            atomic.write_json(given.out, found)
        except OSError as fault:
            parser.error(f"--out {given.out} cannot be written: {fault.strerror}")
    try:
        print(json.dumps(found) if given.json else "\n".join(findings.lines(found)), flush=True)
    except BrokenPipeError:  # `| head` has seen enough; Python would complain again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0 if found["ok"] else DataError.exit_code


def _parser():
    parser = commands.parser("python -m medkeras.preparation.audit", __doc__)
    add = parser.add_argument
    add("data", metavar="DATA", help="folder of the data set")
    add("--reader", choices=sorted(layouts.READERS), help="default: by what lies in the folder")
    add("--skip-bad", action="store_true", help="leave broken pictures out, and count them")
    add("--resplit", action="store_true", help="ignore a published split")
    add("--json", action="store_true", help="print one JSON object, with every finding in full")
    add("--out", metavar="FILE", help="write that object to a file too")
    return parser


def _opened(table, progress):
    """Returns column of files -> verdict of each row."""
    columns = tables.files(table)
    rows = list(zip(*(table[column] for column in columns), strict=True))
    found = {column: [] for column in columns}
    with verdicts.Memory() as memory, ThreadPoolExecutor(os.cpu_count() or 1) as pool:

        def judged(files):
            return [verdicts.verdict(file, memory) for file in files]

        for done, several in enumerate(pool.map(judged, rows), start=1):
            for column, one in zip(columns, several, strict=True):
                found[column].append(one)
            if progress:
                progress(done, len(rows))
    return found


def _measured(table, found):
    result = table.copy()
    columns = list(found)
    hashes = list(zip(*([one["sha256"] for one in found[column]] for column in columns)))
    if len(columns) > 1:
        hashes = [
            (hashlib.sha256("\n".join(own).encode()).hexdigest() if all(own) else None,)
            for own in hashes
        ]
    result["sha256"] = [own[0] for own in hashes]
    for name in ("height", "width"):
        result[name] = [one.get(name) for one in found[columns[0]]]
    if len(columns) > 1:
        for column in columns:
            slices = pd.array([one.get("slices") for one in found[column]], dtype="Int64")
            result[f"slices_{column}"] = slices
            result[f"sha256_{column}"] = [one["sha256"] for one in found[column]]
    return result


def _per_file(table, found):
    broken, notes = [], []
    for column, own in found.items():
        start = "" if len(found) == 1 else f"{column}: "
        sound = [one for one in own if "reason" not in one]
        deep = {one["deep"] for one in sound if not one["slices"]}
        sizes = Counter((one["height"], one["width"]) for one in sound if one["slices"])
        most = sizes.most_common(1)[0][0] if sizes else None
        for path, one in zip(table["path"], own, strict=True):
            if "reason" in one:
                broken.append(Problem(path, start + one["reason"], one["remedy"]))
            elif one["slices"] and (one["height"], one["width"]) != most:
                reason = f"has slices of {one['height']} x {one['width']} pixels, expected "
                reason += f"{most[0]} x {most[1]} as {sizes[most]} of {len(sound)} have"
                broken.append(Problem(path, start + reason, "bring it to the size of the others"))
            elif not one["slices"] and one["deep"] and len(deep) > 1:
                reason = (
                    "is a 16-bit picture among 8-bit ones, so its grey values mean another scale"
                )
                broken.append(Problem(path, reason, "convert it to 8 bit as the others were"))
            else:
                notes += [Problem(path, start + note, "", "note") for note in one["notes"]]
    return broken, notes


def _without(sets, table, problems):
    """Returns the sets without the rows that have a problem."""
    bad = set(table.reset_index().index[table["path"].isin({one.path for one in problems})])
    return [{**same, "rows": [row for row in same["rows"] if row not in bad]} for same in sets]


def _noted(shared, divided):
    on = "patient is" if len(divided) == 1 else "patients are"
    reason = f"{len(divided)} {on} on several sides of the published split, which is ignored"
    patients = [Problem(copies.SPLIT, reason, "", "note")] if divided else []
    pictures = [Problem(one.path, one.reason, "", "note") for one in shared[:1]]
    return [*pictures, *patients]


def _per_class(table, kept):
    problems = []
    for name, rows in table.groupby("class", sort=False):
        left = kept[kept["class"] == name]
        patients = left["group"].nunique()
        if patients >= PATIENTS_PER_CLASS:
            continue
        broken = len(rows) - len(left)
        without = f" ({broken} of its {len(rows)} pictures are broken)" if broken else ""
        several = left["patient"].nunique()
        joined = f", which share copies and count as {patients}" if several > patients else ""
        problems.append(
            Problem(
                name,
                f"is a class with {several} {'patient' if several == 1 else 'patients'} in "
                f"{len(left)} pictures{without}{joined}, expected at least "
                f"{PATIENTS_PER_CLASS}: one each to train, validate and test",
                "add pictures of other patients, or remove the class",
            )
        )
    return problems


def _per_label(kept):
    """Notes findings that few have or lack: others can be learned, and theirs stay undefined."""
    notes, enough = [], 0
    for name in tables.labels(kept):
        sides = ((1, "positive"), (0, "negative"))
        numbers = {word: kept["group"][kept[name] == value].nunique() for value, word in sides}
        enough += min(numbers.values()) >= PATIENTS_PER_CLASS
        for word, patients in numbers.items():
            if patients >= PATIENTS_PER_CLASS:
                continue
            reason = f"is a finding with {patients or 'no'} {word} "
            reason += "patient" if patients == 1 else "patients"
            # Real sets have columns that nobody filled.
            remedy = "it is undefined in parts without one" if patients else "it cannot be learned"
            notes.append(Problem(name, reason, remedy, "note"))
    if enough:
        return notes
    reason = f"none has {PATIENTS_PER_CLASS} positive and {PATIENTS_PER_CLASS} negative patients: "
    reason += "one each to train, validate and test"
    return [Problem("findings", reason, "add pictures of other patients"), *notes]


if __name__ == "__main__":
    sys.exit(main())
