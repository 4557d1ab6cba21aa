"""Figures of a run as PNG bytes: one quiet style, colours that colour-blind readers can tell.

Every function takes `synthetic`: figures of phantoms say so in their corner.
"""

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medkeras.evaluation import calibration, statistics

# Okabe and Ito (2008), without the yellow, which is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#333333")
INK, PALE = "#333333", "#B8BEC6"
DPI = 160
GRID = np.linspace(0, 1, 201)


def learning_curves(history, synthetic=False) -> bytes:
    """Draws loss and metrics over all epochs, training and validation, stages divided.

    Args:
        history: DataFrame as `history.csv`: stage, epoch, loss, val_loss, metrics.
    """
    shown = [
        name
        for name in history.columns
        if name not in ("stage", "epoch", "learning_rate", "seconds")
        and not name.startswith("val_")
        and f"val_{name}" in history
    ]
    shown = sorted(shown, key=lambda name: name != "loss")[:3]
    figure, axes = _axes(max(len(shown), 1), width=10 / max(len(shown), 1), height=3.1)
    x = np.arange(1, len(history) + 1)
    for axis, name in zip(axes, shown, strict=False):
        axis.plot(x, history[name], color=COLOURS[0], marker="o", ms=2.5, label="training")
        axis.plot(
            x, history[f"val_{name}"], color=COLOURS[1], marker="o", ms=2.5, label="validation"
        )
        stages = history["stage"].to_numpy() if "stage" in history else np.zeros(len(history))
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
        axis.set(xlabel="epoch", title=name.replace("_", " "))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axis.legend(frameon=False, fontsize=8)
    return _png(figure, synthetic)


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

    figure, axes = _axes(1, width=4.85, height=4.5)
    axis = axes[0]
    axis.plot([0, 1], [0, 1], color=PALE, lw=1, ls="--")
    for k, name in enumerate(names):
        y, p, who = _known(labels[:, k], probabilities[:, k], patients)
        if len(set(y)) < 2:
            continue
        false, true, _ = roc_curve(y, p, drop_intermediate=False)
        colour = COLOURS[k % len(COLOURS)]
        axis.plot(false, true, color=colour, label=f"{name}  {auc(false, true):.2f}")
        enough = min(len(set(who[y == 1])), len(set(who[y == 0]))) >= statistics.FEWEST_PATIENTS
        if enough and len(names) <= 4:
            low, high = _roc_band(y, p, who, seed)
            axis.fill_between(GRID, low, high, color=colour, alpha=0.13, lw=0)
    axis.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC (area)")
    _unit(axis)
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    return _png(figure, synthetic)


def precision_recall(labels, probabilities, names, synthetic=False) -> bytes:
    """Draws precision over recall, with each class's share as the line of a guess."""
    from sklearn.metrics import precision_recall_curve

    figure, axes = _axes(1, width=4.85, height=4.5)
    axis = axes[0]
    for k, name in enumerate(names):
        y, p = _known(labels[:, k], probabilities[:, k])
        if not (y == 1).any():
            continue
        precision, recall, _ = precision_recall_curve(y, p)
        colour = COLOURS[k % len(COLOURS)]
        axis.step(
            recall, precision, where="post", color=colour, label=f"{name}  (share {y.mean():.2f})"
        )
        axis.axhline(y.mean(), color=colour, lw=0.8, ls=":")
    axis.set(xlabel="recall (sensitivity)", ylabel="precision", title="Precision and recall")
    _unit(axis)
    axis.legend(frameon=False, fontsize=8, loc="lower left")
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
        titles: one a picture, the class name.
    """
    rows = max(1, -(-len(titles) // columns))
    figure = _figure(columns * 1.0, rows * 1.15)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, picture, title in zip(axes, pictures, titles, strict=False):
        shown = np.squeeze(picture)
        limit = 65535 if shown.dtype == np.uint16 else 255
        axis.imshow(shown, cmap="gray", vmin=0, vmax=limit)
        axis.set_title(_short(title, 16), fontsize=6.5, pad=2, fontweight="normal", loc="center")
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


def class_counts(table, synthetic=False) -> bytes:
    """Draws how many pictures each class has, by split where there is one.

    Args:
        table: DataFrame with `class`, `label` and maybe `split`.
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
    axis.set(xlabel="pictures", xlim=(0, 1.12 * max(left.max(), 1)))
    if parts:
        axis.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
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


def _figure(width, height):
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _axes(count, width, height):
    figure = _figure(width * count, height)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(PALE)
        axis.tick_params(colors=INK, labelsize=8, color=PALE)
        axis.xaxis.label.set(fontsize=9, color=INK)
        axis.yaxis.label.set(fontsize=9, color=INK)
        axis.title.set(fontsize=10, color=INK)
    return figure, axes


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
