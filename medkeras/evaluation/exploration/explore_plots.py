"""Figures of the findings of a table, from the counts of `explore_findings`.

Every function returns PNG bytes and takes `synthetic`: figures of phantoms say so in their corner.
"""

import textwrap

import numpy as np
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from medkeras.evaluation.exploration.explore_findings import STATES
from medkeras.evaluation.figures import canvas

SHADES = dict(zip(STATES, ("#0072B2", "#E69F00", "#CFE3F1", "#ECECEC"), strict=True))
SEXES = {"female": canvas.COLOURS[1], "male": canvas.COLOURS[0], "all": canvas.COLOURS[0]}
LONG = 28  # letters of a finding beside a plot


def states(counted, blank="blank", unit="picture", synthetic=False) -> bytes:
    """Draws what is said of each finding, as bars of all rows of a part.

    Args:
        counted: name of a part -> counts of `explore_findings.counts`.
        blank: what a row is called of which nothing is said.
        unit: what a row is.
    """
    first = next(iter(counted.values()))
    places = np.arange(len(first))
    height = 1.1 + 0.27 * len(places)
    figure, axes = canvas.axes(len(counted), width=10 / len(counted), height=height)
    for axis, (part, own) in zip(axes, counted.items(), strict=True):
        total, left = own[list(STATES)].sum(axis=1).max(), np.zeros(len(places))
        for state in STATES:
            axis.barh(places, own[state], left=left, color=SHADES[state], height=0.7)
            left = left + own[state].to_numpy()
        for place, n in enumerate(own["present"]):
            text = f" {n:,}  ({100 * n / max(total, 1):.1f} %)"
            axis.text(total, place, text, va="center", fontsize=7.5, color=canvas.INK)
        axis.set_yticks(places, [canvas.short(name, LONG) for name in own.index])
        axis.tick_params(axis="y", labelleft=axis is axes[0], length=0)
        axis.invert_yaxis()
        axis.set(title=part, xlabel=f"{unit}s", xlim=(0, max(total, 1)))
        axis.margins(y=0.01)
        counting(axis.xaxis)
    shown = [state for state in STATES if any(own[state].any() for own in counted.values())]
    words = {"blank": blank}
    handles = [Patch(color=SHADES[state], label=words.get(state, state)) for state in shown]
    canvas.below(figure, handles, columns=4)
    return canvas.png(figure, synthetic)


