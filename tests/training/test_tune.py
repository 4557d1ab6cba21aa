import json
from dataclasses import replace
from functools import partial

import keras
import keras_tuner
import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medkeras.errors import DataError, Diverged, MedkerasError, UsageError
from medkeras.preparation import augment
from medkeras.training import features, loop, settling, tune

pytestmark = pytest.mark.usefixtures("deterministic")
RULES = dict(epochs=2, patience=None, plateau_patience=None)


@pytest.fixture
def data(tiny_data):
    return tiny_data(pictures=12, augment=augment.radiograph(), views=1)


@pytest.fixture
def build(tiny_model):
    """The smallest model that has something to choose; `build.built` notes the choices."""

    def build(hp):
        hp.Boolean("grey", default=True)
        hp.Choice("head", ["plain", "dense"], default="plain")
        hp.Int("units", 1, 8, default=4)
        rate = hp.Float("learning_rate", 1e-4, 1e-1, sampling="log", default=1e-2)
        build.built.append(dict(hp.values))
        if rate in build.fails:
            raise ValueError(f"a rate of {rate} is not to be had")
        model = tiny_model(frozen=True, dropout=0, learning_rate=rate)
        if build.poisoned == "all" or rate in build.poisoned:
            model.get_layer("logits").bias.assign([np.nan])
        return model

    build.built, build.fails, build.poisoned = [], (), ()
    return build


@pytest.fixture
def untrained(monkeypatch):
    """Scores a trial by its learning rate instead of training it: what a sweep makes of scores."""

    def train(feed, data, rules, **options):
        rate = float(feed.model.optimizer.learning_rate)
        return loop.Progress(best=abs(np.log10(rate) + 2.2), best_epoch=1, finished=True)

    monkeypatch.setattr(loop, "train", train)


@pytest.fixture
def trials(monkeypatch):
    """Counts the stages that are trained."""
    counted, train = [], loop.train

    def counting(*args, **options):
        counted.append(options)
        return train(*args, **options)

    monkeypatch.setattr(loop, "train", counting)
    return counted


def table(run):
    return pd.read_csv(run.folder / "tuning" / "trials.csv", dtype={"trial": str})


# --set


def test_without_flags_the_defaults_are_chosen_and_nothing_is_built(build, data, new_run):
    hp = tune.choose(build, data, new_run(), **RULES)
    assert build.built == [] and hp.values == {}
    build(hp)
    assert build.built[-1] == {"grey": True, "head": "plain", "units": 4, "learning_rate": 0.01}


def test_set_fixes_values_of_every_type(build, data, new_run):
    pairs = ["--set=units=7", "--set=head=dense", "--set=grey=false", "--set=learning_rate=2e-3"]
    hp = tune.choose(build, data, new_run(*pairs), **RULES)
    build(hp)
    chosen = {"units": 7, "head": "dense", "grey": False, "learning_rate": 0.002}
    assert build.built[-1] == chosen
    assert [type(build.built[-1][name]) for name in chosen] == [int, str, bool, float]


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("unit=3", "unit: unknown; known are grey, head, learning_rate, units"),
        ("units=many", "units=many: expected a int"),
        ("units=2.5", "expected a int"),
        ("units=9", r"units=9: outside of 1\.\.8"),
        ("learning_rate=1", r"outside of 0\.0001\.\.0\.1"),
        ("learning_rate=nan", "outside"),
        ("head=wide", "choose from plain, dense"),
        ("grey=1", "expected a bool"),
        ("units=", "expected a int"),
    ],
)
def test_set_refuses_with_what_is_known(build, data, new_run, pair, words):
    with pytest.raises(UsageError, match=words):
        tune.choose(build, data, new_run("--set", pair), **RULES)


def test_the_random_state_is_the_runs_whichever_way_was_gone(build, data, new_run):
    drawn = []
    for number, argv in enumerate([(), ("--set=units=3",), ("--tune=1",)]):
        tune.choose(build, data, new_run("--seed", "5", *argv, folder=str(number)), **RULES)
        drawn.append(keras.random.uniform((3,)).numpy().tolist())
    assert drawn[0] == drawn[1] == drawn[2]


# --tune


@pytest.mark.parametrize("tuner", ["random", "hyperband", "bayesian"])
def test_each_tuner_runs_its_trials(build, data, new_run, tuner, untrained, trials):
    run = new_run("--tune", "2", "--tuner", tuner, "--set", "units=5", "--epochs", "1")
    hp = tune.choose(build, data, run, **RULES)
    found = table(run)
    assert len(found) == len(trials) == 2
    assert set(found["status"]) == {"COMPLETED"} and set(found["epochs"]) == {1}
    assert set(found["units"]) == {5}, "what is set holds in a sweep"
    assert found["learning_rate"].nunique() > 1 and found["learning_rate"].between(1e-4, 0.1).all()
    best = found.loc[found["score"].idxmin()]
    assert hp.get("learning_rate") == pytest.approx(best["learning_rate"])
    assert hp.get("units") == 5


