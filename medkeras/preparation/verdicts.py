"""Judges files one by one, and remembers the verdicts by content.

Decoding costs milliseconds a picture, and the next audit finds most files unchanged: verdicts
and sketches are kept in the cache folder, in SQLite, because several runs may write at once. A
damaged store is begun anew; where none can be kept, files are decoded each time.
"""

import hashlib
import json
import sqlite3
import threading
from pathlib import Path

import cv2
import numpy as np
import PIL

from medkeras.files import child, decode
from medkeras.files.foreign import Unreadable
from medkeras.files.places import cache_folder
from medkeras.preparation import duplicates

# Verdicts of other rules are not believed; raise the number when one changes.
RULES = f"2-pillow-{PIL.__version__}-opencv-{cv2.__version__}"
# Pixels, and how many times the short side: others are icons, strips and cuts gone wrong.
LEAST_SIDE, MOST_ASPECT = 16, 8
# Grey levels of 255.
LEAST_SPREAD = 1.0
ANEW = "export it again, or remove it"
VOLUMES = (".npy", ".npz")
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY")
SOUND = {"height", "width", "slices", "deep", "notes", "pixels"}
REFUSED = {"reason", "remedy", "content"}
# Verdicts on their way to the store; a killed audit loses no more.
BUFFERED = 500


def verdict(file, memory: "Memory") -> dict:
    """Judges a picture or volume.

    Args:
        file: a path; one that ends in .npy is a volume.
        memory: of earlier verdicts; it grows.

    Returns:
        Of a sound file: "sha256" of its bytes; "height" and "width", pixels, upright; "slices",
        0 for a picture; "deep", more than 8 bits; "notes", what a fixed rule changed; "pixels",
        the SHA-256 of what was decoded; "sketch", from `duplicates.sketch`, of a volume's middle
        slice. Of any other: "sha256", None where it cannot be read; "reason" and "remedy";
        "content", whether it begins like a picture or volume at all.
    """
    try:
        data = decode.read_bytes(file)
    except Unreadable as fault:
        return {"sha256": None, "reason": fault.reason, "remedy": fault.remedy, "content": False}
    suffix = Path(file).suffix.lower()
    sha256 = hashlib.sha256(data).hexdigest()
    found = memory.get(sha256 + suffix)
    if found is None:
        found = _judged(data, suffix)
        memory.put(sha256 + suffix, found)
    return {"sha256": sha256, **found}


def _judged(data, suffix):
    try:
        return _volume(data, suffix) if suffix in VOLUMES else _picture(data, suffix)
    except Unreadable as fault:
        content = data.startswith(MAGIC)
        return {"reason": fault.reason, "remedy": fault.remedy, "content": content}


def _volume(data, suffix):
    facts, (middle,) = child.run("volume", data, suffix=suffix, thumbnail=True)
    _refuse_shape(facts["height"], facts["width"])
    head = f"{facts['slices']} {facts['height']} {facts['width']} {facts['stored']}\n".encode()
    return {
        "height": facts["height"],
        "width": facts["width"],
        "slices": facts["slices"],
        "deep": facts["dtype"] != "uint8",
        "notes": facts["notes"],
        "pixels": hashlib.sha256(head + data[facts["offset"] :]).hexdigest(),
        "sketch": duplicates.sketch(middle),
    }


def _picture(data, suffix):
    facts, (pixels,) = child.run("picture", data, suffix=suffix)
    height, width = pixels.shape[:2]
    _refuse_shape(height, width)
    _refuse_blank(pixels)
    if pixels.ndim == 3 and np.all(pixels == pixels[..., :1]):
        pixels = np.ascontiguousarray(pixels[..., 0])  # grey, stored as colour
    head = f"{pixels.shape} {pixels.dtype.name}\n".encode()
    return {
        "height": height,
        "width": width,
        "slices": 0,
        "deep": facts["deep"],
        "notes": facts["notes"],
        "pixels": hashlib.sha256(head + pixels.tobytes()).hexdigest(),
        "sketch": duplicates.sketch(pixels),
    }


def _refuse_shape(height, width):
    short, long = sorted((height, width))
    if short < LEAST_SIDE:
        raise Unreadable(
            f"is {width} x {height} pixels, expected {LEAST_SIDE} or more each way", ANEW
        )
    if long > MOST_ASPECT * short:
        raise Unreadable(
            f"is {width} x {height} pixels, expected at most {MOST_ASPECT} times as many one way",
            ANEW,
        )


