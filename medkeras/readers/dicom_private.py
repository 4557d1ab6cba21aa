"""The key of the keyed hashes, the linkage, and files that only their owner can read."""

import os
import secrets
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from medkeras.errors import ResourceError, UsageError
from medkeras.files import dicom_tags
from medkeras.files.places import key_file
from medkeras.readers.dicom_survey import Import


def secret() -> bytes:
    """Reads the key of the keyed hashes, or makes one that only its owner can read.

    Returns:
        32 bytes, from 64 hexadecimal digits in `places.key_file()`.

    Raises:
        UsageError: the key file holds something else, or others can read it.
    """
    path = key_file()
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                write(path, secrets.token_hex(32) + "\n")
            except FileExistsError:
                pass  # another import made it meanwhile
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as fault:
        raise UsageError(
            f"{path}: is no readable key; restore it, or name another file with MEDKERAS_KEY"
        ) from fault
    if len(key) != 32:
        raise UsageError(f"{path}: is no key of 64 hexadecimal digits")
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise UsageError(f"{path}: others can read this key; run `chmod 600 {path}`")
    return key


def write(path, text: str) -> None:
    """Writes a new file that only its owner can read.

    Raises:
        FileExistsError: there is one already.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def links(done: Import, key: bytes) -> str:
    """Makes the linkage: which file became which picture, and the hash of each file's name.

    Args:
        done: what became of every file.
        key: of the keyed hashes.

    Returns:
        The text of a csv file with the columns source, path, refusal and file.
    """
    rows = [(path, out, "") for path, outs in done.written.items() for out in outs]
    for problem in done.problems:
        first = done.copies.get(problem.path)
        for out in done.written.get(first, [""]):
            rows.append((problem.path, out, problem.reason))
    table = pd.DataFrame(rows, columns=["source", "path", "refusal"])
    table["file"] = [dicom_tags.keyed(key, "file", path) for path in table["source"]]
    return table.to_csv(index=False, lineterminator="\n")


@contextmanager
def reserved(path):
    """Makes a new file that only its owner can read, to be filled later.

    Whether it can be made shows at once, not after hours of work. An error in the block removes
    it.

    Args:
        path: of the file; its folder must exist.

    Yields:
        Function that writes a text; names that are no text (not UTF-8) get escapes.

    Raises:
        UsageError: it cannot be made.
        ResourceError: it cannot be filled.
    """
    try:
        write(path, "")
    except OSError as fault:
        raise UsageError(f"{path}: cannot be written ({fault.strerror or fault})") from fault

    def fill(text):
        try:
            Path(path).write_bytes(text.encode("utf-8", "backslashreplace"))
        except OSError as fault:
            raise ResourceError(f"{path}: cannot be written ({fault.strerror or fault})") from fault

    try:
        yield fill
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise
