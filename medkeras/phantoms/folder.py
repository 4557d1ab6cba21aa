"""A folder of phantoms: written whole or not at all, and reused when asked for again."""

import json
import os
import secrets
import shutil
from pathlib import Path

import cv2

from medkeras.errors import UsageError
from medkeras.files import atomic

STAMP = "phantom.json"


def written(root, stamp: dict, write) -> Path:
    """Makes sure that a folder holds the phantoms that `stamp` describes.

    Args:
        root: the folder. One with the same stamp is left as it is, one with another stamp is
            replaced, one without a stamp is refused.
        stamp: all arguments that decide the content, and the version of the generator.
        write: function of a folder that does not exist yet; it writes the content there.

    Returns:
        The folder, complete.

    Raises:
        UsageError: `root` holds something else.
    """
    root = Path(root)
    # As it reads back: a tuple comes back as a list.
    stamp = json.loads(json.dumps(stamp))
    found = _stamp(root)
    if found == stamp:
        return root
    if found is None and root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{root}: exists and is no phantom data set; nothing was overwritten")

    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = root.with_name(f".{root.name}.{secrets.token_hex(6)}.tmp")
    try:
        write(unfinished)
        atomic.write_json(unfinished / STAMP, stamp)
        _put_in_place(unfinished, root, stamp)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root


def are_phantoms(root) -> bool:
    """Says whether a folder, or one directly in it, was written here."""
    root = Path(root)
    return (root / STAMP).is_file() or any(root.glob(f"*/{STAMP}"))


def save(path: Path, pixels, options=()) -> None:
    """Writes a picture, as its ending says.

    The folder becomes visible only when complete, so single files need no care of their own.

    Args:
        path: of the picture; its folder is made.
        pixels: uint8 (height, width).
        options: of OpenCV's encoder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels, list(options))[1].tobytes())


def refuse(faults: dict) -> None:
    """Refuses arguments out of range.

    Args:
        faults: message -> whether it applies.

    Raises:
        UsageError: the first that does.
    """
    for message, wrong in faults.items():
        if wrong:
            raise UsageError(message)


def _stamp(root):
    try:
        return json.loads((root / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _put_in_place(unfinished, root, stamp):
    if root.exists() and any(root.iterdir()):
        old = root.with_name(f".{root.name}.{secrets.token_hex(6)}.old")
        os.replace(root, old)
        shutil.rmtree(old, ignore_errors=True)
    try:
        os.replace(unfinished, root)
    except OSError:
        # Another process was faster; its folder serves as well if it is the same.
        if _stamp(root) != stamp:
            raise
    atomic.sync_folder(root.parent)
