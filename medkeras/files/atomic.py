"""Files that are old or new, never half: a kill or a full disk leaves the last good one."""

import json
import os
import secrets
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing(path):
    """Yields a temporary path that becomes `path` when the block ends without an error.

    The temporary file lies in the same folder, so the last step is one rename, and its name
    ends like `path`'s, because many writers choose the format by the ending. After an error
    `path` is as it was before.

    Args:
        path: file to write; its folder must exist. A file already there is replaced.

    Yields:
        Path that the block must create and close.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(6)}.tmp.{path.name}")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path, data: bytes) -> None:
    """Writes bytes to `path`, all or nothing."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path, text: str) -> None:
    """Writes text as UTF-8 to `path`, line ends as given, all or nothing."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path, obj) -> None:
    """Writes an object as indented JSON, all or nothing.

    Args:
        path: file to write.
        obj: dicts, lists, strings, numbers (NumPy scalars too), booleans and None.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not know: use None.
    """
    try:
        text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError as fault:
        raise ValueError(f"{path}: {fault}; write None for an undefined number") from fault
    write_text(path, text + "\n")


def write_csv(path, dataframe) -> None:
    """Writes a DataFrame without its index, numbers so that they read back equal."""
    write_text(path, dataframe.to_csv(index=False, lineterminator="\n"))


def sync_folder(folder) -> None:
    """Makes a rename inside `folder` durable, where the system can do so."""
    if os.name == "posix":
        _sync(folder)


def _sync(path):
    # Windows flushes only through a handle that may write; a folder opens only read-only.
    flags = os.O_RDONLY if os.name == "posix" else os.O_RDWR
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _plain(value):
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")
