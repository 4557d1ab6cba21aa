"""Figures of the patients of a table, from the counts of `explore_people`.

Every function returns PNG bytes and takes `synthetic`: figures of phantoms say so in their corner.
"""

import numpy as np

from medkeras.evaluation.exploration.explore_plots import SEXES, counting
from medkeras.evaluation.figures import canvas

# Patients with as many rows or more are drawn as one bar.
MANY = 20
BIN = 5  # years


def records(counts, unit="picture", synthetic=False) -> bytes:
    """Draws how many patients have one row, two rows, ...

    Args:
        counts: from `explore_people.records`.
        unit: what a row is.
    """
    most = int(min(counts.index.max(), MANY))
    heights = counts.groupby(np.minimum(counts.index, MANY)).sum()
    figure, axes = canvas.axes(1, width=4.85, height=2.9)
    axis = axes[0]
    axis.bar(heights.index, heights, color=canvas.COLOURS[0], width=0.8)
    if most <= 8:
        for place, n in heights.items():
            axis.text(place, n, f"{n:,}", ha="center", va="bottom", fontsize=8, color=canvas.INK)
    places = [*range(1, most + 1)] if most <= 10 else [1, 5, 10, 15, MANY]
    places = [place for place in places if place <= most]
    over = counts.index.max() > MANY
    words = [f"{place}+" if over and place == MANY else str(place) for place in places]
    axis.set_xticks(places, words)
    axis.set(xlabel=f"{unit}s of a patient", ylabel="patients", xlim=(0.4, max(most, 4) + 0.6))
    axis.set(title=f"{unit.capitalize()}s of each patient", ylim=(0, 1.08 * heights.max()))
    counting(axis.yaxis)
    return canvas.png(figure, synthetic)


def decades(found, unit="picture", synthetic=False) -> bytes:
    """Draws how many rows patients have at each decade of age.

    Args:
        found: from `explore_people.by_decade`.
        unit: what a row is.
    """
    figure, axes = canvas.axes(1, width=4.85, height=2.9)
    axis, places = axes[0], np.arange(len(found))
    axis.bar(places, found["mean"], color=canvas.COLOURS[0], width=0.8)
    for place, (mean, patients) in enumerate(zip(found["mean"], found["patients"], strict=True)):
        look = {"ha": "center", "color": canvas.INK}
        axis.text(place, mean, f"{mean:.1f}", va="bottom", fontsize=8, **look)
        axis.text(place, 0, f"{patients:,}", va="bottom", fontsize=6.5, **(look | {"color": "w"}))
    axis.set_xticks(places, [f"{first}-{first + 9}" for first in found.index])
    axis.tick_params(axis="x", labelsize=7)
    axis.set(xlabel="age, years", ylabel=f"{unit}s a patient, mean")
    axis.set(title="By age (in the bars: patients)", ylim=(0, 1.12 * found["mean"].max()))
    return canvas.png(figure, synthetic)


def ages(years, sexes=None, unit="picture", synthetic=False) -> bytes:
    """Draws how old the patients were when the pictures were taken.

    Args:
        years: (n,), NaN where unknown.
        sexes: Series (n,) of "F", "M" or NaN; None where the table has none.
        unit: what a row is.
    """
    years = np.asarray(years, float)
    groups = {"all": years}
    if sexes is not None and sexes.notna().any():
        groups = {"female": years[sexes == "F"], "male": years[sexes == "M"]}
        groups |= {"sex unknown": years[sexes.isna()]} if sexes.isna().any() else {}
    last = int(np.nanmax(years)) // BIN * BIN + BIN
    edges = np.arange(0, last + 1, BIN)
    figure, axes = canvas.axes(1, width=10, height=2.9)
    axis = axes[0]
    for name, own in groups.items():
        n, _ = np.histogram(own[np.isfinite(own)], edges)
        axis.stairs(n, edges, color=SEXES.get(name, canvas.PALE), lw=1.8, label=name)
    if len(groups) > 1:
        axis.legend(frameon=False, fontsize=8, loc="upper left")
    axis.set_xticks(range(0, last + 1, 10))
    axis.set(xlabel="age, years", ylabel=f"{unit}s", title=f"Age, in steps of {BIN} years")
    axis.set(xlim=(0, last + 1), ylim=(0, None))
    counting(axis.yaxis)
    return canvas.png(figure, synthetic)
