"""A figure of many AUCs: a dot and an interval for each finding, one below the other."""

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from medkeras.evaluation.figures import canvas

GUESS = 0.5
OPEN = "#CFE3F1"  # what uncertain labels leave open


def aucs(found, names, scored=(), synthetic=False) -> bytes:
    """Draws the AUC of each finding with its 95 % interval, beside that of guessing.

    A pale bar spans what uncertain labels leave open. A finding without an AUC keeps its line.

    Args:
        found: content of `metrics.json`, of one part.
        names: findings from top to bottom.
        scored: those of them that are drawn in another colour.
    """
    figure, axes = canvas.axes(1, width=10, height=1.3 + 0.27 * len(names))
    axis, colours = axes[0], (canvas.COLOURS[0], canvas.INK)
    ends = [
        entry["low"]
        for name in names
        for entry in (found["classes"][name]["auc"], found["classes"][name].get("auc_bounds", {}))
        if entry.get("low") is not None
    ]
    left = max(0, np.floor(10 * min([GUESS, *ends]) - 0.5) / 10)
    axis.axvline(GUESS, color=canvas.PALE, lw=1, ls="--", zorder=0)
    for place, name in enumerate(names):
        own = found["classes"][name]
        auc, bounds = own["auc"], own.get("auc_bounds", {})
        colour = colours[0] if name in scored else colours[1]
        if auc["value"] is None:
            said = f"  undefined: {auc['undefined']}"
            axis.text(left, place, said, va="center", fontsize=7.5, color="#9A3B00")
            continue
        if bounds.get("low") is not None:
            width = bounds["high"] - bounds["low"]
            axis.barh(place, width, left=bounds["low"], height=0.62, color=OPEN, zorder=1)
        if auc["low"] is not None:
            axis.plot([auc["low"], auc["high"]], [place, place], color=colour, lw=1.6)
        axis.plot(auc["value"], place, marker="o", ms=5, color=colour, lw=0)
    axis.set_yticks(np.arange(len(names)), [canvas.short(name, 28) for name in names])
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()
    axis.set(xlim=(left, 1.01), xlabel="area under the ROC curve; dashed: guessing")
    kinds = [(colours[1], "other findings"), (colours[0], "scored findings")]
    look = {"marker": "o", "ms": 5, "lw": 1.6}
    keys = [Line2D([], [], color=own, label=said, **look) for own, said in kinds if scored]
    if any("auc_bounds" in found["classes"][name] for name in names):
        keys.append(Patch(color=OPEN, label="range over all answers to uncertain labels"))
    if keys:
        canvas.below(figure, keys[::-1], columns=3)
    return canvas.png(figure, synthetic)
