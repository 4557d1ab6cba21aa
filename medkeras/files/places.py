"""Where medkeras keeps what it can compute again, and the one key that it cannot."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Names the cache folder: `$MEDKERAS_CACHE`, else `medkeras` in the user's cache folder.

    Everything in it can be deleted at any time; it is computed again when needed.
    """
    named = os.environ.get("MEDKERAS_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "medkeras"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "medkeras"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "medkeras"


def key_file() -> Path:
    """Names the file of the key that replaces patients' ids: `$MEDKERAS_KEY`, else a default.

    Unlike the cache it cannot be made again: without it, later imports give other ids.
    """
    named = os.environ.get("MEDKERAS_KEY")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", Path.home() / "AppData" / "Roaming")) / (
            "medkeras/dicom.key"
        )
    return Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "medkeras/dicom.key"
