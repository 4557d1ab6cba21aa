"""The key of the keyed hashes, and files that only their owner can read."""

import os
import secrets

from medkeras.errors import UsageError
from medkeras.files.places import key_file


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
