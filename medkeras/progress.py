"""A bar with the time left, on a terminal; elsewhere nothing, so that logs stay readable."""

from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def bar(title: str, console: Console | None = None):
    """Shows a bar while the block runs.

    Args:
        title: in front of the bar.
        console: where it is drawn; None for the standard error.

    Yields:
        Function of (done, total, text), which does nothing where there is no terminal.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total, text="": None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None, text="")
        yield lambda done, total, text="": progress.update(
            task, completed=done, total=total, text=text
        )
