import pytest

from medkeras.errors import UsageError
from medkeras.training import commandline

DOC = """What is asked?

    python experiments/page.py --tune 3   # 100 % of it
"""

# Other tools and the README rely on these: a closed list.
FLAGS = (
    "data out seed epochs image_size set tune tuner folds workers resume weights sample skip_bad "
    "resplit null_control strategy precision"
).split()


def parsed(*argv):
    return commandline.parse(DOC, "page", list(argv))


def test_the_flags_are_a_closed_list():
    assert sorted(vars(parsed())) == sorted(FLAGS)


def test_the_page_is_the_help(capsys):
    with pytest.raises(SystemExit) as ended:
        parsed("--help")
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "What is asked?" in said and "--tune 3   # 100 %" in said
    for flag in FLAGS:
        assert "--" + flag.replace("_", "-") in said


def test_without_flags_a_run_is_plain():
    flags = parsed()
    assert (flags.seed, flags.tuner, flags.weights, flags.workers) == (0, "random", "auto", 2)
    assert not (flags.resume or flags.sample or flags.skip_bad or flags.resplit or flags.set)


@pytest.mark.parametrize(
    "argv",
    [
        ["--unknown"], ["--epochs", "0"], ["--epochs", "many"], ["--image-size", "-3"],
        ["--tuner", "grid"], ["--tune", "0"], ["--precision", "float16"], ["--seed", "x"],
        ["--epoch", "3"], ["stray"],
    ],
)  # fmt: skip
def test_what_argparse_refuses_ends_with_2(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        parsed(*argv)
    assert ended.value.code == 2
    assert "usage: page" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--set", "units"], "units.*NAME=VALUE"),
        (["--sample", "--data", "x"], "--data"),
        (["--folds", "1"], "--folds"),
        (["--folds", "2", "--null-control"], "--folds"),
        (["--strategy", "multiworker"], "multiworker"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_what_cannot_be_meant_is_refused(argv, words):
    with pytest.raises(UsageError, match=words):
        parsed(*argv)


def test_set_keeps_what_stands_behind_the_first_equals_sign():
    assert parsed("--set", "a=b=c", "--set", "x=").set == ["a=b=c", "x="]


STORED = vars(commandline.parse(DOC, "page", ["--epochs", "3", "--set", "units=8", "--tune", "2"]))


def test_a_resumed_run_has_the_flags_it_began_with():
    argv = ["--resume", "--out", "elsewhere", "--workers", "7"]
    flags = commandline.merged(parsed(*argv), STORED, argv)
    assert (flags.epochs, flags.set, flags.tune) == (3, ["units=8"], 2)
    assert (flags.workers, flags.out, flags.resume) == (7, "elsewhere", True)


def test_the_same_value_may_be_said_again():
    for argv in (["--epochs", "3", "--resume"], ["--epochs=3", "--set=units=8"]):
        commandline.merged(parsed(*argv), STORED, argv)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--epochs", "4"], "--epochs was 3"),
        (["--epochs=4"], "--epochs was 3"),
        (["--set", "units=9"], "--set was"),
        (["--seed", "1"], "--seed was 0"),
        (["--skip-bad"], "--skip-bad was False"),
        (["--data", "x"], "--data was None"),
    ],
)
def test_a_flag_that_decides_results_cannot_change(argv, words):
    with pytest.raises(UsageError, match=f"{words}.*resume"):
        commandline.merged(parsed(*argv), STORED, argv)


def test_a_run_that_was_killed_before_it_wrote_anything_starts_with_the_flags_of_now():
    argv = ["--resume", "--epochs", "4"]
    flags = commandline.merged(parsed(*argv), {}, argv)
    assert (flags.epochs, flags.seed, flags.weights) == (4, 0, "auto")


def test_the_command_is_kept_as_it_can_be_typed(tmp_path):
    page = tmp_path / "experiments" / "page.py"
    command = commandline.command(["--data", "my films", "--set", "a=1"], page)
    assert command == "python experiments/page.py --data 'my films' --set a=1"
