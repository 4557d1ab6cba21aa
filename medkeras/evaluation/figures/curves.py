"""Figures over epochs: the learning curves of a run, and those of several runs side by side."""

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from medkeras.evaluation.figures import canvas

TRAINING = {"ls": (0, (4, 2)), "lw": 1, "alpha": 0.45}
# Three more, of Paul Tol's muted scheme, that stay apart from the others.
MORE = (*canvas.COLOURS, "#882255", "#999933", "#332288")


def learned(history, synthetic=False, findings=()) -> bytes:
    """Draws loss and metrics over all epochs, training and validation, stages divided.

    Metrics named after a finding (`auc_acl`) share a panel by kind, with a line a finding; of more
    than seven findings those of validation alone. An epoch in which a metric is undefined (NaN)
    leaves a gap.

    Args:
        history: DataFrame as `history.csv`: stage, epoch, loss, val_loss, metrics.
        findings: names of the findings, of many labels.
    """
    panels = _panels(history, findings)
    crowded = len(findings) > len(canvas.COLOURS)
    columns = 2 if crowded or len(panels) == 4 else min(len(panels), 3)
    figure, axes = canvas.axes(max(len(panels), 1), 10 / max(columns, 1), 3.1, max(columns, 1))
    x = np.arange(1, len(history) + 1)
    stages = history["stage"].to_numpy() if "stage" in history else np.zeros(len(history))
    for axis, (title, lines) in zip(axes, panels.items(), strict=False):
        for k, column in lines.items():
            if k is None:
                axis.plot(x, history[column], **canvas.dots(0), label="training")
                axis.plot(x, history[f"val_{column}"], **canvas.dots(1), label="validation")
                axis.legend(frameon=False, fontsize=8)
                continue
            axis.plot(x, history[f"val_{column}"], **canvas.dots(k))
            if not crowded:
                axis.plot(x, history[column], **canvas.dots(k) | TRAINING)
        for edge in np.flatnonzero(stages[1:] != stages[:-1]):
            axis.axvline(edge + 1.5, color=canvas.PALE, lw=1, ls="--")
            axis.annotate(
                f"stage {stages[edge + 1]}",
                (edge + 1.5, 0),
                xycoords=("data", "axes fraction"),
                xytext=(3, 4),
                textcoords="offset points",
                fontsize=7,
                color=canvas.INK,
            )
        axis.set(xlabel="epoch", title=title)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if any(None not in lines for lines in panels.values()):
        keys = [
            Line2D([], [], label=canvas.short(name, 28), **canvas.dots(k))
            for k, name in enumerate(findings)
        ]
        keys.append(Line2D([], [], color=canvas.INK, label="validation"))
        if not crowded:
            keys.append(Line2D([], [], color=canvas.INK, label="training", **TRAINING))
        canvas.below(figure, keys, columns=5)
    return canvas.png(figure, synthetic)


def _panels(history, findings):
    """Titles of panels, and what each draws: one column, or a finding's number to its column."""
    plain, kinds = [], {}
    for column in history.columns:
        if column in ("stage", "epoch", "learning_rate", "seconds"):
            continue
        if column.startswith("val_") or f"val_{column}" not in history:
            continue
        own = [k for k, name in enumerate(findings) if column.endswith(f"_{name}")]
        if not own:
            plain.append(column)
            continue
        finding = max(own, key=lambda k: len(findings[k]))
        kinds.setdefault(column.removesuffix(f"_{findings[finding]}"), {})[finding] = column
    plain = sorted(plain, key=lambda column: column != "loss")[:6]
    panels = {column.replace("_", " "): {None: column} for column in plain}
    return panels | {f"{kind.replace('_', ' ')}, by finding": own for kind, own in kinds.items()}


def compared(runs) -> bytes:
    """Draws loss and AUC over the epochs, training dashed, validation solid, a colour a run.

    A ring marks the epoch whose weights were kept. From the eleventh run on colours repeat.

    Args:
        runs: list of `records.Record`.
    """
    rows = -(-(len(runs) + 3) // 3)
    figure, axes = canvas.axes(2, width=5, height=3.6 + 0.19 * rows)
    for axis, name in zip(axes, ("loss", "auc")):
        drawn = [_draw(axis, run, name, MORE[k % len(MORE)]) for k, run in enumerate(runs)]
        axis.set(xlabel="epoch", title={"loss": "loss", "auc": "AUC"}[name])
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if not any(drawn):
            axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center")
            axis.set(xticks=[], yticks=[])
    keys = [
        Line2D([], [], color=MORE[k % len(MORE)], lw=2, label=canvas.short(run.name, 40))
        for k, run in enumerate(runs)
    ]
    keys += [
        Line2D([], [], color=canvas.INK, lw=1.1, ls="--", label="training"),
        Line2D([], [], color=canvas.INK, lw=1.6, label="validation"),
        Line2D([], [], color=canvas.INK, lw=0, marker="o", mfc="none", label="epoch that was kept"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return canvas.png(figure, any(run.synthetic for run in runs))


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
