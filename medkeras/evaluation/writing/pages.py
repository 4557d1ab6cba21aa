"""Fills HTML templates: numbers worded, pictures embedded, all else escaped; and plain tables."""

from base64 import b64encode
from pathlib import Path

import jinja2
from markupsafe import Markup

from medkeras.files import atomic


def rendered(template, context) -> str:
    """Fills an HTML template; every value is escaped unless it is marked as safe."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(template).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "png": png, "share": share}
    return environment.get_template(Path(template).name).render(context)


def written(folder, template, context, card) -> Path:
    """Writes what a run ends with: the page of a template, and the model card.

    Args:
        folder: of the run; gets `report.html` and `README.md`.
        template: path of the page's template.
        context: what fills it.
        card: text of the card, Markdown.

    Returns:
        Path of the page.
    """
    path = folder / "report.html"
    atomic.write_text(path, rendered(template, context))
    atomic.write_text(folder / "README.md", card)
    return path


def number(entry, digits=2) -> str:
    """Words a metric: "0.87 (0.80 to 0.93)", or why there is none."""
    if entry["value"] is None:
        return f"undefined: {entry.get('undefined', 'no value')}"
    text = f"{entry['value']:.{digits}f}"
    if entry["low"] is None:
        return text
    return f"{text} ({entry['low']:.{digits}f} to {entry['high']:.{digits}f})"


def percent(entry) -> str:
    """Words a metric in per cent: "87 % (80 to 93 %)"."""
    if entry["value"] is None:
        return "undefined"
    text = share(entry["value"])
    return (
        text
        if entry["low"] is None
        else f"{text} ({share(entry['low'])} to {share(entry['high'])})"
    )


def share(value) -> str:
    """Words a share in per cent."""
    return f"{100 * value:.0f} %"


def png(data) -> Markup:
    """Makes PNG bytes an address that needs no file."""
    return Markup("data:image/png;base64," + b64encode(data).decode())


def aligned(rows) -> str:
    """Formats rows of text as columns, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))]
        ).rstrip()
        for row in rows
    )
