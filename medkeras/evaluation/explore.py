"""A look at a data set before training: sizes, classes, pictures, as one HTML file.

    python -m medkeras.evaluation.explore data/bone
    python -m medkeras.evaluation.explore data/bone --out bone.html

Prints the recommended input size (the rule stands in `sizes.study`). Nothing is written into
the data folder, and TensorFlow is not needed.
"""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from medkeras import errors
from medkeras.evaluation import plots, sizes
from medkeras.evaluation.pages import rendered
from medkeras.files import atomic, decode
from medkeras.preparation import verdicts
from medkeras.readers import layouts

TEMPLATE = Path(__file__).with_name("explore.html.j2")
LOOKED_UP = 50


def explore(table, name, synthetic=False) -> tuple[str, dict]:
    """Draws a table of pictures.

    Args:
        table: from a reader: `image`, `path`, `patient`, `label`, `class`.
        name: title of the page.
        synthetic: marks every figure as made from phantoms.

    Returns:
        (HTML, the size study of `sizes.study`).

    Raises:
        errors.DataError: no picture can be read.
    """
    found, broken = _measured(table)
    if not len(found):
        raise errors.DataError([errors.Problem(path, why, "replace it") for path, why in broken])
    widths, heights = np.array(list(found.values())).T
    study = sizes.study(widths, heights)
    readable = table.loc[list(found)]
    titles, pictures = _looked_up(readable, broken)
    centres = study["centres"]
    context = {
        "name": name,
        "date": datetime.now(UTC).strftime("%d %B %Y"),
        "pictures": len(table),
        "patients": table["patient"].nunique(),
        "alone": bool((table["patient"].astype(str) == table["path"].astype(str)).all()),
        "synthetic": synthetic,
        "size": study
        | {
            "figure": plots.sizes(widths, heights, centres, study["recommended"], synthetic),
            "centres": centres.round().astype(int).tolist(),
        },
        "counts": plots.class_counts(readable, synthetic),
        "grid": plots.grid(pictures, titles, synthetic=synthetic),
        "broken": broken,
        "notes": [str(note) for note in table.attrs.get("notes", [])],
    }
    return rendered(TEMPLATE, context), study


def main(arguments=None) -> int:
    """Runs the command line above; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the data folder; nothing is written there")
    known = sorted(layouts.READERS)
    parser.add_argument("--reader", choices=known, help="its layout (default: recognised)")
    parser.add_argument("--out", type=Path, default=Path("explore.html"), help="file to write")
    given = parser.parse_args(arguments)
    try:
        if given.out.resolve().is_relative_to(given.data.resolve()):
            raise errors.UsageError(f"--out {given.out} lies in the data folder: choose another")
        reader = given.reader or layouts.recognised(given.data)
        table = layouts.READERS[reader](given.data)
        if "class" not in table:
            raise errors.UsageError(
                f"{given.data} holds findings, not classes, and only classes are drawn so far: "
                "python -m medkeras.preparation.audit counts them"
            )
        page, study = explore(table, given.data.resolve().name)
    except errors.MedkerasError as fault:
        print(fault, file=sys.stderr)
        return fault.exit_code
    atomic.write_text(given.out, page)
    centres = ", ".join(f"{w:.0f} x {h:.0f}" for w, h in study["centres"])
    print(f"K-means centres (width x height): {centres}")
    print(f"recommended size: {study['recommended']} x {study['recommended']}")
    print(given.out)
    return 0


def _measured(table):
    """Width and height of every sound picture, upright, by the audit's verdict: {index: (w, h)}."""
    found, broken = {}, []
    with verdicts.Memory() as memory:
        for index, file, path in zip(table.index, table["image"], table["path"], strict=True):
            verdict = verdicts.verdict(file, memory)
            if "reason" in verdict:
                broken.append((path, verdict["reason"]))
            else:
                found[index] = (verdict["width"], verdict["height"])
    return found, broken


def _looked_up(table, broken):
    """Titles and pixels of pictures spread evenly over the table; unreadable ones are noted."""
    titles, pictures = [], []
    spread = np.unique(np.linspace(0, len(table) - 1, LOOKED_UP).astype(int))
    for _, row in table.iloc[spread].iterrows():
        try:
            pixels = decode.picture(row["image"]).pixels
        except decode.Unreadable as fault:
            broken.append((row["path"], fault.reason))
            continue
        step = max(1, max(pixels.shape[:2]) // 320)
        titles.append(row["class"])
        pictures.append(pixels[::step, ::step])
    return titles, pictures


if __name__ == "__main__":
    sys.exit(main())
