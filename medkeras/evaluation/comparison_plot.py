"""The figure of a comparison: loss and AUC of several runs over their epochs."""

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from medkeras.evaluation import plots

# Three more, of Paul Tol's muted scheme, that stay apart from the others.
COLOURS = (*plots.COLOURS, "#882255", "#999933", "#332288")


def curves(runs) -> bytes:
    """Draws loss and AUC over the epochs, training dashed, validation solid, a colour a run.

    A ring marks the epoch whose weights were kept. From the eleventh run on colours repeat.

    Args:
        runs: list of `records.Record`.
    """
    rows = -(-(len(runs) + 3) // 3)
    figure, axes = plots._axes(2, width=5, height=3.6 + 0.19 * rows)
    for axis, name in zip(axes, ("loss", "auc")):
        drawn = [_draw(axis, run, name, COLOURS[k % len(COLOURS)]) for k, run in enumerate(runs)]
        axis.set(xlabel="epoch", title={"loss": "loss", "auc": "AUC"}[name])
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if not any(drawn):
            axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center")
            axis.set(xticks=[], yticks=[])
    keys = [
        Line2D([], [], color=COLOURS[k % len(COLOURS)], lw=2, label=plots._short(run.name, 40))
        for k, run in enumerate(runs)
    ]
    keys += [
        Line2D([], [], color=plots.INK, lw=1.1, ls="--", label="training"),
        Line2D([], [], color=plots.INK, lw=1.6, label="validation"),
        Line2D([], [], color=plots.INK, lw=0, marker="o", mfc="none", label="epoch that was kept"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return plots._png(figure, any(run.synthetic for run in runs))


def _draw(axis, run, name, colour):
    """Draws one run's two lines; says whether there was anything to draw."""
    table, best = run.curves(), run.best()
    x = np.arange(1, len(table) + 1)
    alone = "." if len(table) == 1 else None  # one point makes no line
    axis.plot(x, table[name], color=colour, lw=1.1, ls="--", marker=alone, alpha=0.75)
    axis.plot(x, table[f"val_{name}"], color=colour, lw=1.6, marker=alone)
    if best is not None:
        kept = table[f"val_{name}"][best]
        axis.plot(best + 1, kept, color=colour, marker="o", ms=7, mfc="none", mew=1.6)
    return bool(table[[name, f"val_{name}"]].notna().any(axis=None))
