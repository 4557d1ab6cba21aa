"""Figures of a run as PNG bytes: one quiet style, colours that colour-blind readers can tell.

Every function takes `synthetic`: figures of phantoms say so in their corner.
"""

import io
import textwrap

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from medkeras.evaluation import calibration, statistics
from medkeras.evaluation.summary import PARTS

# Okabe and Ito (2008), without the yellow, which is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#333333")
INK, PALE = "#333333", "#B8BEC6"
DPI = 160
GRID = np.linspace(0, 1, 201)
TITLE = 18  # letters in a line over a picture of the grid
# With more curves than this, bands and guides would hide them, and their key stands below.
FEW = 4
# The second and third round of colours.
STROKES, MARKS = ("-", (0, (6, 1.5)), (0, (1, 1))), ("o", "^", "s")
STATES = {"positive": COLOURS[0], "negative": "#CFE3F1", "unknown": "#ECECEC"}
TRAINING = {"ls": (0, (4, 2)), "lw": 1, "alpha": 0.45}


def learning_curves(history, synthetic=False, findings=()) -> bytes:
    """Draws loss and metrics over all epochs, training and validation, stages divided.

    Metrics named after a finding (`auc_acl`) share a panel by kind, with a line a finding; of more
    than seven findings those of validation alone. An epoch in which a metric is undefined (NaN)
    leaves a gap.

    Args:
        history: DataFrame as `history.csv`: stage, epoch, loss, val_loss, metrics.
        findings: names of the findings, of many labels.
    """
    panels = _panels(history, findings)
    crowded = len(findings) > len(COLOURS)
    columns = 2 if crowded or len(panels) == 4 else min(len(panels), 3)
    figure, axes = _axes(max(len(panels), 1), 10 / max(columns, 1), 3.1, max(columns, 1))
    x = np.arange(1, len(history) + 1)
    stages = history["stage"].to_numpy() if "stage" in history else np.zeros(len(history))
    for axis, (title, lines) in zip(axes, panels.items(), strict=False):
        for k, column in lines.items():
            if k is None:
                axis.plot(x, history[column], **_dots(0), label="training")
                axis.plot(x, history[f"val_{column}"], **_dots(1), label="validation")
                axis.legend(frameon=False, fontsize=8)
                continue
            axis.plot(x, history[f"val_{column}"], **_dots(k))
            if not crowded:
                axis.plot(x, history[column], **_dots(k) | TRAINING)
        for edge in np.flatnonzero(stages[1:] != stages[:-1]):
            axis.axvline(edge + 1.5, color=PALE, lw=1, ls="--")
            axis.annotate(
                f"stage {stages[edge + 1]}",
                (edge + 1.5, 0),
                xycoords=("data", "axes fraction"),
                xytext=(3, 4),
                textcoords="offset points",
                fontsize=7,
                color=INK,
            )
        axis.set(xlabel="epoch", title=title)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if any(None not in lines for lines in panels.values()):
        keys = [
            Line2D([], [], label=_short(name, 28), **_dots(k)) for k, name in enumerate(findings)
        ]
        keys.append(Line2D([], [], color=INK, label="validation"))
        if not crowded:
            keys.append(Line2D([], [], color=INK, label="training", **TRAINING))
        _below(figure, keys, columns=5)
    return _png(figure, synthetic)


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

    figure, axes = _axes(1, width=4.85, height=_height(names))
    axis = axes[0]
    axis.plot([0, 1], [0, 1], color=PALE, lw=1, ls="--")
    for k, name in enumerate(names):
        y, p, who = _known(labels[:, k], probabilities[:, k], patients)
        if len(set(y)) < 2:
            axis.plot([], [], color=PALE, label=f"{_short(name, 28)}  undefined")
            continue
        false, true, _ = roc_curve(y, p, drop_intermediate=False)
        axis.plot(false, true, **_curve(k), label=f"{_short(name, 28)}  {auc(false, true):.2f}")
        enough = min(len(set(who[y == 1])), len(set(who[y == 0]))) >= statistics.FEWEST_PATIENTS
        if enough and len(names) <= FEW:
            low, high = _roc_band(y, p, who, seed)
            axis.fill_between(GRID, low, high, color=_colour(k), alpha=0.13, lw=0)
    axis.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC (area)")
    _unit(axis)
    _key(figure, axis, names, "lower right")
    return _png(figure, synthetic)


