"""What the benchmarks share: flags, a clock of CPU time, data to work on, the closing lines.

The clock counts the CPU time of the whole process, user and system, all threads. On a shared
machine wall time moves two- to fivefold from one minute to the next, CPU time by a few per
cent. TensorFlow gets one thread an operation: threads that wait for each other spin, which
would count as work.
"""

import argparse
import json
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

# Read when TensorFlow starts, which is later than this.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import cv2
import numpy as np
import pandas as pd

from medkeras.files import decode
from medkeras.preparation import pipeline
from medkeras.readers.mrnet import LABELS, PLANES
from medkeras.training import features


class Clock:
    """CPU seconds spent between entering and leaving it."""

    def __enter__(self):
        self._began = time.process_time()
        return self

    def __exit__(self, *fault):
        self.seconds = time.process_time() - self._began


def flags(doc, **defaults):
    """Reads whole numbers from the command line, `--name N` for each default."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in defaults.items():
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"default {default}"
        )
    return parser.parse_args()


@contextmanager
def workplace():
    """Yields a folder that is deleted afterwards, with an empty cache of medkeras in it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["MEDKERAS_CACHE"] = str(Path(folder) / "cache")
        yield Path(folder)


def radiographs(folder, count, height, width, seed=0) -> pd.DataFrame:
    """Writes grey JPEG pictures of two classes, `a/` and `b/`: smooth shapes and some noise.

    Returns:
        Their table, every fourth picture in "val", the others in "train".
    """
    rng, rows = np.random.default_rng(seed), []
    for number in range(count):
        name = "ab"[number // 2 % 2]
        coarse = rng.uniform(20, 235, (10 + 4 * (number // 2 % 2), 8)).astype(np.float32)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        noisy = smooth + rng.standard_normal((height, width), np.float32) * 4
        path = folder / name / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = np.clip(noisy, 0, 255).astype(np.uint8)
        path.write_bytes(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
        part = "val" if number % 4 == 3 else "train"
        rows.append((str(path), f"{name}/{path.name}", str(number), "ab".index(name), name, part))
    columns = ["image", "path", "patient", "label", "class", "split"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(sha256=[decode.fingerprint(path) for path in table["image"]])


def knees(folder, count, size, planes=PLANES) -> pd.DataFrame:
    """Writes knee MRI exams of noise, 20 to 44 slices a plane, and their table, `exams.json`.

    Returns:
        The table, every fourth exam in "val", the others in "train"; see `reopened`.
    """
    folder.mkdir()
    rng, rows = np.random.default_rng(0), []
    for number in range(count):
        row = {"path": f"{number:04d}", "split": "val" if number % 4 == 3 else "train"}
        for plane in planes:
            shape = (int(rng.integers(20, 45)), size, size)
            row[plane] = str(folder / f"{plane}-{number:04d}.npy")
            np.save(row[plane], rng.integers(0, 256, shape, dtype=np.uint8))
        findings = number % 2, number // 2 % 2, (number + 1) // 2 % 2
        rows.append(row | dict(zip(LABELS, map(float, findings), strict=True)))
    table = pd.DataFrame(rows)
    (folder / "exams.json").write_text(json.dumps(table.to_dict("list")))
    return reopened(folder)


def reopened(folder) -> pd.DataFrame:
    """Reads the table that `knees` wrote, as another process does."""
    table = pd.DataFrame(json.loads((folder / "exams.json").read_text()))
    planes = [plane for plane in PLANES if plane in table]
    table.attrs = {"images": planes, "labels": list(LABELS)}
    return table


def streamed(data, first, last):
    """Streams the training batches of the epochs first..last-1, as `loop.train` does."""
    feed, count, size = features.Pictures(None, data), len(data.train), data.batch_size
    batches = -(-count // size)

    def batch(step):
        epoch, number = divmod(int(step), batches)
        rows = pipeline.order(count, 0, 1, epoch)[number * size : (number + 1) * size]
        return feed.train(rows, epoch), data.train.labels[rows]

    return pipeline.stream(batch, first * batches, last * batches)


def conclude(ours, theirs, goal, unit="CPU s", what="ratio", digits=1):
    """Prints both sides, (what it is, amount) each, and how often ours goes into theirs."""
    for name, amount in (ours, theirs):
        print(f"{amount:12.4f} {unit}  {name}")
    print(f"{what} {theirs[1] / ours[1]:.{digits}f} (goal >= {goal})", flush=True)
