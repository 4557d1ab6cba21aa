"""Opening a prepared data set: our memory map against a compressed npz of floats.

Measured from the table to the first batch of 32 pictures as float32: ours opens the stored
uint8 pictures and casts one batch; the published study loaded `savez_compressed` arrays of
RGB and divided them by 255. Each way opens in a process of its own, so that its peak of
memory above what was there before can be told (read from /proc: Linux). Unequal batches make
the exit code 1. The map's cost does not grow with the pictures, so both ratios do.

    python benchmarks/opening.py [--size 224] [--pictures 1000]
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from _measure import Clock, conclude, flags, radiographs, workplace
from _memory import peak

from medkeras.preparation import pipeline

TIME_GOAL, MEMORY_GOAL, BATCH = 500, 20, 32


def ours(folder, table, size):
    data = pipeline.images(table, (size, size, 1), BATCH)
    return data.train.pictures(slice(BATCH)).astype(np.float32)


def npz(folder, table, size):
    pictures = np.load(folder / "arrays.npz", allow_pickle=False)["pictures"]
    return (pictures / 255.0)[:BATCH]


def opened(way, folder, size):
    """Opens in this process; prints CPU seconds and MB, and saves the batch."""
    folder = Path(folder)
    table = pd.read_json(folder / "table.json")
    before = peak()
    with Clock() as clock:
        batch = {"ours": ours, "npz": npz}[way](folder, table, int(size))
    print(json.dumps([clock.seconds, peak() - before]))
    np.save(folder / f"{way}.npy", batch)


def main():
    given = flags(__doc__, size=224, pictures=1000)
    with workplace() as folder:
        table = radiographs(folder / "pictures", given.pictures, given.size, given.size)
        table = table.assign(split="train")
        table.to_json(folder / "table.json")
        data = pipeline.images(table, (given.size, given.size, 1), BATCH)
        rgb = np.repeat(data.train.pictures(), 3, axis=-1).astype(np.float32)
        np.savez_compressed(folder / "arrays.npz", pictures=rgb)
        spent = {}
        for way in ("ours", "npz"):
            command = [sys.executable, __file__, "--open", way, str(folder), str(given.size)]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            spent[way] = json.loads(printed.stdout.splitlines()[-1])
        batches = [np.load(folder / f"{way}.npy") for way in ("ours", "npz")]
    print(f"{given.pictures} pictures of {given.size} pixels")
    names = "memory map of uint8", "compressed npz of float32 RGB"
    seconds, megabytes = zip(spent["ours"], spent["npz"], strict=True)
    conclude(*zip(names, seconds, strict=True), TIME_GOAL)
    conclude(*zip(names, megabytes, strict=True), MEMORY_GOAL, "MB", "memory ratio")
    return int(not np.allclose(batches[0] / 255, batches[1][..., :1], atol=1e-6))


if __name__ == "__main__":
    sys.exit(opened(*sys.argv[2:]) if "--open" in sys.argv else main())
