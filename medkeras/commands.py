"""The parser that every command starts from."""

import argparse


def parser(name: str, doc: str) -> argparse.ArgumentParser:
    """Makes a parser whose help shows a docstring as it stands.

    Args:
        name: how the command is called, such as "python -m medkeras.serving.predict".
        doc: what it does and how it is used.

    Returns:
        A parser without options; they must be written out in full, so that a new one never
        changes what an old call means.
    """
    return argparse.ArgumentParser(
        name,
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
