"""Where a data set begins: the folder that the user named, or the one inside it."""

from pathlib import Path

from medkeras.errors import DataError, Problem
from medkeras.readers import listing


def start(root, fits) -> Path:
    """Finds the folder that a layout begins at.

    Args:
        root: what the user named.
        fits: function of a folder that says whether the layout begins there. Where it does
            not begin at `root` but at exactly one folder inside, such as the `MRNet-v1.0` of
            an archive, that one is taken.

    Returns:
        The folder, resolved.

    Raises:
        DataError: there is no such folder.
    """
    root = existing(root)
    if not fits(root):
        inner = [folder for folder in inside(root) if not folder.is_symlink() and fits(folder)]
        if len(inner) == 1:
            return inner[0]
    return root


def existing(root) -> Path:
    """Returns the folder that the user named, resolved.

    Args:
        root: what the user named.

    Raises:
        DataError: there is no such folder.
    """
    given, root = root, Path(root).resolve()
    if not root.is_dir():
        found = "is not a folder" if root.exists() else "does not exist"
        raise DataError([Problem(str(given), found, "name the data folder with --data")])
    return root


def published(kinds: dict[str, str]) -> dict[str, str] | None:
    """Gives each published part of a data set its side of the split.

    A single part beside train is what results are published on, so it is the test side; with
    two, each has its role.

    Args:
        kinds: part -> "train", "val" or "test".

    Returns:
        Part -> side; None where train stands alone or is missing.
    """
    found = set(kinds.values())
    if "train" not in found or len(found) < 2:
        return None
    if "test" in found:
        return kinds
    return {part: kind.replace("val", "test") for part, kind in kinds.items()}


def inside(root) -> list[Path]:
    """Lists the folders directly in a folder, hidden ones left out, in natural order."""
    try:
        found = [entry for entry in Path(root).iterdir() if entry.is_dir()]
    except OSError:
        return []
    found = [entry for entry in found if not listing.hidden(entry.name)]
    return sorted(found, key=lambda entry: listing.natural(entry.name))
