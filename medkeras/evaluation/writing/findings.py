"""What a report says of many findings: their order, which were never trained, uncertain labels."""

from dataclasses import replace

import numpy as np

from medkeras.evaluation.writing.summary import PARTS
from medkeras.preparation import uncertainty
from medkeras.readers.tables import UNCERTAIN

MEANT = {0.0: "absent", 1.0: "present"}


def scored(found) -> list[str]:
    """Returns the findings whose mean is reported on its own, from `metrics.json`."""
    return list(found.get("scored", {}).get("findings", ()))


def ordered(found) -> list[str]:
    """Returns the names of all classes of `metrics.json`, the scored findings first."""
    first = scored(found)
    return first + [name for name in found["classes"] if name not in first]


def judged(scores):
    """Returns scores in which the findings that were never trained have no known label.

    So no figure and no list of mistakes shows what nothing has been learned of.

    Args:
        scores: from `evaluate.evaluate`.
    """
    blind = {f"label_{name}": np.nan for name in scores.metrics.get("untrained", ())}
    return replace(scores, predictions=scores.predictions.assign(**blind))


def never(data, found) -> list[str]:
    """Says of each finding that was never trained what the training part lacks.

    Args:
        data: `pipeline.Data`.
        found: content of `metrics.json`.
    """
    said, names = [], found.get("untrained", ())
    targets = data.train.targets() if names else None
    for name in names:
        own = targets[:, data.findings.index(name)]
        lacks = [
            kind
            for kind, there in (("present", own > 0.5), ("absent", own < 0.5))
            if not there.any()
        ]
        said.append(f"{name} (never {' nor '.join(lacks)} in the training part)")
    return said


def labels(data) -> dict | None:
    """Counts what became of uncertain labels, and of those that a report does not mention.

    Args:
        data: `pipeline.Data`.

    Returns:
        "rows": of `uncertainty.counts`; "total": their sums; "effect": what all findings'
        uncertain labels count as, None where that differs; "blank_as": "absent", "present" or
        None; "parts": of validation and test how many labels there are, and how many of them
        are uncertain or blank. None where no label was touched and no policy says how.
    """
    table = data.table
    blank = [name for name in data.findings if uncertainty.BLANK + name in table]
    if not data.findings or data.policy is None and not blank:
        return None
    rows = uncertainty.counts(data).to_dict("records")
    effects = {row["effect"] for row in rows}
    values = {
        value
        for name in blank
        for value in table.loc[table[uncertainty.BLANK + name], name].unique()
    }
    return {
        "rows": rows,
        "total": {
            key: sum(row[key] for row in rows)
            for key in ("present", "absent", "blank", "unknown", "uncertain")
        },
        "effect": effects.pop() if len(effects) == 1 else None,
        "blank_as": " or ".join(sorted(MEANT[value] for value in values)) or None,
        "parts": [_left(data, part) for part in ("val", "test")],
    }


def _left(data, part):
    """How many labels of a part are uncertain, and how many blank."""
    own = data.table[data.table["split"] == part]
    marked = {
        kind: sum(int(uncertainty.flags(own, mark + name).sum()) for name in data.findings)
        for kind, mark in (("uncertain", UNCERTAIN), ("blank", uncertainty.BLANK))
    }
    return {"name": PARTS[part], "labels": len(own) * len(data.findings), **marked}
