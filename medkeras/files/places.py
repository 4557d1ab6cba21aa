"""Where medkeras keeps what it can compute again."""

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
