"""Figures of a run's data and results as PNG bytes.

Every function takes `synthetic`: figures of phantoms say so in their corner.
"""

import textwrap

import numpy as np
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from medkeras.evaluation.figures import canvas
from medkeras.evaluation.numbers import calibration, statistics
from medkeras.evaluation.writing.summary import PARTS

GRID = np.linspace(0, 1, 201)
# Of the grid: letters in a line over a picture, inches of its longer side.
TITLE, SIDE = 18, 0.92
# With more curves than this, bands and guides would hide them, and their key stands below.
FEW = 4
STATES = {"positive": canvas.COLOURS[0], "negative": "#CFE3F1", "unknown": "#ECECEC"}


def roc(labels, probabilities, names, patients, seed=0, synthetic=False) -> bytes:
    """Draws ROC curves, each with a pointwise 95 % band over resampled patients.

    Args:
        labels: (n, k), NaN unknown.
        probabilities: (n, k).
        names: k class names.
        patients: (n,) patient of each picture.
        seed: of the bootstrap; 300 resamples, enough for a band that is drawn.
    """
    from sklearn.metrics import auc, roc_curve  # takes a second, and `explore` needs none

    figure, axes = canvas.axes(1, width=4.85, height=_height(names))
    axis = axes[0]
    axis.plot([0, 1], [0, 1], color=canvas.PALE, lw=1, ls="--")
    for k, name in enumerate(names):
        y, p, who = _known(labels[:, k], probabilities[:, k], patients)
        if len(set(y)) < 2:
            axis.plot([], [], color=canvas.PALE, label=f"{canvas.short(name, 28)}  undefined")
            continue
        false, true, _ = roc_curve(y, p, drop_intermediate=False)
        axis.plot(
            false,
            true,
            **canvas.curve(k),
            label=f"{canvas.short(name, 28)}  {auc(false, true):.2f}",
        )
        enough = min(len(set(who[y == 1])), len(set(who[y == 0]))) >= statistics.FEWEST_PATIENTS
        if enough and len(names) <= FEW:
            low, high = _roc_band(y, p, who, seed)
            axis.fill_between(GRID, low, high, color=canvas.colour(k), alpha=0.13, lw=0)
    axis.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC (area)")
    _unit(axis)
    _key(figure, axis, names, "lower right")
    return canvas.png(figure, synthetic)


