"""What the readers share: files of a folder, csv files of strings, patients, class order."""

import csv
import io
import os
import re
from collections import Counter
from pathlib import Path

import pandas as pd

from medkeras.errors import Problem

# Formats that decoding refuses are listed too, so that they are named instead of left out.
PICTURES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif"),
    *(".bmp", ".gif", ".tif", ".tiff", ".webp", ".dcm"),
}
PATIENT_COLUMNS = ("patient", "patient_id", "source_group", "group")
PATH_COLUMNS = ("path", "image", "image_id", "file", "filename")
# Digits as the OAI gives them, or the id that an import gives a patient; then the side.
KNEE = re.compile(r"(\d+|[0-9a-f]{16})([LR])", re.IGNORECASE)
# What a spreadsheet may say before the header.
SEPARATOR = re.compile(r"\s*sep=([,;|\t])[ \t]*(?:[\r\n]+|$)", re.IGNORECASE)
HEALTHY = {"healthy", "normal", "negative", "unmarked", "benign", "unfractured", "intact"}


def pictures(root, problems: list[Problem], skip=(), below="") -> list[str]:
    """Lists the pictures below a folder: `files` with the endings of pictures."""
    return files(root, problems, PICTURES, skip, below)


def files(root, problems: list[Problem], endings, skip=(), below="") -> list[str]:
    """Lists the files below a folder, hidden ones left out.

    Args:
        root: data root, already resolved.
        problems: list that grows by one problem for each entry that cannot be used, such as
            a link that leads out of `root`.
        endings: endings of the files to list, lower case with the dot.
        skip: names of folders directly below `root` to leave out.
        below: folder in `root` to list alone, "/" between its parts; "" for all.

    Returns:
        Paths relative to `root` with "/" between the parts, in natural order.
    """
    root = Path(root)
    parts = [part for part in below.split("/") if part]
    for number in range(len(parts)):
        name = "/".join(parts[: number + 1])
        if (root / name).is_symlink():
            problems.append(_linked(name))
            return []
    found, waiting = [], ["".join(part + "/" for part in parts)]
    while waiting:
        prefix = waiting.pop()
        try:
            # One listing of each folder: asking for each file would take minutes in large sets.
            entries = list(os.scandir(f"{root}/{prefix}"))
        except OSError as fault:
            reason = f"cannot be listed ({fault.strerror})"
            problems.append(Problem(prefix.rstrip("/") or str(root), reason, "allow reading it"))
            continue
        for entry in entries:
            name, link = prefix + entry.name, entry.is_symlink()
            if hidden(entry.name) or (name in skip and (root / name).is_dir()):
                continue
            if link and (root / name).is_dir():
                problems.append(_linked(name))
            elif not link and entry.is_dir():
                waiting.append(name + "/")
            elif os.path.splitext(entry.name)[1].lower() in endings:
                problem = _unusable(root, name, link)
                if problem:
                    problems.append(problem)
                else:
                    found.append(name)
    return sorted(found, key=natural)


def hidden(name: str) -> bool:
    """Says whether an entry is kept by a system or a tool rather than by the user."""
    return name.startswith(".") or name == "__MACOSX"


def read_csv(path, root, problems: list[Problem]) -> pd.DataFrame | None:
    """Reads a csv file with every cell a string, so that `0001` stays `0001`.

    A byte order mark, `;` or tab between the cells, a first line `sep=;`, and blank lines are
    accepted.

    Args:
        path: the csv file.
        root: data root, for the names in problems.
        problems: list that grows where the file or a row cannot be read.

    Returns:
        A DataFrame with lower-case, stripped column names, cells stripped, "" where empty;
        or None where nothing could be read.
    """
    name = _relative(path, root)
    rows = read_rows(path, root, problems)
    if rows is None:
        return None
    header = [cell.lower() for cell in rows[0]]
    # Cells beyond the last named column, as spreadsheets leave them, hold nothing to keep.
    while header and not header[-1]:
        header.pop()
    repeated = [column for column, times in Counter(header).items() if times > 1]
    if repeated:
        problems.append(
            Problem(name, f"has the column {repeated[0]!r} more than once", "rename one of them")
        )
        return None
    good = []
    for row in rows[1:]:
        if len(row) < len(header) or any(row[len(header) :]):
            problems.append(
                Problem(
                    name,
                    f"row {shown(row)} has {len(row)} cells, expected {len(header)}",
                    "complete the row",
                )
            )
        else:
            good.append(row[: len(header)])
    return pd.DataFrame(good, columns=header, dtype=object)


