import pytest

from medkeras.phantoms import knee_xray
from medkeras.phantoms.__main__ import main

SMALL = ["--set", "patients=2", "--set", "size=32"]


def test_the_command_writes_what_the_function_writes(tmp_path, capsys):
    films = ["--set", "films=dicom", "--set", "film=96,128"]
    assert main(["knee_xray", str(tmp_path / "one"), *SMALL, *films]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "one")
    knee_xray.write(tmp_path / "two", patients=2, size=32, films="dicom", film=(96, 128))
    files = [path for path in (tmp_path / "two").rglob("*") if path.is_file()]
    assert len(files) == 2 * 2 + 2 + 4  # knees, films; tables and arguments
    for path in files:
        other = tmp_path / "one" / path.relative_to(tmp_path / "two")
        assert other.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("colour=red", "patients=240, size=96"),
        ("patients", "patients=240, size=96"),
        ("patients=many", "expected a number, as 240"),
        ("film=96", "expected several, as 256,352"),
        ("size=4", "expected 32 or more"),
    ],
)
def test_settings_that_mean_nothing_end_with_2(tmp_path, capsys, setting, said):
    assert main(["knee_xray", str(tmp_path / "out"), "--set", setting]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