def precision_recall(labels, probabilities, names, synthetic=False) -> bytes:
    """Draws precision over recall, with each class's share as the line of a guess."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    figure, axes = canvas.axes(1, width=4.85, height=_height(names))
    axis = axes[0]
    for k, name in enumerate(names):
        y, p = _known(labels[:, k], probabilities[:, k])
        if not (y == 1).any():
            axis.plot([], [], color=canvas.PALE, label=f"{canvas.short(name, 28)}  undefined")
            continue
        precision, recall, _ = precision_recall_curve(y, p)
        area = f"{average_precision_score(y, p):.2f}, share {y.mean():.2f}"
        label = f"{canvas.short(name, 28)}  {area}"
        axis.step(recall, precision, where="post", **canvas.curve(k), label=label)
        if len(names) <= FEW:
            axis.axhline(y.mean(), color=canvas.colour(k), lw=0.8, ls=":")
    title = "Precision and recall (area)"
    axis.set(xlabel="recall (sensitivity)", ylabel="precision", title=title)
    _unit(axis)
    _key(figure, axis, names, "lower left")
    return canvas.png(figure, synthetic)


def confusion(truth, answers, names, synthetic=False) -> bytes:
    """Draws counts of true against predicted class, shaded by the share of the true class.

    Args:
        truth: (n,) class number.
        answers: (n,) predicted class number.
        names: names of all classes; one that is absent keeps its row and column.
    """
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(truth, answers, labels=list(range(len(names))))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = canvas.axes(1, width=4.85, height=4.5)
    axis = axes[0]
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(names)):
        for column in range(len(names)):
            dark = shares[row, column] > 0.55
            text = f"{counts[row, column]}\n{shares[row, column]:.0%}"
            colour = "white" if dark else canvas.INK
            axis.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    short = [canvas.short(name) for name in names]
    axis.set_xticks(range(len(names)), short, rotation=30 if len(names) > 2 else 0, ha="center")
    axis.set_yticks(range(len(names)), short)
    axis.set(xlabel="predicted", ylabel="true", title="Confusion matrix")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    return canvas.png(figure, synthetic)


def reliability(probabilities, outcomes, title="Calibration", synthetic=False) -> bytes:
    """Draws observed against predicted, bins of equal mass, with how many stand behind each."""
    table = calibration.reliability(probabilities, outcomes)
    figure, axes = canvas.axes(1, width=4.85, height=4.5)
    axis = axes[0]
    axis.plot([0, 1], [0, 1], color=canvas.PALE, lw=1, ls="--")
    if len(table):
        observed = table["observed"]
        errors = np.maximum([observed - table["low"], table["high"] - observed], 0)
        axis.errorbar(
            table["predicted"],
            observed,
            yerr=errors,
            color=canvas.COLOURS[0],
            marker="o",
            ms=4,
            lw=1.2,
            elinewidth=0.8,
        )
        for predicted, high, n in zip(table["predicted"], table["high"], table["n"], strict=True):
            place = (predicted, min(high, 0.97))
            offset = {"xytext": (0, 2), "textcoords": "offset points"}
            axis.annotate(f"{n}", place, **offset, ha="center", fontsize=7, color=canvas.INK)
    axis.set(xlabel="predicted probability", ylabel="observed share", title=title)
    _unit(axis)
    return canvas.png(figure, synthetic)


def grid(pictures, titles, columns=10, synthetic=False) -> bytes:
    """Draws pictures in a grid with a title each, to look the data up.

    Args:
        pictures: iterable of uint8 (height, width) or (height, width, 1 or 3).
        titles: one a picture, the class name or a list of findings.
    """
    lines = [_title(title) for title in titles]
    rows = max(1, -(-len(lines) // columns))
    tall = 1.27 if any("\n" in line for line in lines) else 1.15
    figure = canvas.figure(columns, rows * tall)
    # In inches on one pair of axes: fifty pairs of their own take a second to lay out.
    axis = figure.add_subplot()
    for place, (picture, line) in enumerate(zip(pictures, lines, strict=False)):
        shown = np.squeeze(picture)
        limit = 65535 if shown.dtype == np.uint16 else 255
        height, width = SIDE * np.array(shown.shape[:2]) / max(shown.shape[:2])
        middle, foot = place % columns + 0.5, (place // columns + 1) * tall
        extent = (middle - width / 2, middle + width / 2, foot, foot - height)
        axis.imshow(shown, cmap="gray", vmin=0, vmax=limit, extent=extent)
        axis.text(middle, foot - height - 0.03, line, fontsize=6.5, ha="center", va="bottom")
    axis.set(xlim=(0, columns), ylim=(rows * tall, 0))
    axis.axis("off")
    return canvas.png(figure, synthetic)


def sizes(widths, heights, centres=None, recommended=None, synthetic=False) -> bytes:
    """Draws every picture's width and height, the clusters' centres and a recommended size.

    Args:
        widths: (n,) pixels.
        heights: (n,) pixels.
        centres: (m, 2) width and height of K-means centres.
        recommended: side of the recommended square, in pixels.
    """
    figure, axes = canvas.axes(1, width=4.85, height=4.5)
    axis = axes[0]
    axis.scatter(widths, heights, s=12, color=canvas.COLOURS[0], alpha=0.35, lw=0, label="pictures")
    if centres is not None:
        x, y = np.asarray(centres).T
        axis.scatter(
            x, y, s=70, marker="X", color=canvas.COLOURS[1], ec="white", label="K-means centres"
        )
    if recommended:
        label = f"recommended {recommended} x {recommended}"
        axis.scatter(
            [recommended], [recommended], s=80, marker="s", fc="none", ec=canvas.INK, label=label
        )
    longest = 1.08 * max(np.max(widths), np.max(heights), recommended or 0)
    axis.plot([0, longest], [0, longest], color=canvas.PALE, lw=1, ls="--", zorder=0)
    axis.set(xlabel="width, pixels", ylabel="height, pixels", title="Sizes of the pictures")
    axis.set(xlim=(0, longest), ylim=(0, longest))
    axis.legend(frameon=False, fontsize=8, loc="upper left")
    return canvas.png(figure, synthetic)


def class_counts(table, synthetic=False, unit="picture") -> bytes:
    """Draws how many rows each class has, by split where there is one.

    Args:
        table: DataFrame with `class`, `label` and maybe `split`.
        unit: what a row is.
    """
    names = list(table.sort_values("label", kind="stable")["class"].unique())
    parts = [p for p in ("train", "val", "test") if p in set(table.get("split", ()))]
    figure, axes = canvas.axes(1, width=4.85, height=1.0 + 0.45 * len(names))
    axis, left = axes[0], np.zeros(len(names))
    for part, colour in zip(parts or [None], canvas.COLOURS, strict=False):
        own = table if part is None else table[table["split"] == part]
        counts = own["class"].value_counts().reindex(names, fill_value=0).to_numpy()
        axis.barh(range(len(names)), counts, left=left, color=colour, height=0.6, label=part)
        left = left + counts
    for row, total in enumerate(left):
        axis.text(total, row, f"  {total:.0f}", va="center", fontsize=8, color=canvas.INK)
    axis.set_yticks(range(len(names)), [canvas.short(name) for name in names])
    axis.invert_yaxis()
    axis.set(xlabel=f"{unit}s", xlim=(0, 1.12 * max(left.max(), 1)))
    if parts:
        axis.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return canvas.png(figure, synthetic)


def finding_counts(table, findings, synthetic=False, unit="picture") -> bytes:
    """Draws in how many rows of each part a finding is there, is not, or is unknown.

    Args:
        table: DataFrame with `split` and a column of 1, 0 or NaN for each finding.
        findings: names of the findings.
        unit: what a row is.
    """
    names = list(findings)
    parts = [(p, table[table["split"] == p]) for p in PARTS if p in set(table["split"])]
    figure, axes = canvas.axes(len(parts), width=10 / len(parts), height=1.1 + 0.27 * len(names))
    for axis, (part, own) in zip(axes, parts, strict=True):
        there, absent = (own[names] == 1).sum(), (own[names] == 0).sum()
        places, left = np.arange(len(names)), np.zeros(len(names))
        for number, colour in zip((there, absent, own[names].isna().sum()), STATES.values()):
            axis.barh(places, number, left=left, color=colour, height=0.66)
            left = left + number.to_numpy()
        for place, number in enumerate(there):
            axis.text(number, place, f" {number}", va="center", fontsize=7.5, color=canvas.INK)
        axis.set_yticks(places, [canvas.short(name, 28) for name in names])
        axis.tick_params(axis="y", labelleft=axis is axes[0], length=0)
        axis.invert_yaxis()
        axis.set(title=PARTS[part], xlabel=f"{unit}s", xlim=(0, max(len(own), 1)))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    canvas.below(
        figure, [Patch(color=colour, label=name) for name, colour in STATES.items()], columns=3
    )
    return canvas.png(figure, synthetic)


def _roc_band(y, p, patients, seed, resamples=300):
    """Sensitivity's pointwise 2.5 and 97.5 percentiles over patient resamples, along GRID."""
    order = np.argsort(-p, kind="stable")
    last = np.r_[p[order][1:] != p[order][:-1], True]  # ties move as one step
    curves = []
    for weights in statistics.resampled(patients, resamples, seed):
        ordered = weights[:, order]
        ups = np.cumsum(ordered * (y[order] == 1), axis=1)[:, last]
        downs = np.cumsum(ordered * (y[order] == 0), axis=1)[:, last]
        usable = (ups[:, -1] > 0) & (downs[:, -1] > 0)
        for up, down in zip(ups[usable], downs[usable], strict=True):
            curves.append(np.interp(GRID, np.r_[0, down / down[-1]], np.r_[0, up / up[-1]]))
    return np.percentile(curves, [2.5, 97.5], axis=0)


def _known(labels, probabilities, *others):
    known = np.isfinite(labels)
    others = [np.asarray(other)[known] for other in others]
    return labels[known], probabilities[known], *others


def _title(given):
    """One line with a name, or as many of several as two lines hold."""
    if isinstance(given, str):
        return canvas.short(given, TITLE)
    # Broken between names alone; each leaves room for a comma and dots.
    names = [canvas.short(name, TITLE - 3).replace(" ", "\N{NO-BREAK SPACE}") for name in given]
    lines = textwrap.wrap(", ".join(names), TITLE, max_lines=2, placeholder=" …")
    return "\n".join(lines) or "none"


def _height(names):
    # Inches for the square, its words and a line a name; with less, the layout cuts the title.
    return 4.5 if len(names) <= FEW else 5.4 + 0.17 * len(names)


def _key(figure, axis, names, place):
    if len(names) <= FEW:
        axis.legend(frameon=False, fontsize=8, loc=place)
    else:
        canvas.below(figure, axis.get_legend_handles_labels()[0], columns=1)


def _unit(axis):
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