def read_rows(path, root, problems: list[Problem]) -> list[list[str]] | None:
    """Reads a csv file without a header, as `read_csv` does one with a header.

    Args:
        path: the csv file.
        root: data root, for the names in problems.
        problems: list that grows where the file cannot be read.

    Returns:
        The cells of each row that is not blank, stripped; None where nothing could be read.
    """
    name = _relative(path, root)
    link = Path(path).is_symlink()
    problem = _unusable(Path(root), name, link) if link else None
    if problem:
        problems.append(problem)
        return None
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as fault:
        problems.append(Problem(name, f"cannot be opened ({fault.strerror})", "allow reading it"))
        return None
    except UnicodeDecodeError:
        problems.append(Problem(name, "is not UTF-8 text", "save it as `CSV UTF-8`"))
        return None
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    separator = SEPARATOR.match(text)
    if separator:
        text, delimiter = text[separator.end() :], separator[1]
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as fault:
        problems.append(Problem(name, f"is not a csv file ({fault})", "mend its quotes"))
        return None
    rows = [[cell.strip() for cell in row] for row in rows]
    rows = [row for row in rows if any(row)]
    if not rows:
        problems.append(Problem(name, "is empty", "fill it, or remove it"))
        return None
    return rows


def shown(cells) -> str:
    """Returns the beginning of a csv row in quotes, for a message."""
    return repr(",".join(cells)[:60])


def first_column(frame: pd.DataFrame, names) -> str | None:
    """Returns the first of `names` that is a column of the frame, or None."""
    return next((name for name in names if name in frame.columns), None)


def match(names, paths, source: str, problems: list[Problem]) -> dict[int, str]:
    """Finds the picture that each csv row names.

    Args:
        names: cell of each row: a path relative to the root, its last parts, or a file name.
        paths: relative paths of the pictures.
        source: name of the csv, for problems.
        problems: list that grows by rows without a file, repeated rows and files without row.

    Returns:
        Row number to relative path, for the rows that name exactly one picture.
    """
    whole = set(paths)
    by_name = {}
    for path in paths:
        by_name.setdefault(path.rsplit("/", 1)[-1], []).append(path)
    matched, seen, missing = {}, {}, []
    for row, cell in enumerate(names):
        cell = cell.replace("\\", "/").removeprefix("./")
        found = [cell] if cell in whole else _by_ending(cell, by_name)
        if not found:
            missing.append(Problem(cell or source, f"is named in {source}, but there is no "
                                   "such file", "add the picture, or remove the row"))  # fmt: skip
        elif len(found) > 1:
            problems.append(
                Problem(
                    cell,
                    f"in {source} fits {len(found)} files: {', '.join(found[:3])}",
                    "write the path from the data root into the row",
                )
            )
        elif found[0] in seen:
            problems.append(Problem(found[0], f"stands in {source} more than once", "keep one row"))
        else:
            seen[found[0]] = row
            matched[row] = found[0]
    if missing and not matched:
        problems.append(
            Problem(
                source,
                f"names {len(missing)} pictures, none of which is there "
                f"(the first: {missing[0].path})",
                "write paths relative to the data root, or put the pictures beside it",
            )
        )
        return matched
    problems.extend(missing)
    problems.extend(
        Problem(path, f"has no row in {source}", "add a row, or remove the picture")
        for path in paths
        if path not in seen
    )
    return matched


def class_order(names) -> list[str]:
    """Orders class names: numbered ones by number, else healthy ones first, then naturally."""
    names = set(names)
    if all(re.match(r"\d+", name) for name in names):
        return sorted(names, key=natural)
    return sorted(names, key=lambda name: (not healthy(name), natural(name)))


def healthy(name: str) -> bool:
    """Says whether a class name means that nothing was found."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    if not words:
        return False
    # A non-union is a fracture that does not heal.
    if "".join(words).startswith("nonunion"):
        return False
    negated = words[0] in {"no", "not", "without"} or words[0].startswith("non")
    return negated != any(word in HEALTHY for word in words)


def natural(name: str):
    """Returns a sort key that puts `2` before `10`."""
    # In pieces of 18 digits: Python refuses to make numbers of thousands of them.
    parts = re.split(r"(\d{1,18})", name)
    return [int(part) if part.isdecimal() else part.lower() for part in parts], name


def _by_ending(cell, by_name):
    same_name = by_name.get(cell.rsplit("/", 1)[-1], [])
    if "/" not in cell:
        return same_name
    return [path for path in same_name if path.endswith("/" + cell) or cell.endswith("/" + path)]


def _linked(name):
    return Problem(
        name, "is a link to a folder, which is not followed", "put the folder itself there"
    )


def _unusable(root, name, link):
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        shown_name = name.encode("utf-8", "backslashreplace").decode()
        return Problem(shown_name, "has a name that is not UTF-8 text", "rename it")
    if not link:
        return None
    try:
        target = (root / name).resolve(strict=True)
    except (OSError, RuntimeError):
        return Problem(name, "is a link to nothing", "replace it by the file")
    if not target.is_relative_to(root):
        return Problem(name, "is a link out of the data folder", "replace it by the file")
    return None


def _relative(path, root):
    path = Path(path)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
