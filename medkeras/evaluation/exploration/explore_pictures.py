"""Opens the pictures or exams of a table before training: which size, and a grid to look at."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from medkeras import errors
from medkeras.evaluation.exploration import explore_findings, sizes
from medkeras.evaluation.figures import plots
from medkeras.files import decode, volume
from medkeras.preparation import conform, verdicts
from medkeras.progress import bar
from medkeras.readers import tables

# More are not opened: every one of 200,000 X-rays would take hours, and change no centre.
MEASURED = 2000
LOOKED_UP = 50
SLICE = 256  # height and width at which slices are shown, pixels


def measured(table, most=MEASURED, synthetic=False):
    """Opens pictures spread evenly over a table, by the audit's verdict, and studies their sizes.

    Args:
        table: with `image` and `path`.
        most: pictures to open.
        synthetic: marks the figure as made from phantoms.

    Returns:
        The rows whose picture can be read, of those opened; (path, reason) of the others;
        `sizes.study` with its `figure`, its `centres` rounded and in a list, and `opened`, how
        many were.

    Raises:
        errors.DataError: none of them can be read.
    """
    table = table.iloc[_spread(len(table), most)]
    found = []
    with (
        verdicts.Memory() as memory,
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
        bar("measuring") as progress,
    ):
        for verdict in pool.map(lambda file: verdicts.verdict(file, memory), table["image"]):
            found.append(verdict)
            progress(len(found), len(table))
    reasons = [verdict.get("reason") for verdict in found]
    broken = [(path, why) for path, why in zip(table["path"], reasons, strict=True) if why]
    if len(broken) == len(table):
        raise errors.DataError([errors.Problem(path, why, "replace it") for path, why in broken])
    sides = [(one["width"], one["height"]) for one in found if "reason" not in one]
    widths, heights = np.array(sides).T
    study = sizes.study(widths, heights)
    drawn = plots.sizes(widths, heights, study["centres"], study["recommended"], synthetic)
    study |= {"figure": drawn, "centres": study["centres"].round().astype(int).tolist()}
    return table[[why is None for why in reasons]], broken, study | {"opened": len(table)}


def grid(table, broken, synthetic=False) -> bytes:
    """Draws pictures spread evenly over a table, of an exam the middle slice of its first plane.

    Args:
        table: from a reader.
        broken: list of (path, reason) that grows by those that cannot be read.
        synthetic: marks the figure as made from phantoms.
    """
    rows = table.iloc[_spread(len(table), LOOKED_UP)]
    names = rows.get("class")
    if "labels" in table.attrs:
        names = explore_findings.titles(rows, tables.labels(table))
    titles, pictures = [], []
    for (_, row), name in zip(rows.iterrows(), names, strict=True):
        try:
            pixels = _shown(row, tables.files(table))
        except decode.Unreadable as fault:
            broken.append((row["path"], fault.reason))
            continue
        step = max(1, max(pixels.shape[:2]) // 320)
        titles.append(name)
        pictures.append(pixels[::step, ::step])
    return plots.grid(pictures, titles, synthetic=synthetic)


def _shown(row, files):
    if files == ["image"]:
        return decode.picture(row["image"]).pixels
    slices = conform.volume(volume.volume(row[files[0]]).pixels, SLICE)
    return slices[len(slices) // 2]


def _spread(count, most):
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))
