"""Starts a page as its user does, in this process."""

import runpy
import sys

import pytest


@pytest.fixture
def start(monkeypatch, capsys):
    def run(page, *argv):
        monkeypatch.setattr(sys, "argv", [str(page), *map(str, argv)])
        monkeypatch.syspath_prepend(str(page.parent))  # as Python does for a script
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(page), run_name="__main__")
        said = capsys.readouterr()
        assert ended.value.code == 0, said.out + said.err
        return said.out

    return run