def precision_recall(labels, probabilities, names, synthetic=False) -> bytes:
    """Draws precision over recall, with each class's share as the line of a guess."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    figure, axes = _axes(1, width=4.85, height=_height(names))
    axis = axes[0]
    for k, name in enumerate(names):
        y, p = _known(labels[:, k], probabilities[:, k])
        if not (y == 1).any():
            axis.plot([], [], color=PALE, label=f"{_short(name, 28)}  undefined")
            continue
        precision, recall, _ = precision_recall_curve(y, p)
        area = f"{average_precision_score(y, p):.2f}, share {y.mean():.2f}"
        label = f"{_short(name, 28)}  {area}"
        axis.step(recall, precision, where="post", **_curve(k), label=label)
        if len(names) <= FEW:
            axis.axhline(y.mean(), color=_colour(k), lw=0.8, ls=":")
    title = "Precision and recall (area)"
    axis.set(xlabel="recall (sensitivity)", ylabel="precision", title=title)
    _unit(axis)
    _key(figure, axis, names, "lower left")
    return _png(figure, synthetic)


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
    figure, axes = _axes(1, width=4.85, height=4.5)
    axis = axes[0]
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(names)):
        for column in range(len(names)):
            dark = shares[row, column] > 0.55
            text = f"{counts[row, column]}\n{shares[row, column]:.0%}"
            colour = "white" if dark else INK
            axis.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    short = [_short(name) for name in names]
    axis.set_xticks(range(len(names)), short, rotation=30 if len(names) > 2 else 0, ha="center")
    axis.set_yticks(range(len(names)), short)
    axis.set(xlabel="predicted", ylabel="true", title="Confusion matrix")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    return _png(figure, synthetic)


def reliability(probabilities, outcomes, title="Calibration", synthetic=False) -> bytes:
    """Draws observed against predicted, bins of equal mass, with how many stand behind each."""
    table = calibration.reliability(probabilities, outcomes)
    figure, axes = _axes(1, width=4.85, height=4.5)
    axis = axes[0]
    axis.plot([0, 1], [0, 1], color=PALE, lw=1, ls="--")
    if len(table):
        observed = table["observed"]
        errors = np.maximum([observed - table["low"], table["high"] - observed], 0)
        axis.errorbar(
            table["predicted"],
            observed,
            yerr=errors,
            color=COLOURS[0],
            marker="o",
            ms=4,
            lw=1.2,
            elinewidth=0.8,
        )
        for predicted, high, n in zip(table["predicted"], table["high"], table["n"], strict=True):
            place = (predicted, min(high, 0.97))
            offset = {"xytext": (0, 2), "textcoords": "offset points"}
            axis.annotate(f"{n}", place, **offset, ha="center", fontsize=7, color=INK)
    axis.set(xlabel="predicted probability", ylabel="observed share", title=title)
    _unit(axis)
    return _png(figure, synthetic)


def grid(pictures, titles, columns=10, synthetic=False) -> bytes:
    """Draws pictures in a grid with a title each, to look the data up.

    Args:
        pictures: iterable of uint8 (height, width) or (height, width, 1 or 3).
        titles: one a picture, the class name or a list of findings.
    """
    rows = max(1, -(-len(titles) // columns))
    lines = [_title(title) for title in titles]
    figure = _figure(columns * 1.0, rows * (1.27 if any("\n" in one for one in lines) else 1.15))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, picture, title in zip(axes, pictures, lines, strict=False):
        shown = np.squeeze(picture)
        limit = 65535 if shown.dtype == np.uint16 else 255
        axis.imshow(shown, cmap="gray", vmin=0, vmax=limit)
        axis.set_title(title, fontsize=6.5, pad=2, fontweight="normal", loc="center")
    return _png(figure, synthetic)


def sizes(widths, heights, centres=None, recommended=None, synthetic=False) -> bytes:
    """Draws every picture's width and height, the clusters' centres and a recommended size.

    Args:
        widths: (n,) pixels.
        heights: (n,) pixels.
        centres: (m, 2) width and height of K-means centres.
        recommended: side of the recommended square, in pixels.
    """
    figure, axes = _axes(1, width=4.85, height=4.5)
    axis = axes[0]
    axis.scatter(widths, heights, s=12, color=COLOURS[0], alpha=0.35, lw=0, label="pictures")
    if centres is not None:
        x, y = np.asarray(centres).T
        axis.scatter(x, y, s=70, marker="X", color=COLOURS[1], ec="white", label="K-means centres")
    if recommended:
        label = f"recommended {recommended} x {recommended}"
        axis.scatter([recommended], [recommended], s=80, marker="s", fc="none", ec=INK, label=label)
    longest = 1.08 * max(np.max(widths), np.max(heights), recommended or 0)
    axis.plot([0, longest], [0, longest], color=PALE, lw=1, ls="--", zorder=0)
    axis.set(xlabel="width, pixels", ylabel="height, pixels", title="Sizes of the pictures")
    axis.set(xlim=(0, longest), ylim=(0, longest))
    axis.legend(frameon=False, fontsize=8, loc="upper left")
    return _png(figure, synthetic)


def class_counts(table, synthetic=False, unit="picture") -> bytes:
    """Draws how many rows each class has, by split where there is one.

    Args:
        table: DataFrame with `class`, `label` and maybe `split`.
        unit: what a row is.
    """
    names = list(table.sort_values("label", kind="stable")["class"].unique())
    parts = [p for p in ("train", "val", "test") if p in set(table.get("split", ()))]
    figure, axes = _axes(1, width=4.85, height=1.0 + 0.45 * len(names))
    axis, left = axes[0], np.zeros(len(names))
    for part, colour in zip(parts or [None], COLOURS, strict=False):
        own = table if part is None else table[table["split"] == part]
        counts = own["class"].value_counts().reindex(names, fill_value=0).to_numpy()
        axis.barh(range(len(names)), counts, left=left, color=colour, height=0.6, label=part)
        left = left + counts
    for row, total in enumerate(left):
        axis.text(total, row, f"  {total:.0f}", va="center", fontsize=8, color=INK)
    axis.set_yticks(range(len(names)), [_short(name) for name in names])
    axis.invert_yaxis()
    axis.set(xlabel=f"{unit}s", xlim=(0, 1.12 * max(left.max(), 1)))
    if parts:
        axis.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return _png(figure, synthetic)


def finding_counts(table, findings, synthetic=False, unit="picture") -> bytes:
    """Draws in how many rows of each part a finding is there, is not, or is unknown.

    Args:
        table: DataFrame with `split` and a column of 1, 0 or NaN for each finding.
        findings: names of the findings.
        unit: what a row is.
    """
    names = list(findings)
    parts = [(p, table[table["split"] == p]) for p in PARTS if p in set(table["split"])]
    figure, axes = _axes(len(parts), width=10 / len(parts), height=1.1 + 0.27 * len(names))
    for axis, (part, own) in zip(axes, parts, strict=True):
        there, absent = (own[names] == 1).sum(), (own[names] == 0).sum()
        places, left = np.arange(len(names)), np.zeros(len(names))
        for number, colour in zip((there, absent, own[names].isna().sum()), STATES.values()):
            axis.barh(places, number, left=left, color=colour, height=0.66)
            left = left + number.to_numpy()
        for place, number in enumerate(there):
            axis.text(number, place, f" {number}", va="center", fontsize=7.5, color=INK)
        axis.set_yticks(places, [_short(name, 28) for name in names])
        axis.tick_params(axis="y", labelleft=axis is axes[0], length=0)
        axis.invert_yaxis()
        axis.set(title=PARTS[part], xlabel=f"{unit}s", xlim=(0, max(len(own), 1)))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    _below(figure, [Patch(color=colour, label=name) for name, colour in STATES.items()], columns=3)
    return _png(figure, synthetic)


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


def _short(name, most=18):
    # A dollar sign would be read as the start of a formula.
    name = str(name).replace("$", r"\$").replace("_", " ")
    return name if len(name) <= most else name[: most - 1] + "…"


def _title(given):
    """One line with a name, or as many of several as two lines hold."""
    if isinstance(given, str):
        return _short(given, TITLE)
    # Broken between names alone; each leaves room for a comma and dots.
    names = [_short(name, TITLE - 3).replace(" ", "\N{NO-BREAK SPACE}") for name in given]
    lines = textwrap.wrap(", ".join(names), TITLE, max_lines=2, placeholder=" …")
    return "\n".join(lines) or "none"


def _figure(width, height):
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _axes(count, width, height, columns=None):
    columns = columns or count
    rows = -(-count // columns)
    figure = _figure(width * columns, height * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.axis("off")
    for axis in axes[:count]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(PALE)
        axis.tick_params(colors=INK, labelsize=8, color=PALE)
        axis.xaxis.label.set(fontsize=9, color=INK)
        axis.yaxis.label.set(fontsize=9, color=INK)
        axis.title.set(fontsize=10, color=INK)
    return figure, axes[:count]


def _colour(k):
    return COLOURS[k % len(COLOURS)]


def _curve(k):
    return {"color": _colour(k), "ls": STROKES[k // len(COLOURS) % len(STROKES)]}


def _dots(k):
    return {"color": _colour(k), "marker": MARKS[k // len(COLOURS) % len(MARKS)], "ms": 2.5}


def _height(names):
    # Inches for the square, its words and a line a name; with less, the layout cuts the title.
    return 4.5 if len(names) <= FEW else 5.4 + 0.17 * len(names)


def _key(figure, axis, names, place):
    if len(names) <= FEW:
        axis.legend(frameon=False, fontsize=8, loc=place)
    else:
        _below(figure, axis.get_legend_handles_labels()[0], columns=1)


def _below(figure, handles, columns):
    columns = min(len(handles), columns)
    place = "outside lower center"
    look = {"frameon": False, "fontsize": 8, "borderaxespad": 0}
    figure.legend(handles=handles, loc=place, ncols=columns, **look)


def _unit(axis):
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")


def _png(figure, synthetic):
    if synthetic:
        note = {"ha": "right", "va": "bottom", "fontsize": 7, "color": "#9A3B00"}
        figure.get_layout_engine().set(rect=(0, 0.035, 1, 0.965))
        figure.text(0.995, 0.005, "synthetic data", **note)
    out = io.BytesIO()
    # No date or version inside: the same numbers give the same bytes.
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
