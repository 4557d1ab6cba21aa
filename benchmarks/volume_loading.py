"""One volume of knee MRI to a standardised float32 batch: from the store, against as published.

Ours gathers the uint8 slices of an exam and makes them float32, as every training batch is made,
and standardises them as the model does first; its first convolution reads that one channel. The
published way reads the file, spreads it over 0..255, subtracts and divides in float64, and stacks
the grey slices to three channels.

Time is the median of the runs over all volumes, the ways in turn. Memory is the peak above what
was there before, of the largest volume, each way in a process of its own (read from /proc:
Linux). Values that differ by more than 1e-5 make the exit code 1.

    python benchmarks/volume_loading.py [--size 256] [--exams 16] [--repeats 5]
"""

import subprocess
import sys
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np
from _measure import Clock, conclude, flags, knees, reopened, workplace
from _memory import peak, restart

from medkeras.models.mrnet import DEVIATION, MEAN
from medkeras.preparation import exams, pipeline
from medkeras.readers import tables

TIME_GOAL, MEMORY_GOAL, TOLERANCE = 5, 3, 1e-5
PLANE = "axial"


def opened(folder):
    table = tables.single(reopened(folder), "abnormal")
    size = np.load(table[PLANE][0], mmap_mode="r", allow_pickle=False).shape[1]
    return exams.volumes(table, (size, size, 1), 1, stretch=True).train


def ours(part, row):
    return standardised(part.inputs(np.array([row])), part.labels[[row]])


def standardised(inputs, labels):
    (pixels, _), _ = pipeline.as_tensors((inputs, labels))
    return standardise()(pixels)


@cache
def standardise():
    import tensorflow as tf

    # In a graph, as in the model: the sum takes the place of the product.
    return tf.function(
        lambda x: x * (1 / DEVIATION) - MEAN / DEVIATION,
        input_signature=[tf.TensorSpec((None, None, None, 1))],
        autograph=False,
    )


def published(part, row):
    volume = np.load(part.table[PLANE].iloc[row], allow_pickle=False)
    low, high = np.min(volume), np.max(volume)
    volume = (volume - low) / (high - low) * 255
    volume = (volume - MEAN) / DEVIATION
    return np.stack((volume,) * 3, axis=1).astype(np.float32)


WAYS = {"ours": ours, "published": published}


def megabytes(way, folder):
    """Loads the largest volume in this process; prints the MB that it took."""
    part = opened(folder)
    largest = int(np.argmax(part.lengths(PLANE)))
    # TensorFlow makes itself ready at the first use, which has nothing to do with the volume.
    standardised([np.zeros((1, 8, 8, 1), np.uint8), np.zeros(1, np.int32)], part.labels[:1])
    restart()
    before = peak()
    WAYS[way](part, largest)
    print(max(peak() - before, 0.1))  # less cannot be told


def main():
    given = flags(__doc__, size=256, exams=16, repeats=5)
    spent, taken = {way: [] for way in WAYS}, {}
    with workplace() as folder:
        knees(folder / "exams", given.exams, given.size, (PLANE,))
        part = opened(folder / "exams")
        apart = max(
            np.max(np.abs(ours(part, row)[..., 0] - published(part, row)[:, channel]))
            for row in range(len(part))
            for channel in range(3)
        )
        for _ in range(given.repeats):
            for way, load in WAYS.items():
                with Clock() as clock:
                    for row in range(len(part)):
                        load(part, row)
                spent[way].append(1000 * clock.seconds / len(part))
        for way in WAYS:
            command = [sys.executable, __file__, "--memory", way, str(folder / "exams")]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            taken[way] = float(printed.stdout.splitlines()[-1])
    mean = np.mean(part.lengths(PLANE))
    print(f"{len(part)} volumes of {mean:.0f} slices in the mean, {given.size} pixels")
    names = "from the store, one channel", "read, float64, three channels"
    milliseconds = [median(spent[way]) for way in WAYS]
    conclude(*zip(names, milliseconds, strict=True), TIME_GOAL, "CPU ms a volume")
    conclude(*zip(names, taken.values(), strict=True), MEMORY_GOAL, "MB", "memory ratio")
    print(f"values agree to {apart:.1e} (at most {TOLERANCE:g})")
    return int(not apart <= TOLERANCE)


if __name__ == "__main__":
    sys.exit(megabytes(sys.argv[2], Path(sys.argv[3])) if "--memory" in sys.argv else main())
