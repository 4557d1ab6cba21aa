"""Fixtures shared by all tests."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared():
    """Folder of real pictures and weights beside the checkout; skips where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("real pictures are not on this machine: ../shared/data is absent")
    return SHARED


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Gives every test a cache folder of its own, so that none sees what another stored."""
    monkeypatch.setenv("MEDKERAS_CACHE", str(tmp_path_factory.mktemp("cache")))