def _refuse_blank(pixels):
    low, high = int(pixels.min()), int(pixels.max())
    if low == high:
        raise Unreadable(f"is blank: every pixel is {low}", ANEW)
    # Whoever keeps 10 or 12 bits in 16 uses a part of the range only.
    level = high / 255 if pixels.dtype.itemsize > 1 else 1
    spread = float(np.max(pixels.std(axis=(0, 1), dtype=np.float32))) / level
    if spread < LEAST_SPREAD:
        raise Unreadable(
            f"is blank but for noise: its pixels deviate by {spread:.2f} of 255 grey levels, "
            f"expected {LEAST_SPREAD:g} or more",
            ANEW,
        )


class Memory:
    """Verdicts by content, kept between runs in the cache folder, which may be lost any time.

    Safe from several threads and processes.
    """

    def __init__(self):
        self._file = cache_folder() / "verdicts" / f"{RULES}.sqlite"
        self._lock = threading.Lock()
        self._new = {}
        self._store = self._opened()

    def __enter__(self):
        return self

    def __exit__(self, *fault):
        with self._lock:
            self._save()
            if self._store:
                self._store.close()
            self._store = None

    def get(self, key: str) -> dict | None:
        """Returns the verdict kept for a key, or None."""
        with self._lock:
            if key in self._new:
                return self._new[key]
            row = self._asked("SELECT verdict, sketch FROM verdicts WHERE key = ?", (key,))
        return _read(*row[0]) if row else None

    def put(self, key: str, found: dict) -> None:
        """Keeps a verdict."""
        with self._lock:
            self._new[key] = found
            if len(self._new) >= BUFFERED:
                self._save()

    def _save(self):
        rows = [_written(key, found) for key, found in self._new.items()]
        stored = self._asked("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)", *rows)
        # A locked store may answer the next time; without one there is nothing to wait for.
        if stored is not None or self._store is None:
            self._new.clear()

    def _asked(self, statement, *rows):
        """Returns the rows of an answer; None where the store does not answer."""
        if self._store is None:
            return None
        try:
            with self._store:
                if statement.startswith("SELECT"):
                    return self._store.execute(statement, *rows).fetchall()
                self._store.executemany(statement, rows)
            return []
        except sqlite3.Error as fault:
            # A full disk, a lock held too long: it costs time, not the run.
            if _is_damage(fault):
                self._store.close()
                self._store = self._begun_anew()
            return None

    def _opened(self):
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            return self._connected()
        except OSError:
            return None
        except sqlite3.Error as fault:
            return self._begun_anew() if _is_damage(fault) else None

    def _begun_anew(self):
        try:
            self._file.unlink(missing_ok=True)
            self._file.with_name(self._file.name + "-journal").unlink(missing_ok=True)
            return self._connected()
        except (OSError, sqlite3.Error):
            return None

    def _connected(self):
        store = sqlite3.connect(self._file, timeout=5, check_same_thread=False)
        try:
            # A row of 2.3 kB would leave half of a usual page empty.
            store.execute("PRAGMA page_size = 16384")
            with store:
                store.execute(
                    "CREATE TABLE IF NOT EXISTS verdicts "
                    "(key TEXT PRIMARY KEY, verdict TEXT, sketch BLOB)"
                )
                store.execute("SELECT key, verdict, sketch FROM verdicts LIMIT 1").fetchall()
        except sqlite3.Error:
            store.close()
            raise
        return store


def _is_damage(fault):
    # Not a database, torn pages, or another table than ours.
    return getattr(fault, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_ERROR,
    )


def _written(key, found):
    sketch = found.get("sketch")
    rest = {name: value for name, value in found.items() if name != "sketch"}
    return key, json.dumps(rest), None if sketch is None else sketch.tobytes()


def _read(text, blob):
    """Returns a stored verdict, or None where it is not one."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    if found.keys() == REFUSED:
        return found
    if found.keys() != SOUND:
        return None
    if blob is None:
        return {**found, "sketch": None}
    if not isinstance(blob, bytes) or len(blob) != 2 * duplicates.LENGTH:
        return None
    sketch = np.frombuffer(blob, np.float16)
    length = np.linalg.norm(sketch.astype(np.float32))
    return {**found, "sketch": sketch} if abs(length - 1) < 0.01 else None
