"""Starts a page as its user does, in this process."""

import runpy
import sys
from dataclasses import replace

import keras
import pytest

from medkeras.models import backbones
from tests.experiments import contract


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


@pytest.fixture
def whole(start, content_of):
    """Starts a page on a data folder and checks what every finished run promises."""

    def run(page, root, out, *options):
        before = content_of(root)
        said = start(page, "--data", root, "--out", out, *options)
        assert said.splitlines()[-1] == str(out)
        assert content_of(root) == before, "the data folder is as it was"
        keras.utils.clear_session()
        for file in contract.FILES:
            assert (out / file).stat().st_size > 0, file
        return said

    return run


def few_layers(x):
    """A backbone of one convolution, for pages whose networks are large."""
    y = keras.layers.Conv2D(6, 3, strides=2, name="conv")(x)
    y = keras.layers.BatchNormalization(name="bn")(y)
    y = keras.layers.ReLU(name="relu")(y)
    return keras.Model(keras.utils.get_source_inputs(x), y)


@pytest.fixture
def small_backbones(monkeypatch):
    """Puts a backbone of few layers in the place of large ones."""
    for name in ("densenet121", "efficientnet_b0", "mobilenet_v2"):
        small = replace(backbones.SPECIFICATIONS[name], build=few_layers, feature_map="relu")
        monkeypatch.setitem(backbones.SPECIFICATIONS, name, small)