def together(counts, synthetic=False) -> bytes:
    """Draws how often each finding comes with each other one.

    Args:
        counts: from `explore_findings.together`.
    """
    n = counts.to_numpy()
    own = np.diag(n)
    shares = n / np.maximum(own, 1)[:, None]
    width, height = max(10, 0.56 * len(n) + 2), 0.44 * len(n) + 1.7
    figure, axes = canvas.axes(1, width=width, height=height)
    axis = axes[0]
    shaded = np.where(np.eye(len(n), dtype=bool) | (own == 0)[:, None], np.nan, shares)
    axis.imshow(shaded, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(n.shape):
        itself = row == column
        words = f"{n[row, column]:,}" if itself or not own[row] else _cell(shares, n, row, column)
        dark = not itself and shares[row, column] > 0.5
        colour = "white" if dark else canvas.INK if n[row, column] else canvas.PALE
        look = {"fontsize": 7, "fontweight": "bold" if itself else "normal", "color": colour}
        axis.text(column, row, words, ha="center", va="center", linespacing=1.1, **look)
    names = [canvas.short(name, LONG) for name in counts.index]
    axis.set_xticks(range(len(n)), names, rotation=40, ha="left", rotation_mode="anchor")
    axis.set_yticks(range(len(n)), names)
    axis.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    axis.set_xticks(np.arange(1, len(n)) - 0.5, minor=True)
    axis.set_yticks(np.arange(1, len(n)) - 0.5, minor=True)
    axis.grid(which="minor", color="white", lw=1.5)
    axis.tick_params(which="minor", length=0)
    axis.spines[:].set_visible(False)
    return canvas.png(figure, synthetic)


def combinations(found, total, synthetic=False) -> bytes:
    """Draws the commonest combinations of findings.

    Args:
        found: from `explore_findings.combinations`.
        total: rows of the table.
    """
    rows = [(" + ".join(row["names"]) or "none present", row["n"]) for row in found["rows"]]
    figure, axes = canvas.axes(1, width=10, height=0.4 + 0.36 * len(rows))
    axis = axes[0]
    for place, (_, n) in enumerate(rows):
        axis.barh(place, n, color=canvas.COLOURS[0], height=0.66)
        text = f" {n:,}  ({100 * n / total:.1f} %)"
        axis.text(n, place, text, va="center", fontsize=8, color=canvas.INK)
    words = [textwrap.fill(canvas.short(words, 120), 62) for words, _ in rows]
    axis.set_yticks(range(len(rows)), words)
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()
    axis.set(xlim=(0, 1.16 * max(n for _, n in rows)), xticks=[])
    axis.spines["bottom"].set_visible(False)
    return canvas.png(figure, synthetic)


def numbers(counts, unit="picture", synthetic=False) -> bytes:
    """Draws how many rows have no, one, two, ... findings present.

    Args:
        counts: from `explore_findings.numbers`.
        unit: what a row is.
    """
    figure, axes = canvas.axes(1, width=4.85, height=3.4)
    axis, total = axes[0], counts.sum()
    axis.bar(counts.index, counts, color=canvas.COLOURS[0], width=0.8)
    for place, n in counts.items():
        text = f"{100 * n / total:.0f} %" if n / total >= 0.01 else "<1 %"
        axis.text(place, n, text, ha="center", va="bottom", fontsize=7.5, color=canvas.INK)
    axis.set_xticks(range(int(counts.index.max()) + 1))
    axis.set(xlabel="findings present", ylabel=f"{unit}s", ylim=(0, 1.08 * counts.max()))
    axis.set(title=f"{unit.capitalize()}s by number of findings")
    counting(axis.yaxis)
    return canvas.png(figure, synthetic)


def company(found, unit="picture", synthetic=False) -> bytes:
    """Draws how often each finding is the only one present.

    Args:
        found: from `explore_findings.company`.
        unit: what a row is.
    """
    figure, axes = canvas.axes(1, width=4.85, height=max(2.2, 1.2 + 0.2 * len(found)))
    axis, left = axes[0], np.zeros(len(found))
    for name, colour in (("alone", canvas.COLOURS[2]), ("others", "#CDE7DD")):
        axis.barh(range(len(found)), found[name], left=left, color=colour, height=0.7)
        left = left + found[name].to_numpy()
    for place, (n, total) in enumerate(zip(found["alone"], left, strict=True)):
        text = f" {100 * n / total:.0f} %" if total else ""
        axis.text(total, place, text, va="center", fontsize=7.5, color=canvas.INK)
    axis.set_yticks(range(len(found)), [canvas.short(name, LONG) for name in found.index])
    axis.tick_params(axis="y", length=0, labelsize=7.5)
    axis.invert_yaxis()
    axis.set(xlabel=f"{unit}s", xlim=(0, 1.1 * max(left.max(), 1)), title="Alone (in %) or not")
    counting(axis.xaxis)
    handles = [
        Patch(color=canvas.COLOURS[2], label="the only finding"),
        Patch(color="#CDE7DD", label="with others"),
    ]
    canvas.below(figure, handles, columns=2)
    return canvas.png(figure, synthetic)


def ages_of(found, synthetic=False) -> bytes:
    """Draws median and quartiles of the age with each finding, by sex.

    Args:
        found: from `explore_findings.ages`.
    """
    findings, sexes = list(dict.fromkeys(found["finding"])), list(dict.fromkeys(found["sex"]))
    figure, axes = canvas.axes(1, width=10, height=1.1 + 0.32 * len(findings))
    axis = axes[0]
    for row in found.itertuples():
        shift = (sexes.index(row.sex) - (len(sexes) - 1) / 2) * 0.34
        place, colour = findings.index(row.finding) + shift, SEXES[row.sex]
        if row.n:
            axis.barh(place, row.high - row.low, left=row.low, color=colour, alpha=0.35, height=0.3)
            axis.plot([row.median] * 2, [place - 0.15, place + 0.15], color=colour, lw=2.4)
    names = [canvas.short(name, LONG) or "all" for name in findings]
    axis.set_yticks(range(len(findings)), names)
    axis.tick_params(axis="y", length=0)
    axis.axhline(0.5, color=canvas.PALE, lw=0.8)
    axis.grid(axis="x", color="#ECECEC", lw=0.8)
    axis.set_axisbelow(True)
    low, high = found["low"].min(), found["high"].max()
    # Whole decades, so that small differences look small.
    axis.set(xlim=(low // 10 * 10, (high // 10 + 1) * 10), ylim=(len(findings) - 0.5, -0.5))
    axis.set(xlabel="age, years: quartiles and median")
    if len(sexes) > 1:
        canvas.below(figure, [Patch(color=SEXES[sex], label=sex) for sex in sexes], columns=2)
    return canvas.png(figure, synthetic)


def counting(axis):
    """Writes whole numbers, with commas, along an axis."""
    axis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))


def _cell(shares, n, row, column):
    count = n[row, column]
    if not count:
        return "0"
    share = 100 * shares[row, column]
    return f"{share:.0f} %\n{count:,}" if share >= 1 else f"<1 %\n{count:,}"