def test_a_sweep_leaves_a_table_and_a_trial_for_tensorboard(build, data, new_run):
    run = new_run("--tune", "2")
    tune.choose(build, data, run, **RULES)
    found = table(run)
    assert list(found.columns) == [
        "trial", "status", "score", "epochs", "grey", "head", "units", "learning_rate", "reason",
    ]  # fmt: skip
    assert found["trial"].tolist() == ["0", "1"] and found["reason"].isna().all()
    for number, score in zip(found["trial"], found["score"], strict=True):
        read = EventAccumulator(str(run.folder / "tensorboard" / "trials" / number))
        read.Reload()
        assert read.SummaryMetadata("_hparams_/session_start_info").plugin_data.plugin_name == (
            "hparams"
        )
        (event,) = read.Tensors("trial/val_loss")
        assert event.tensor_proto.float_val[0] == pytest.approx(score, rel=1e-6)
    log = (run.folder / "log.txt").read_text()
    assert "stage one" in log and "training and validation pictures only" in log
    assert "2 finished, 0 failed" in log


def test_a_trial_scores_what_the_run_itself_would(build, data, new_run, trials):
    run = new_run("--tune", "2")
    hp = tune.choose(build, data, run, **RULES, class_weight="balanced")
    keras.utils.set_random_seed(run.seed)
    model = build(hp)
    settling.settle(model, data)
    progress = loop.train(
        features.feed(model, data), data, loop.Rules(**RULES), seed=0, class_weight=[1.0, 1.0]
    )
    assert progress.best == table(run)["score"].min()


def test_all_trials_pay_for_the_backbone_once(build, data, new_run, monkeypatch):
    computed, make = [], features._forward

    def counting(trunk):
        forward = make(trunk)
        return lambda pictures: computed.append(len(pictures)) or forward(pictures)

    monkeypatch.setattr(features, "_forward", counting)
    tune.choose(build, data, new_run("--tune", "2"), **RULES)
    assert sum(computed) == 8 + 2, "training and validation pictures, once"


def test_a_sweep_never_sees_the_test_part(build, data, new_run, monkeypatch):
    from medkeras.preparation.pipeline import Data

    asked, part = [], Data._part
    monkeypatch.setattr(Data, "_part", lambda self, name: asked.append(name) or part(self, name))
    stored = data.stored.copy()
    stored[data.test.rows] = 255
    first = new_run("--tune", "1", folder="first")
    asked.clear()

    def in_trial(feed, seen, *args, **options):
        with pytest.raises(PermissionError, match="selection never sees it"):
            seen.test  # noqa: B018
        asked.remove("test")
        return train(feed, seen, *args, **options)

    train = loop.train
    monkeypatch.setattr(loop, "train", in_trial)
    tune.choose(build, replace(data), first, **RULES)
    assert "test" not in asked and {"train", "val"} <= set(asked)
    other = replace(data, stored=stored, key="other")
    other.table.loc[other.table["split"] == "test", "label"] = 0
    second = new_run("--tune", "1", folder="second")
    tune.choose(build, other, second, **RULES)
    assert table(first)["score"].tolist() == table(second)["score"].tolist()


def test_mode_max_picks_the_largest(build, data, new_run, untrained):
    run = new_run("--tune", "2")
    hp = tune.choose(build, data, run, **RULES, monitor="val_loss", mode="max")
    found = table(run)
    best = found.loc[found["score"].idxmax()]
    assert hp.get("learning_rate") == pytest.approx(best["learning_rate"])


# Failing trials.


@pytest.fixture
def rates(build, data, new_run):
    """The learning rates that the trials of the random sweep choose; nothing is trained."""
    run = new_run("--tune", "3", "--epochs", "1", folder="look")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train", lambda *args, **options: loop.Progress(best=1.0))
        tune.choose(build, data, run, **RULES)
    return table(run)["learning_rate"].tolist()


def test_a_failing_trial_is_marked_and_the_sweep_goes_on(build, data, new_run, rates):
    first, second, third = rates
    build.fails, build.poisoned = (first,), (second,)
    run = new_run("--tune", "3", "--epochs", "1")
    hp = tune.choose(build, data, run, **RULES)
    found = table(run)
    assert found["status"].tolist() == ["FAILED", "FAILED", "COMPLETED"]
    assert f"a rate of {first} is not to be had" in found["reason"][0]
    assert "training loss is nan" in found["reason"][1]
    assert found["score"].isna().tolist() == [True, True, False]
    assert hp.get("learning_rate") == third
    log = (run.folder / "log.txt").read_text()
    assert "trial 0 failed" in log and "1 finished, 2 failed" in log


