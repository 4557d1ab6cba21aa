"""A look at a data set before training: who, which labels, which sizes, as one HTML file.

    python -m medkeras.evaluation.explore data/bone
    python -m medkeras.evaluation.explore data/CheXpert-v1.0-small --views all --out chest.html

Of patients their pictures, age and sex, as far as a set has them; of classes or findings how
many, alone and together; of pictures a look-up grid and the recommended input size, which is
printed too (the rule stands in `sizes.study`). All rows are counted. Of more than 2,000 pictures
that many, evenly spread, are opened, as a large set would take hours: the audit opens every one.
Nothing is written into the data folder, and TensorFlow is not needed.
"""

import sys
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from medkeras import commands, errors
from medkeras.evaluation.exploration import (
    explore_findings,
    explore_people,
    explore_people_plots,
    explore_pictures,
    explore_plots,
)
from medkeras.evaluation.figures import plots
from medkeras.evaluation.writing.pages import rendered
from medkeras.files import atomic
from medkeras.phantoms import folder as phantoms
from medkeras.preparation import copies
from medkeras.readers import chexpert, layouts, tables

TEMPLATE = Path(__file__).with_name("explore.html.j2")


def explore(table, name, synthetic=False) -> tuple[str, dict | None]:
    """Draws a table of pictures or exams.

    Args:
        table: from a reader, of classes or of findings; see `readers.tables`.
        name: title of the page.
        synthetic: marks every figure as made from phantoms.

    Returns:
        (HTML, the size study of `explore_pictures.measured`, None for exams).

    Raises:
        errors.DataError: no picture can be read.
    """
    files = tables.files(table)
    unit = "picture" if files == ["image"] else "exam"
    more = {"unit": unit, "synthetic": synthetic}
    sound, broken, study = table, [], None
    if unit == "picture":
        sound, broken, study = explore_pictures.measured(table, synthetic=synthetic)
    multilabel = "labels" in table.attrs
    context = {
        "name": name,
        "date": datetime.now(UTC).strftime("%d %B %Y"),
        "unit": unit,
        "rows": len(table),
        "patients": table["patient"].nunique(),
        "alone": explore_people.alone(table),
        "synthetic": synthetic,
        "people": _people(table, **more),
        "findings": _findings(table, **more) if multilabel else None,
        "classes": None if multilabel else plots.class_counts(table, synthetic, unit),
        "size": study,
        "grid": explore_pictures.grid(sound, broken, synthetic),
        "plane": None if unit == "picture" else files[0],
        "broken": broken,
        # Paths stay out of the page: they often name the patient.
        "broken_by_reason": Counter(copies.unnamed(why) for _, why in broken).most_common(),
        "notes": _notes(table),
    }
    return rendered(TEMPLATE, context), study


def main(arguments=None) -> int:
    """Runs the command line above; returns its exit code."""
    parser = commands.parser("python -m medkeras.evaluation.explore", __doc__)
    parser.add_argument("data", type=Path, help="the data folder; nothing is written there")
    known = sorted(layouts.READERS)
    parser.add_argument("--reader", choices=known, help="its layout (default: recognised)")
    views = (*chexpert.VIEWS, "all")
    parser.add_argument("--views", choices=views, help="of chest X-rays (default: frontal)")
    parser.add_argument("--out", type=Path, default=Path("explore.html"), help="file to write")
    given = parser.parse_args(arguments)
    try:
        if given.out.resolve().is_relative_to(given.data.resolve()):
            raise errors.UsageError(f"--out {given.out} lies in the data folder: choose another")
        reader = given.reader or layouts.recognised(given.data)
        read = layouts.READERS[reader]
        if given.views and reader != "chexpert":
            raise errors.UsageError(f"--views is for chest X-rays, and {given.data} is {reader}")
        if given.views:
            read = partial(read, views=given.views)
        table = read(given.data)
        page, study = explore(table, given.data.resolve().name, phantoms.are_phantoms(given.data))
    except errors.MedkerasError as fault:
        print(fault, file=sys.stderr)
        return fault.exit_code
    atomic.write_text(given.out, page)
    if study:
        centres = ", ".join(f"{w} x {h}" for w, h in study["centres"])
        print(f"K-means centres (width x height): {centres}")
        print(f"recommended size: {study['recommended']} x {study['recommended']}")
    print(given.out)
    return 0


def _people(table, unit, synthetic):
    """Tables and figures of patients; None where nothing is known of any."""
    described = explore_people.characteristics(table, unit)
    years, counts = explore_people.ages(table), explore_people.records(table)
    if len(described["rows"]) == 1:
        return None
    drawn, figures = explore_people_plots, {}
    if counts.index.max() > 1:
        figures["records"] = drawn.records(counts, unit, synthetic)
        if years is not None:
            found = explore_people.by_decade(table)
            figures["decades"] = drawn.decades(found, unit, synthetic)
    if years is not None:
        figures["ages"] = drawn.ages(years, table.get("sex"), unit, synthetic)
    nought = int((table["age"] == 0).sum()) if years is not None else 0
    return {"described": described, "figures": figures, "age_0": nought}


def _findings(table, unit, synthetic):
    """Tables and figures of findings."""
    findings, found = tables.labels(table), explore_findings
    split = explore_people.parts(table)
    counted = {part: found.counts(own, findings) for part, own in split.items()}
    blank = "not mentioned" if found.tells_uncertain(table, findings) else "unknown"
    numbers, ages = found.numbers(table, findings), found.ages(table, findings)
    combined = found.combinations(table, findings)
    more = {"unit": unit, "synthetic": synthetic}
    figures = {
        "states": explore_plots.states(counted, blank, **more),
        "numbers": explore_plots.numbers(numbers, **more),
        "company": explore_plots.company(found.company(table, findings), **more),
        "combinations": explore_plots.combinations(combined, len(table), synthetic),
        "together": explore_plots.together(found.together(table, findings), synthetic),
    }
    if ages is not None:
        figures["ages"] = explore_plots.ages_of(ages, synthetic)
    return {
        "parts": [
            {"name": part, "n": len(own), "rows": counted[part].to_dict("index")}
            for part, own in split.items()
        ],
        "states": {state: blank if state == "blank" else state for state in found.STATES},
        "uncertain": any(own["uncertain"].any() for own in counted.values()),
        "one": int(numbers.get(1, 0)),
        "several": int(numbers[numbers.index > 1].sum()),
        "none": found.NONE if found.NONE in findings else None,
        "combined": combined,
        "ages": _by_sex(ages),
        "figures": figures,
    }


def _by_sex(ages):
    """Rows of a table, one a finding; None without ages."""
    if ages is None:
        return None
    cells = ages.astype(object).where(ages.notna(), None)
    rows = [
        {"name": name or "all", "cells": own.to_dict("records")}
        for name, own in cells.groupby("finding", sort=False)
    ]
    return {"sexes": list(ages["sex"].unique()), "rows": rows}


def _notes(table):
    """Words what the reader remarked; of single rows what, and not which."""
    rows, found = set(table["path"]), []
    for note in table.attrs.get("notes", []):
        of_rows = rows & set(note["path"].split(", "))
        found.append(note["reason"] if of_rows else f"{note['path']}: {note['reason']}")
    return found


if __name__ == "__main__":
    sys.exit(main())
