"""What all figures share: one quiet style, colours a colour-blind reader can tell, PNG bytes."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito (2008), without the yellow, which is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#333333")
INK, PALE = "#333333", "#B8BEC6"
DPI = 160
# The second and third round of colours.
STROKES, MARKS = ("-", (0, (6, 1.5)), (0, (1, 1))), ("o", "^", "s")


def short(name, most=18):
    """Shortens a name for a figure."""
    # A dollar sign would be read as the start of a formula.
    name = str(name).replace("$", r"\$").replace("_", " ")
    return name if len(name) <= most else name[: most - 1] + "…"


def figure(width, height):
    """Makes an empty figure, width x height inches."""
    drawn = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn


def axes(count, width, height, columns=None):
    """Makes a figure of `count` axes, each width x height inches, `columns` in a row."""
    columns = columns or count
    rows = -(-count // columns)
    drawn = figure(width * columns, height * rows)
    axes = drawn.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.axis("off")
    for axis in axes[:count]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(PALE)
        axis.tick_params(colors=INK, labelsize=8, color=PALE)
        axis.xaxis.label.set(fontsize=9, color=INK)
        axis.yaxis.label.set(fontsize=9, color=INK)
        axis.title.set(fontsize=10, color=INK)
    return drawn, axes[:count]


def colour(k):
    """Returns the colour of the k-th thing; from the eighth on they repeat."""
    return COLOURS[k % len(COLOURS)]


def curve(k):
    """Returns the look of the k-th curve: colours that repeat come with another stroke."""
    return {"color": colour(k), "ls": STROKES[k // len(COLOURS) % len(STROKES)]}


def dots(k):
    """Returns the look of the k-th line over epochs: colours that repeat have other marks."""
    return {"color": colour(k), "marker": MARKS[k // len(COLOURS) % len(MARKS)], "ms": 2.5}


def below(figure, handles, columns):
    """Puts the key below the plots of a figure."""
    columns = min(len(handles), columns)
    place = "outside lower center"
    look = {"frameon": False, "fontsize": 8, "borderaxespad": 0}
    figure.legend(handles=handles, loc=place, ncols=columns, **look)


def png(figure, synthetic):
    """Draws a figure as PNG; one of phantoms says so in its corner."""
    if synthetic:
        note = {"ha": "right", "va": "bottom", "fontsize": 7, "color": "#9A3B00"}
        figure.get_layout_engine().set(rect=(0, 0.035, 1, 0.965))
        figure.text(0.995, 0.005, "synthetic data", **note)
    out = io.BytesIO()
    # No date or version inside: the same numbers give the same bytes.
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