def test_a_sweep_of_failures_ends_with_their_reasons(build, data, new_run):
    build.poisoned = "all"
    run = new_run("--tune", "2")
    with pytest.raises(MedkerasError, match="all 2 trials.*loss is nan") as caught:
        tune.choose(build, data, run, **RULES)
    assert not isinstance(caught.value, Diverged)
    assert table(run)["status"].tolist() == ["FAILED"] * 2


def test_a_score_that_is_not_a_number_never_wins(build, data, new_run, monkeypatch):
    scores = iter([float("nan"), 0.5, float("inf")])
    monkeypatch.setattr(loop, "train", lambda *args, **options: loop.Progress(best=next(scores)))
    run = new_run("--tune", "3", "--epochs", "1")
    tune.choose(build, data, run, **RULES)
    found = table(run)
    assert found["status"].tolist() == ["FAILED", "COMPLETED", "FAILED"]
    assert "trial 1 won" in (run.folder / "log.txt").read_text()


# Resume.


def stopped_in(run, trial):
    """A run that a signal stops in the middle of a trial."""
    stopping = iter([False] * trial)

    def train(self_train):
        def in_trial(sweep, one):
            if next(stopping, True):
                run.signals.append(15)
            return self_train(sweep, one)

        return in_trial

    return train


@pytest.mark.parametrize(
    "tuner",
    [
        "random",
        pytest.param("hyperband", marks=pytest.mark.slow),
        pytest.param("bayesian", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_sweep_goes_on_to_the_same_winner(
    build, data, new_run, tuner, trials, monkeypatch
):
    argv = ["--tune", "2", "--tuner", tuner]
    whole = new_run(*argv, folder="whole")
    expected = tune.choose(build, data, whole, **RULES)

    run = new_run(*argv, "--resume", folder="killed")
    with monkeypatch.context() as context:
        context.setattr(tune._Sweep, "train", stopped_in(run, 1)(tune._Sweep.train))
        with pytest.raises(InterruptedError):
            tune.choose(build, data, run, **RULES)
    assert not (run.folder / "tuning" / "trials.csv").exists()

    trials.clear()
    run = new_run(*argv, "--resume", folder="killed")
    found = tune.choose(build, data, run, **RULES)
    assert len(trials) == 1, "what was finished is not trained again"
    assert found.values == expected.values
    assert (run.folder / "tuning" / "trials.csv").read_bytes() == (
        whole.folder / "tuning" / "trials.csv"
    ).read_bytes()


def test_a_finished_sweep_returns_its_winner_without_training(
    build, data, new_run, untrained, trials
):
    expected = tune.choose(build, data, new_run("--tune", "2"), **RULES)
    trials.clear()
    found = tune.choose(build, data, new_run("--tune", "2", "--resume"), **RULES)
    assert trials == [] and found.values == expected.values


def test_another_space_data_or_budget_is_refused(build, data, tiny_data, new_run, untrained):
    tune.choose(build, data, new_run("--tune", "1"), **RULES)

    def narrower(hp):
        hp.Int("units", 1, 4, default=4)
        return build(hp)

    again = partial(new_run, "--resume")
    with pytest.raises(UsageError, match="others than when it began"):
        tune.choose(narrower, data, again("--tune", "1"), **RULES)
    with pytest.raises(DataError, match="not what it was"):
        other = tiny_data(pictures=12, signal=50, augment=data.augment, views=1)
        tune.choose(build, other, again("--tune", "1"), **RULES)
    with pytest.raises(UsageError, match="others"):
        tune.choose(build, data, again("--tune", "2"), **RULES)
    with pytest.raises(UsageError, match="others"):
        tune.choose(build, data, again("--tune", "1"), **{**RULES, "epochs": 1})
    with pytest.raises(UsageError, match="others"):
        tune.choose(build, data, again("--tune", "1", "--set=units=3"), **RULES)
    tune.choose(build, data, again("--tune", "1"), **RULES)


def test_declared_lists_the_space(build):
    space = tune.declared(build)
    assert sorted(space) == ["grey", "head", "learning_rate", "units"]
    assert isinstance(space["units"], keras_tuner.engine.hyperparameters.Int)
    assert json.dumps(space["units"].default) == "4"


def test_defaults_that_cannot_be_built_do_not_hide_what_is_set():
    from medkeras.errors import UsageError

    built = []

    def build(hp):
        kind = hp.Choice("kind", ["impossible", "possible"])
        if kind == "impossible":
            raise UsageError("cannot be built")
        built.append((kind, hp.Int("units", 1, 8)))

    space = tune.declared(build, fixed={"kind": "possible", "units": "3"})
    assert set(space) == {"kind", "units"} and built == [("possible", 1)]
    assert tune.value_of(space, "units", "3") == 3
    for fixed in ({}, {"units": "3"}, {"kind": "impossible"}):
        with pytest.raises(UsageError, match="cannot be built"):
            tune.declared(build, fixed=fixed)
