"""What the audit's command says: counts, one table worst first, one sentence."""

import sys

from medkeras.files.foreign import printable
from medkeras.readers import tables

SHOWN = {"error": 60, "left out": 20, "note": 20}
NAMED = 8


def summary(layout: str | None, table, problems) -> dict:
    """Collects an audit's findings, as JSON can say them.

    Args:
        layout: name of the reader, None where the folder was not recognised.
        table: from the audit, or None.
        problems: list of `Problem`.

    Returns:
        "layout", "ok", "counts", "problems", "skipped", "notes", "duplicates".
    """
    attrs = {} if table is None else table.attrs
    return {
        "layout": layout,
        "ok": not problems,
        "counts": {} if table is None else counts(table),
        "problems": [problem.as_dict() for problem in problems],
        "skipped": attrs.get("skipped", []),
        "notes": attrs.get("notes", []),
        "duplicates": attrs.get("duplicates", []),
    }


def counts(table) -> dict:
    """Counts a table: pictures or exams, patients, labels, published sides.

    Args:
        table: from a reader or the audit.
    """
    what = "pictures" if tables.files(table) == ["image"] else "exams"
    found = {what: len(table), "patients": int(table["patient"].nunique())}
    if "labels" in table.attrs:
        found["labels"] = {
            name: {
                "1": int((table[name] == 1).sum()),
                "0": int((table[name] == 0).sum()),
                "unknown": int(table[name].isna().sum()),
            }
            for name in tables.labels(table)
        }
    else:
        sizes = table["class"].value_counts()
        names = tables.classes(table)
        found["classes"] = {name: int(sizes.get(name, 0)) for name in names}
    if "split" in table:
        found["split"] = {
            side: {what: len(own), "patients": int(own["patient"].nunique())}
            for side, own in table.groupby("split", sort=False)
        }
    return found


def line(table) -> str:
    """Says in one line what a table holds: its size, patients, and classes or positives."""
    found = counts(table)
    what = "pictures" if "pictures" in found else "exams"
    named = found.get("classes") or {
        name: numbers["1"] for name, numbers in found["labels"].items()
    }
    listed = ", ".join(f"{number} {name}" for name, number in named.items() if number)
    return f"{found[what]} {what} of {found['patients']} patients: {listed}"


def lines(found: dict) -> list[str]:
    """Formats findings for a reader.

    Args:
        found: from `summary`.
    """
    result = [f"layout: {found['layout'] or 'not recognised'}"]
    result += _counted(found["counts"])
    rows = [*_merged(found["problems"], "error"), *_merged(found["skipped"], "left out")]
    rows += _merged(found["notes"], "note")
    for severity, most in SHOWN.items():
        own = [row for row in rows if row[0] == severity]
        result += [f"{severity:8} | " + " | ".join(filter(None, row[1:])) for row in own[:most]]
        if len(own) > most:
            result.append(f"{severity:8} | ... and {len(own) - most} more; --json lists them all")
    return [_printable(line) for line in [*result, _sentence(found)]]


def _counted(counts):
    if not counts:
        return []
    what = "pictures" if "pictures" in counts else "exams"
    result = [f"{what}: {counts[what]} of {counts['patients']} patients"]
    for name, number in counts.get("classes", {}).items():
        result.append(f"  {name}: {number}")
    for name, numbers in counts.get("labels", {}).items():
        known = f"{numbers['1']} positive, {numbers['0']} negative"
        result.append(f"  {name}: {known}, {numbers['unknown']} unknown")
    for side, numbers in counts.get("split", {}).items():
        result.append(f"published {side}: {numbers[what]} of {numbers['patients']} patients")
    return result


def _merged(problems, severity):
    """Returns (severity, path, reason, remedy), one row for all that differ in the path alone."""
    paths = {}
    for problem in problems:
        paths.setdefault((problem["reason"], problem["remedy"]), []).append(problem["path"])
    rows = []
    for (reason, remedy), own in paths.items():
        more = f" and {len(own) - NAMED} more" if len(own) > NAMED else ""
        rows.append((severity, ", ".join(own[:NAMED]) + more, reason, remedy))
    return rows


def _sentence(found):
    errors, notes = len(found["problems"]), len(found["notes"])
    if errors:
        what = "1 error" if errors == 1 else f"{errors} errors"
        return f"{what}: no experiment trains on this data before they are mended."
    left = f", {len(found['skipped'])} left out" if found["skipped"] else ""
    return f"Nothing is wrong{left}{f'; {notes} to note' if notes else ''}."


def _printable(line):
    encoding = sys.stdout.encoding or "utf-8"
    return printable(line).encode(encoding, "replace").decode(encoding)
