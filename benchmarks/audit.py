"""The audit before every training: a second one against the first, and the search for copies.

The first audit decodes every picture in child processes, the second reads the files and finds
their verdicts and sketches by content. The search for near duplicates, a part of both, is also
timed alone, against every pair compared under every one of the eight symmetries, on the first
4,000 pictures. One picture of fifty is a turned and recompressed copy: unless both searches find
exactly these, the exit code is 1.

    python benchmarks/audit.py [--size 224] [--pictures 10000]
"""

import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from _measure import Clock, conclude, flags, radiographs, workplace

from medkeras.files import child
from medkeras.preparation import audit, duplicates, verdicts

AUDIT_GOAL, SEARCH_GOAL = 3, 10
COPIED, COMPARED, BLOCK = 50, 4000, 2000


class Whole:
    """CPU seconds of this process and the decoding ones, and seconds of wall time."""

    def __enter__(self):
        child.close()
        self._began, self._clock = sum(os.times()[:4]), time.monotonic()
        return self

    def __exit__(self, *fault):
        self.wall = time.monotonic() - self._clock
        child.close()  # its time counts once it has ended
        self.seconds = sum(os.times()[:4]) - self._began


def with_copies(table):
    """Adds a turned, recompressed copy of one picture of fifty, of the same class."""
    rows = []
    for _, row in table[::COPIED].iterrows():
        path = Path(row["image"])
        turned = np.rot90(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
        path = path.with_name(f"copy{path.name}")
        path.write_bytes(cv2.imencode(".jpg", turned, [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes())
        name = f"{row['class']}/{path.name}"
        rows.append({**row, "image": str(path), "path": name, "patient": name})
    # Copies beside their originals, so that the part that both searches compare has some too.
    every = pd.concat([table, pd.DataFrame(rows, index=table.index[::COPIED])])
    return every.sort_index(kind="stable").reset_index(drop=True)


def directly(sketches):
    """Compares every pair under every symmetry."""
    found, sign = set(), (-1.0) ** np.arange(duplicates.CUT, dtype=np.float32)
    square = sketches.astype(np.float32).reshape(-1, duplicates.CUT, duplicates.CUT)
    for turned in (square, square.transpose(0, 2, 1)):
        for down in (1, sign[:, None]):
            for across in (1, sign[None, :]):
                other = (turned * down * across).reshape(len(square), -1)
                for top in range(0, len(square), BLOCK):
                    part = square[top : top + BLOCK].reshape(-1, duplicates.LENGTH)
                    one, two = np.nonzero(part @ other.T >= duplicates.LIMIT)
                    found |= {pair for pair in zip(one + top, two) if pair[0] < pair[1]}
    return found


def main():
    given = flags(__doc__, size=224, pictures=10000)
    with workplace() as folder:
        table = radiographs(folder / "pictures", given.pictures, given.size, given.size)
        table = with_copies(table.drop(columns=["split", "sha256"]))
        spent = []
        for _ in range(2):
            with Whole() as clock:
                checked = audit.checked(table)
            spent.append(clock)
        with verdicts.Memory() as memory:
            files = checked["image"][:COMPARED]
            sketches = np.stack([verdicts.verdict(file, memory)["sketch"] for file in files])
    with Clock() as ours:
        found = duplicates.links(sketches)
    with Clock() as theirs:
        pairs = directly(sketches)
    copies = len(checked.attrs["duplicates"])
    print(f"{len(table)} pictures of {given.size} pixels, {copies} copies found")
    print(f"{spent[0].wall:.1f} s of wall time, then {spent[1].wall:.1f} s")
    conclude(("second audit", spent[1].seconds), ("first audit", spent[0].seconds), AUDIT_GOAL)
    conclude(
        ("bound, then the pairs that pass it", ours.seconds),
        (f"all pairs of {len(sketches)} under eight symmetries", theirs.seconds),
        SEARCH_GOAL,
        what="search ratio",
    )
    same = {(one, other) for one, other, _ in found} == pairs
    return int(not same or copies != -(-given.pictures // COPIED))


if __name__ == "__main__":
    sys.exit(main())
