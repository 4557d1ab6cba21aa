"""Pieces of Markdown: names escaped, numbers worded, tables."""

import re


def plain(value) -> str:
    """Escapes what Markdown or HTML would read as markup."""
    escaped = str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#|!])", r"\\\1", escaped)


def entry(found) -> str:
    """Words a metric: "0.870 (0.800 to 0.930)", or that it is undefined and why."""
    if found["value"] is None:
        return f"undefined ({found.get('undefined', 'no value')})"
    bounds = "" if found["low"] is None else f" ({found['low']:.3f} to {found['high']:.3f})"
    return f"{found['value']:.3f}{bounds}"


def table(head, rows) -> str:
    """Makes a table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
