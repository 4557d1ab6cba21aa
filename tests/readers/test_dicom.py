import errno
import itertools
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom import config
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from medkeras.errors import ResourceError, UsageError
from medkeras.files import atomic, child, dicom_tags, grey
from medkeras.files import dicom as decoder
from medkeras.readers import dicom, dicom_knees, dicom_private, dicom_survey
from tests.files import dicoms

ROOT = Path(__file__).resolve().parents[2]
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


@pytest.fixture(autouse=True)
def key(tmp_path, monkeypatch):
    """Gives every test a key file of its own, which does not exist yet."""
    path = tmp_path / "private" / "test.key"
    monkeypatch.setenv("MEDKERAS_KEY", str(path))
    return path


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


@pytest.fixture
def imported(source, tmp_path):
    """Imports files, given by name as bytes or data sets, and returns (result, folder)."""

    def run(files, **options):
        for name, content in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            data = content if isinstance(content, bytes) else dicoms.saved(content)
            (source / name).write_bytes(data)
        return dicom.convert(source, tmp_path / "out", **options), tmp_path / "out"

    return run


def mr(number, *, height=None, way=dicoms.SAGITTAL, instance=None, size=8, series="1.2.9", **tags):
    """Makes a slice whose pixels are its number, `height` mm along the normal."""
    pixels = np.full((size, size), number, np.uint16)
    pixels[0, 0], pixels[0, 1] = 0, 1000
    where = {}
    if height is not None:
        normal = np.cross(way[:3], way[3:])
        where = {
            "ImagePositionPatient": [float(x) for x in normal * height],
            "ImageOrientationPatient": list(way),
        }
    return dicoms.dataset(
        pixels, modality="MR", SeriesInstanceUID=series, InstanceNumber=instance or number,
        WindowCenter=500, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT", **where, **tags,
    )  # fmt: skip


def numbers(pixels):
    """Returns the numbers that `mr` put into the slices of a written volume."""
    return np.rint(pixels[:, -1, -1] / 255 * 1000).astype(int).tolist()


def reasons(done, severity="error"):
    return [problem.reason for problem in done.problems if problem.severity == severity]


# Films


def test_a_film_becomes_a_picture_and_a_row(imported):
    film = dicoms.dataset(
        RAMP, bits=12, modality="DX", WindowCenter=2048, WindowWidth=4096, PatientSex="M",
        PatientAge="061Y", BodyPartExamined="HAND", Laterality="L", ViewPosition="PA",
        PixelSpacing=[0.1, 0.2], KVP=55, PhotometricInterpretation="MONOCHROME1",
    )  # fmt: skip
    done, out = imported({"a.dcm": film})
    table = pd.read_csv(out / "images.csv")
    (row,) = table.to_dict("records")
    pixels = np.asarray(Image.open(out / row["path"]))
    assert pixels.shape == (64, 64) and pixels[0, 0] == 255 and pixels[-1, -1] == 0
    expected = {
        "modality": "DX", "body_part": "HAND", "side": "L", "view": "PA", "sex": "M", "age": 61,
        "rows": 64, "columns": 64, "row_spacing": 0.1, "column_spacing": 0.2, "kvp": 55,
        "photometric": "MONOCHROME1", "inverted": True, "bits_stored": 12, "bits": 8,
        "voi": "linear", "window_center": 2048, "window_width": 4096, "slices": 1,
        "burned_in": "not checked",
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert row["path"].startswith(f"{row['patient']}/{row['study']}/")
    assert done.written == {"a.dcm": [row["path"]]}
    assert pd.read_csv(out / "refused.csv").empty


def test_sixteen_bits_are_kept(imported):
    film = dicoms.dataset(RAMP * 16)
    done, out = imported({"a.dcm": film}, bits=16, voi="none")
    pixels = np.asarray(Image.open(out / done.images["path"][0]))
    np.testing.assert_array_equal(pixels, RAMP * 16)


# Volumes


def test_slices_are_sorted_by_place_and_share_one_window(imported):
    order = [3, 0, 4, 1, 2]
    files = {
        f"{name}.dcm": mr(100 + 10 * place, height=4.0 * place, instance=5 - place)
        for name, place in zip("abcde", order)
    }
    done, out = imported(files)
    (row,) = done.images.to_dict("records")
    volume = np.load(out / row["path"], allow_pickle=False)
    assert volume.shape == (5, 8, 8) and volume.dtype == np.uint8
    assert numbers(volume) == pytest.approx([100, 110, 120, 130, 140], abs=3)
    assert (row["plane"], row["slices"], row["slice_spacing"]) == ("sagittal", 5, 4.0)
    assert row["voi"] == "linear_exact" and row["notes"] == ""
    assert sorted(done.written) == sorted(files)


def test_differing_windows_become_their_median(imported):
    files = {n: mr(n, height=n) for n in (1, 2, 30)}
    for n, made in files.items():
        made.WindowCenter = 500 + n
    done, _ = imported({f"{n}.dcm": made for n, made in files.items()})
    assert done.images["window_center"][0] == 502
    assert "median" in done.images["notes"][0]


def test_each_slice_has_its_own_slope(imported):
    files = {
        "1": mr(100, height=0, RescaleSlope=2, RescaleIntercept=0),
        "2": mr(100, height=1, instance=2, RescaleSlope=5, RescaleIntercept=100),
    }
    done, out = imported(files, bits=16)
    volume = np.load(out / done.images["path"][0])
    assert volume.dtype == np.uint16
    np.testing.assert_allclose(volume[:, -1, -1], [0.2 * 65535, 0.6 * 65535], atol=1)


@pytest.mark.parametrize("voi", ["percentile", "none"])
def test_other_policies_hold_for_volumes_too(imported, voi):
    files = {f"{n}": mr(n, height=n) for n in range(1, 9)}
    done, out = imported(files, voi=voi)
    volume = np.load(out / done.images["path"][0])
    assert done.images["voi"][0] == voi
    assert volume.max() == (255 if voi == "percentile" else round(1000 / 65535 * 255))


def test_a_localizer_is_one_volume_for_each_direction(imported):
    files = {f"s{n}": mr(n, height=n) for n in (1, 2)}
    files |= {f"a{n}": mr(n, height=n, way=dicoms.AXIAL, instance=n + 2) for n in (1, 2, 3)}
    done, _ = imported(files)
    assert done.images["slices"].tolist() == [2, 3]
    assert done.images["plane"].tolist() == ["sagittal", "axial"]
    assert done.images["notes"].str.contains("several directions").all()


def test_two_echoes_are_two_volumes(imported):
    files = {}
    for echo in (0, 1):
        for place in range(3):
            number = 100 * (echo + 1) + 10 * place
            instance = 1 + 2 * place + echo
            # Rounded in the file: the first echo of one place lies a little higher.
            height = place + (0.004 if (echo, place) == (0, 1) else 0)
            files[f"{echo}{place}"] = mr(number, height=height, instance=instance)
    done, out = imported(files)
    found = [numbers(np.load(out / path)) for path in done.images["path"]]
    assert found[0] == pytest.approx([100, 110, 120], abs=3)
    assert found[1] == pytest.approx([200, 210, 220], abs=3)


def test_an_uneven_repetition_is_refused(imported):
    files = {"1": mr(1, height=0), "2": mr(2, height=1), "3": mr(3, height=1)}
    done, out = imported(files)
    assert len(reasons(done)) == 3 and "more than once" in reasons(done)[0]
    assert not out.exists()


def test_without_places_the_numbers_decide(imported):
    done, out = imported({f"{9 - n}": mr(100 * n, instance=n) for n in (3, 1, 2)})
    assert numbers(np.load(out / done.images["path"][0])) == pytest.approx([100, 200, 300], abs=3)
    assert "InstanceNumber" in done.images["notes"][0]


def test_without_places_and_numbers_a_series_is_refused(imported):
    done, _ = imported({"1": mr(1, instance=7), "2": mr(2, instance=7)})
    assert len(reasons(done)) == 2 and "neither" in reasons(done)[0]


def test_a_gap_is_noted(imported):
    done, _ = imported({f"{n}": mr(n, height=n) for n in (1, 2, 3, 5, 6)})
    assert "1 gaps" in done.images["notes"][0]


def test_a_damaged_slice_refuses_its_volume_and_no_other(imported):
    files = {f"{n}": mr(n, height=n) for n in (1, 2, 3)}
    others = {f"other{n}": mr(n, height=n, series="1.2.10") for n in (1, 2)}
    damaged = dicoms.saved(files["2"])[:-20]
    done, out = imported(files | {"2": damaged} | others)
    assert sorted(reasons(done))[0].startswith("belongs to a volume with a damaged slice")
    assert len(reasons(done)) == 3 and list(done.written) == list(others)
    assert len(list(out.rglob("*.npy"))) == 1


def test_a_slice_alone_is_no_volume(imported):
    files = {f"{n}": mr(n, height=n) for n in (1, 2)}
    done, _ = imported(files | {"alone": mr(1, height=0, series="1.2.10")})
    (problem,) = done.problems
    assert (problem.path, problem.severity) == ("alone", "note")
    assert problem.reason == "is 1 slice alone, which is no volume" and len(done.images) == 1


@pytest.mark.parametrize("several_files", [True, False])
@pytest.mark.parametrize(
    ("limit", "value", "word"), [("MAX_SLICES", 3, "4 slices"), ("MAX_BYTES", 1023, "4 x 8 x 8")]
)
def test_a_volume_beyond_the_limits_is_refused_unread(
    imported, monkeypatch, limit, value, word, several_files
):
    files = {f"{n}": mr(n, height=n) for n in (1, 2, 3, 4)}
    monkeypatch.setattr(dicom_survey, limit, value)
    done, out = imported(files if several_files else {"a": framed([0, 3, 6, 9])})
    assert len(reasons(done)) == (4 if several_files else 1)
    assert all(word in reason for reason in reasons(done)) and not out.exists()


def test_a_volume_at_the_limits_is_read(imported, monkeypatch):
    monkeypatch.setattr(dicom_survey, "MAX_SLICES", 4)
    monkeypatch.setattr(dicom_survey, "MAX_BYTES", 4 * 8 * 8 * 4)
    done, _ = imported({f"{n}": mr(n, height=n) for n in (1, 2, 3, 4)})
    assert done.images["slices"].tolist() == [4]


def test_too_little_memory_costs_one_volume(imported, monkeypatch):
    render = grey.rendered

    def rendered(values, *given, **options):
        if len(values) == 3:
            raise MemoryError
        return render(values, *given, **options)

    monkeypatch.setattr(grey, "rendered", rendered)
    files = {f"{n}": mr(n, height=n) for n in (1, 2, 3)}
    files |= {f"other{n}": mr(n, height=n, series="1.2.10") for n in (1, 2)}
    done, _ = imported(files)
    assert len(reasons(done)) == 3 and all("memory" in reason for reason in reasons(done))
    assert list(done.written) == ["other1", "other2"]


def test_too_little_memory_to_receive_a_picture_costs_that_picture(imported, monkeypatch):
    asked = child.run

    def run(task, data, **options):
        if options["pixels"] and options["suffix"] == ".large":
            raise MemoryError
        return asked(task, data, **options)

    monkeypatch.setattr(child, "run", run)
    film = dicoms.dataset(RAMP)
    done, _ = imported({"a.large": film, "b": dicoms.dataset(RAMP), "copy.large": film})
    assert list(done.written) == ["b"]
    assert len(reasons(done)) == 2 and all("memory" in reason for reason in reasons(done))


def framed(heights):
    pixels = np.stack([np.full((8, 8), 100 + 10 * n, np.uint16) for n in range(len(heights))])
    made = dicoms.dataset(pixels, modality="MR")
    groups, shared = [], Dataset()
    for height in heights:
        item, where = Dataset(), Dataset()
        where.ImagePositionPatient = [-float(height), 0, 0]
        item.PlanePositionSequence = [where]
        groups.append(item)
    made.PerFrameFunctionalGroupsSequence = groups
    way, measures, window = Dataset(), Dataset(), Dataset()
    way.ImageOrientationPatient = dicoms.SAGITTAL
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.5], 3
    window.WindowCenter, window.WindowWidth = 500, 1000
    window.VOILUTFunction = "LINEAR_EXACT"
    shared.PlaneOrientationSequence = [way]
    shared.PixelMeasuresSequence = [measures]
    shared.FrameVOILUTSequence = [window]
    made.SharedFunctionalGroupsSequence = [shared]
    return made


def test_frames_of_one_file_are_sorted_by_place(imported):
    done, out = imported({"a": framed([3, 0, 6])})
    (row,) = done.images.to_dict("records")
    found = numbers(np.load(out / row["path"]))
    assert found == pytest.approx([110, 100, 120], abs=3)
    assert (row["slice_spacing"], row["slice_thickness"], row["row_spacing"]) == (3, 3, 0.5)


def test_frames_at_one_place_keep_their_order(imported):
    done, out = imported({"a": framed([3, 3, 3])})
    assert numbers(np.load(out / done.images["path"][0])) == pytest.approx([100, 110, 120], abs=3)
    assert "same place" in done.images["notes"][0]


# B10: copies, two knees, no side


def test_copies_are_imported_once(imported):
    film = dicoms.dataset(RAMP)
    done, _ = imported({"a": film, "b": film, "c": dicoms.dataset(RAMP)})
    assert len(done.images) == 2 and len(reasons(done, "note")) == 1
    assert done.copies == {"b": "a"}


def test_one_id_with_different_pixels_is_refused(imported):
    uid = generate_uid()
    files = {
        "a": dicoms.dataset(RAMP, SOPInstanceUID=uid),
        "b": dicoms.dataset(RAMP[::-1], SOPInstanceUID=uid),
        "c": dicoms.dataset(RAMP),
    }
    done, _ = imported(files)
    assert len(reasons(done)) == 2 and all("SOPInstanceUID" in why for why in reasons(done))
    assert list(done.written) == ["c"]


@pytest.mark.parametrize("other", [{"PatientID": "another"}, {"StudyInstanceUID": "1.2.4"}])
def test_a_copy_under_another_patient_or_study_is_refused(imported, other):
    uid = generate_uid()
    files = {
        "a": dicoms.dataset(RAMP, SOPInstanceUID=uid),
        "b": dicoms.dataset(RAMP, SOPInstanceUID=uid, **other),
    }
    done, out = imported(files)
    assert len(reasons(done)) == 2 and not done.copies and not out.exists()
    assert all("different patients" in why or "different studies" in why for why in reasons(done))


def test_a_patient_of_implausibly_many_studies_is_noted(imported, monkeypatch):
    monkeypatch.setattr(dicom_survey, "MAX_STUDIES", 2)
    files = {f"a{n}": dicoms.dataset(RAMP, StudyInstanceUID=f"1.2.{n}") for n in (1, 2, 3)}
    files |= {
        f"b{n}": dicoms.dataset(RAMP, PatientID="two", StudyInstanceUID=f"1.3.{n}") for n in (1, 2)
    }
    done, _ = imported(files)
    noted = done.images["notes"].str.contains("more than 2 studies")
    assert done.images["patient"][noted].value_counts().tolist() == [3] and (~noted).sum() == 2


def knees(shape=(60, 100), gap=47, **tags):
    """Makes a film with 1,000 in the left and 3,000 in the right bone of the picture."""
    pixels = np.zeros(shape, np.uint16)
    pixels[:, 5:gap], pixels[:, gap + 4 : -5] = 1000, 3000
    given = {"BodyPartExamined": "KNEE", "WindowCenter": 2048, "WindowWidth": 4096} | tags
    return dicoms.dataset(pixels, bits=12, **given)


def sides(done, out):
    rows = done.images.to_dict("records")
    return {row["side"]: np.asarray(Image.open(out / row["path"])) for row in rows}


@pytest.mark.parametrize(
    ("tags", "right"),
    [
        ({"Laterality": "B"}, 1000),
        ({"Laterality": "B", "PatientOrientation": ["L", "F"]}, 1000),
        ({"Laterality": "B", "PatientOrientation": ["R", "F"]}, 3000),
        ({"ViewPosition": "PA"}, 1000),
    ],
)
def test_a_film_of_both_knees_is_cut_at_the_gap(imported, tags, right):
    done, out = imported({"a": knees(**tags)})
    found = sides(done, out)
    assert sorted(found) == ["L", "R"]
    assert found["R"].max() == round(right / 4095 * 255)
    assert found["L"].max() == round((4000 - right) / 4095 * 255)
    assert sum(half.shape[1] for half in found.values()) == 100
    assert 47 <= min(half.shape[1] for half in found.values()) <= 51
    guessed = "PatientOrientation" not in tags
    assert done.images["notes"].str.contains("is taken to be").all() == guessed
    assert len(done.written["a"]) == 2 and done.images["columns"].sum() == 100


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"Laterality": "R"},
        {"shape": (100, 100)},
        {"ViewPosition": "LAT"},
        {"BodyPartExamined": "CHEST"},
    ],
)
def test_other_films_are_not_cut(imported, tags):
    done, _ = imported({"a": knees(**tags)})
    assert len(done.images) == 1


def test_a_single_knee_without_side_says_so(imported):
    done, _ = imported({"a": knees(shape=(100, 100))})
    assert done.images["side"][0] == "" and "without side" in done.images["notes"][0]


@pytest.mark.parametrize(("mode", "pictures"), [("whole", 1), ("split", 2)])
def test_the_rule_can_be_overruled(imported, mode, pictures):
    done, _ = imported({"a": knees(Laterality="B" if mode == "whole" else "")}, knees=mode)
    assert len(done.images) == pictures


def test_dark_films_are_cut_in_the_middle():
    halves, _ = dicom_knees.halves(np.zeros((10, 101), np.uint8))
    assert {half.shape[1] for half in halves.values()} == {50, 51}


# Every file accounted for


def test_every_real_file_is_written_or_listed(shared, tmp_path, capsys):
    folder = shared / "data" / "dicom"
    link = tmp_path / "link.csv"
    code = dicom.main([str(folder), str(tmp_path / "out"), "--linkage", str(link)])
    said = capsys.readouterr().out
    assert code == 3
    files = [path for path in folder.rglob("*") if path.is_file()]
    links = pd.read_csv(link, keep_default_na=False)
    listed = set(links["source"])
    names = {path.relative_to(folder).as_posix() for path in files}
    directories = {name for name in names if "DICOMDIR" in name}
    assert listed == names - directories and len(directories) == 8
    assert f"{len(files)} files: " in said and "8 DICOMDIR" in said
    assert ((links["path"] != "") | (links["refusal"] != "")).all()
    images = pd.read_csv(tmp_path / "out" / "images.csv", keep_default_na=False)
    assert set(images["path"]) == set(links["path"]) - {""}
    written = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert written == set(images["path"]) | {"images.csv", "refused.csv"}
    volume = images[images["slices"] == 19].iloc[0]
    assert np.load(tmp_path / "out" / volume["path"]).shape == (19, 256, 256)
    assert stat.S_IMODE(link.stat().st_mode) == 0o600


def test_progress_ends_at_the_total(imported):
    seen = []
    files = {"a": dicoms.dataset(RAMP), "b": b"text", "c": mr(1, height=0), "d": mr(2, height=1)}
    imported(files, progress=lambda *step: seen.append(step))
    assert seen == sorted(seen) and seen[-1] == (8, 8)


def test_the_source_is_only_read(imported, source, content_of):
    (source / "a.dcm").write_bytes(dicoms.encoded(RAMP))
    before = content_of(source)
    imported({})
    assert content_of(source) == before


def test_links_are_not_followed_and_hidden_files_left_out(imported, source, tmp_path):
    (tmp_path / "elsewhere.dcm").write_bytes(dicoms.encoded(RAMP))
    (source / "link.dcm").symlink_to(tmp_path / "elsewhere.dcm")
    (source / "loop").symlink_to(source)
    done, _ = imported({"a.dcm": dicoms.dataset(RAMP), ".hidden/b.dcm": dicoms.dataset(RAMP)})
    assert sorted(problem.path for problem in done.problems) == ["link.dcm", "loop"]
    assert list(done.written) == ["a.dcm"] and done.hidden == 1


def test_what_a_name_promises_is_expected(imported):
    done, _ = imported({"a.DCM": b"<html>an error page</html>", "b.html": b"<html>help</html>"})
    assert [(problem.path, problem.severity) for problem in done.problems] == [
        ("a.DCM", "error"),
        ("b.html", "note"),
    ]


@pytest.mark.skipif(os.name != "posix", reason="elsewhere every name is text")
def test_names_of_files_need_not_be_text(source, tmp_path, capsys):
    link = tmp_path / "link.csv"
    for name, data in {b"caf\xe9.dcm": GOOD, b"na\xefve.dcm": GOOD[:-9]}.items():
        Path(os.fsdecode(os.fsencode(source) + b"/" + name)).write_bytes(data)
    assert dicom.main([str(source), str(tmp_path / "out"), "--linkage", str(link)]) == 3
    assert "2 files: 1 imported" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "out" / "refused.csv")) == 1
    assert sorted(pd.read_csv(link)["source"]) == [r"caf\udce9.dcm", r"na\udcefve.dcm"]


GOOD, CUT = dicoms.encoded(RAMP), dicoms.encoded(RAMP)[:-9]
BURNED = dicoms.encoded(RAMP, BurnedInAnnotation="YES")


@pytest.mark.parametrize(
    ("files", "flags", "code", "written"),
    [
        ({"a": GOOD, "b.txt": b"notes"}, [], 0, True),
        ({"a": GOOD, "b": CUT}, [], 3, True),
        ({"a": GOOD, "b": CUT}, ["--skip-bad"], 0, True),
        ({"a": BURNED}, ["--skip-bad"], 3, False),
        ({"a": BURNED}, ["--allow-burned-in"], 0, True),
        ({"b.txt": b"notes"}, [], 3, False),
        ({}, [], 3, False),
    ],
)
def test_exit_codes(source, tmp_path, capsys, files, flags, code, written):
    for name, data in files.items():
        (source / name).write_bytes(data)
    assert dicom.main([str(source), str(tmp_path / "out"), *flags]) == code
    assert (tmp_path / "out").exists() == written
    assert f"{len(files)} files" in capsys.readouterr().out


@pytest.mark.parametrize("out", ["in/out", ".", "in", "full"])
def test_folders_that_cannot_be_used_are_refused(source, tmp_path, capsys, out):
    (source / "a.dcm").write_bytes(dicoms.encoded(RAMP))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("keep")
    assert dicom.main([str(source), str(tmp_path / out)]) == 2
    assert capsys.readouterr().err
    assert (tmp_path / "full" / "mine").read_text() == "keep"
    assert [path.name for path in source.iterdir()] == ["a.dcm"]


def test_linkage_stays_outside(source, tmp_path):
    (source / "a.dcm").write_bytes(dicoms.encoded(RAMP))
    for link in (source / "l.csv", tmp_path / "out" / "l.csv", tmp_path / "no" / "l.csv"):
        with pytest.raises(UsageError):
            dicom.convert(source, tmp_path / "out", linkage=link)


def test_a_linkage_that_cannot_be_written_is_found_out_first(source, tmp_path, monkeypatch, capsys):
    (source / "a.dcm").write_bytes(GOOD)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(child, "run", None)
    monkeypatch.setattr(dicom_private, "write", full)
    key = {"key": bytes(32)}
    with pytest.raises(UsageError, match="link.csv: cannot be written .No space"):
        dicom.convert(source, tmp_path / "out", linkage=tmp_path / "link.csv", **key)
    assert not (tmp_path / "out").exists()


def test_a_linkage_that_cannot_be_filled_leaves_nothing(source, tmp_path, monkeypatch):
    (source / "a.dcm").write_bytes(GOOD)
    link = tmp_path / "link.csv"
    written = Path.write_bytes

    def full(path, data):
        if path == link:
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResourceError, match="link.csv: cannot be written"):
        dicom.convert(source, tmp_path / "out", linkage=link)
    assert not link.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["empty", "link", ".", "dangling"])
def test_an_empty_folder_is_filled_and_never_replaced(source, tmp_path, monkeypatch, out):
    (source / "a.dcm").write_bytes(GOOD)
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "link").symlink_to(empty)
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    monkeypatch.chdir(empty)
    before = empty.stat().st_ino
    done = dicom.convert(source, out if out == "." else tmp_path / out)
    filled = tmp_path / ("absent" if out == "dangling" else "empty")
    assert empty.stat().st_ino == before and (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in filled.iterdir()) == sorted(
        ["images.csv", "refused.csv", done.images["patient"][0]]
    )


def test_a_folder_filled_half_is_emptied_again(source, tmp_path, monkeypatch):
    (source / "a.dcm").write_bytes(GOOD)
    out = tmp_path / "out"
    out.mkdir()
    moved = os.rename

    def rename(old, new):
        if Path(new) == out / "images.csv":
            assert (out / "refused.csv").exists()
            raise OSError(errno.EIO, "Input/output error")
        moved(old, new)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(ResourceError, match="Input/output"):
        dicom.convert(source, out)
    assert not list(out.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")
@pytest.mark.parametrize(("number", "exists"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_signal_leaves_no_picture(source, tmp_path, number, exists):
    out, link = tmp_path / "out", tmp_path / "link.csv"
    noise = np.random.default_rng(0).integers(0, 4096, (1200, 1200), dtype=np.uint16)
    for name in range(40):
        (source / f"{name}.dcm").write_bytes(dicoms.encoded(noise, bits=12))
    if exists:
        out.mkdir()
    command = [sys.executable, "-m", "medkeras.readers.dicom", str(source), str(out)]
    running = subprocess.Popen(
        [*command, "--linkage", str(link)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while not list(tmp_path.rglob("*.png")) and running.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 128 + number
    assert said == f"stopped by signal {number.value}, nothing was imported\n"
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"in", "private"} | ({"out"} if exists else set())
    assert not exists or not list(out.iterdir())


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no such signal")
@pytest.mark.parametrize(("handler", "code"), [(signal.SIG_DFL, 129), (signal.SIG_IGN, 3)])
def test_a_closed_terminal_stops_unless_ignored(source, tmp_path, monkeypatch, handler, code):
    def closed(*_):
        os.kill(os.getpid(), signal.SIGHUP)
        return []

    monkeypatch.setattr(dicom_survey, "files", closed)
    before = signal.signal(signal.SIGHUP, handler)
    try:
        assert dicom.main([str(source), str(tmp_path / "out")]) == code
        assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")
def test_a_second_signal_does_not_disturb_the_cleaning(source, tmp_path, monkeypatch, capsys):
    (source / "a.dcm").write_bytes(GOOD)
    removed = shutil.rmtree

    def interrupted(function):
        def run(*given, **options):
            os.kill(os.getpid(), signal.SIGINT)
            return function(*given, **options)

        return run

    monkeypatch.setattr(dicom_survey, "tasks", interrupted(dicom_survey.tasks))
    monkeypatch.setattr(shutil, "rmtree", interrupted(removed))
    assert dicom.main([str(source), str(tmp_path / "out")]) == 130
    assert "nothing was imported" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "private"]


def test_what_is_stopped_reads_no_more_headers(imported, monkeypatch):
    asked, read = child.run, []

    def run(task, data, **options):
        read.append(data)
        time.sleep(0.02)
        return asked(task, data, **options)

    def stop(done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(child, "run", run)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with pytest.raises(KeyboardInterrupt):
        imported({f"{n}": b"text" for n in range(60)}, progress=stop)
    assert 1 <= len(read) < 30


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")
@pytest.mark.parametrize("volume", [True, False])
def test_what_is_stopped_decodes_no_more(imported, monkeypatch, tmp_path, volume):
    asked, number, decoded = child.run, itertools.count(1), []

    def run(task, data, **options):
        if options["pixels"]:
            this = next(number)
            decoded.append(this)
            if this == 5:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.02)
        return asked(task, data, **options)

    monkeypatch.setattr(child, "run", run)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    make = (lambda n: mr(n + 1, height=n)) if volume else (lambda n: dicoms.dataset(RAMP))
    with pytest.raises(KeyboardInterrupt):
        imported({f"{n}": make(n) for n in range(60)})
    assert 5 <= len(decoded) < 55
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "private"]


def test_a_full_disk_leaves_nothing_behind(imported, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "replace", full)
    with pytest.raises(ResourceError, match="No space left"):
        imported({"a": dicoms.dataset(RAMP)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "private"]


def test_a_decoder_that_was_taken_over_names_no_folder(imported, tmp_path, monkeypatch):
    asked = child.run

    def run(task, data, **options):
        facts, arrays = asked(task, data, **options)
        facts["ids"]["patient"] = "../../escaped"
        return facts, arrays

    monkeypatch.setattr(child, "run", run)
    done, out = imported({"a": dicoms.dataset(RAMP)})
    assert len(done.problems) == 1 and not out.exists()
    assert not list(tmp_path.rglob("*escaped*"))


def test_what_changed_pixels_is_said(source, tmp_path, capsys):
    for name in ("a", "b"):
        film = dicoms.dataset(RAMP, PresentationIntentType="FOR PROCESSING")
        (source / name).write_bytes(dicoms.saved(film))
    assert dicom.main([str(source), str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "2 of 2 pictures and volumes, imported: no usable VOI LUT or window" in said
    assert "2 of 2 pictures and volumes, imported: meant for processing" in said
    assert set(pd.read_csv(tmp_path / "out" / "images.csv")["intent"]) == {"processing"}


# I1: nothing that names anybody


def test_the_order_of_the_names_is_nowhere(imported, source, tmp_path):
    count = 12
    films = {
        f"a{n:02d}": dicoms.dataset(RAMP, PatientID=f"{n}", StudyInstanceUID=f"1.2.{n}")
        for n in range(count)
    }
    done, out = imported(films | {f"b{n:02d}": CUT for n in range(count)})
    images, refused = (pd.read_csv(out / f"{name}.csv") for name in ("images", "refused"))
    assert len(images) == len(refused) == count
    assert images["path"].is_monotonic_increasing and refused["file"].is_monotonic_increasing
    work = dicom_survey.tasks(
        dicom_survey.pictures(
            {
                path: dicom_survey.read(source, path, {"key": "ab"}, pixels=False)[0]
                for path in films
            },
            done,
        ),
        done,
    )
    assert [task.name for task in work] == sorted(task.name for task in work)


@pytest.mark.parametrize("terminal", [True, False])
def test_only_a_terminal_is_shown_the_names(source, tmp_path, capsys, monkeypatch, terminal):
    (source / "Jane Doe").write_bytes(GOOD)
    (source / "John Doe").write_bytes(CUT)
    link = tmp_path / "link.csv"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    dicom.main([str(source), str(tmp_path / "out"), "--linkage", str(link)])
    said = capsys.readouterr().out
    (hashed,) = pd.read_csv(tmp_path / "out" / "refused.csv")["file"]
    assert ("John Doe" in said) == terminal and (hashed in said) != terminal
    links = pd.read_csv(link)
    assert links["source"][links["file"] == hashed].tolist() == ["John Doe"]


def test_the_key_is_private_and_gives_the_same_ids_again(imported, key, source, tmp_path):
    done, _ = imported({"a": dicoms.dataset(RAMP)})
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    again = dicom.convert(source, tmp_path / "again")
    pd.testing.assert_frame_equal(done.images, again.images)
    other = dicom.convert(source, tmp_path / "other", key=bytes(32))
    for column in ("patient", "study", "series"):
        assert done.images[column][0] != other.images[column][0]


@pytest.mark.parametrize("content", ["", "abcd", "no key at all", "00" * 31])
def test_a_broken_key_is_not_replaced(imported, key, content):
    key.parent.mkdir()
    key.write_text(content)
    with pytest.raises(UsageError, match="test.key"):
        imported({"a": dicoms.dataset(RAMP)})
    assert key.read_text() == content


def test_a_key_that_others_can_read_is_refused(imported, key):
    key.parent.mkdir()
    key.write_text("00" * 32)
    key.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        imported({"a": dicoms.dataset(RAMP)})


MARK = "ZQXMARKERXQZ"
TEXT = {*"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split()}
BYTES = {"OB", "OD", "OF", "OL", "OV", "OW", "UN", "OB or OW"}
# Without these as they should be, nothing would be written.
NEEDED = {
    *("Modality", "SOPClassUID", "ConversionType", "NumberOfFrames", "PhotometricInterpretation"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "PixelData"),
    *("FloatPixelData", "DoubleFloatPixelData", "PixelDataProviderURL"),
}


def marked(needed):
    """Makes a film whose every tag that can hold it holds a marker, but for those needed."""
    made = dicoms.dataset(RAMP)
    for tag, (vr, *_) in DicomDictionary.items():
        group, keyword = tag >> 16, keyword_for_tag(tag)
        if keyword in needed or group in (0x0000, 0x0002, 0x0004, 0xFFFE) or tag & 0xFFFF == 0:
            continue
        if vr in TEXT:
            made[tag] = DataElement(tag, vr, MARK, already_converted=vr != "PN")
        elif vr in BYTES:
            made[tag] = DataElement(tag, vr.split()[0], MARK.encode())
        elif vr == "SQ":
            item = Dataset()
            item.add_new(0x00100010, "PN", MARK)
            item.add_new(0x00080104, "LO", MARK)
            made[tag] = DataElement(tag, "SQ", [item])
    block = made.private_block(0x0009, MARK, create=True)
    block.add_new(0x01, "LO", MARK)
    block.add_new(0x02, "UN", MARK.encode())
    for keyword in ("ImplementationVersionName", "SourceApplicationEntityTitle"):
        setattr(made.file_meta, keyword, MARK)
    made.file_meta.PrivateInformationCreatorUID = "1.2.3"
    made.file_meta.PrivateInformation = MARK.encode()
    made.preamble = (MARK * 20).encode()[:128]
    return made


@pytest.mark.parametrize("needed", [NEEDED, set()])
def test_a_marker_in_every_tag_is_in_no_output(
    source, tmp_path, monkeypatch, capfd, caplog, needed
):
    monkeypatch.setattr(config.settings, "writing_validation_mode", config.IGNORE)
    # A child's messages go nowhere; in this process they would be seen. One file at a time, as in
    # a child: what Python does with warnings is the process's, not the thread's.
    alone = threading.Lock()

    def here(_, data, **options):
        with alone:
            return decoder.task(data, **options)

    monkeypatch.setattr(child, "run", here)
    made = marked(needed)
    assert len(made) > 3000
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        data = dicoms.saved(made)
    assert data.count(MARK.encode()) > 4000
    (source / "a.dcm").write_bytes(data)
    (source / "b.dcm").write_bytes(data[:-100])
    caplog.clear()
    capfd.readouterr()
    code = dicom.main([str(source), str(tmp_path / "out")])
    said = capfd.readouterr()
    assert code == 3 and (tmp_path / "out" / "images.csv").exists() == (needed == NEEDED)
    assert MARK not in said.out + said.err + caplog.text
    for folder, folders, names in os.walk(tmp_path):
        if folder == str(source):
            continue
        assert not any(MARK in name for name in [*folders, *names])
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                assert MARK.encode() not in file.read(), name


def test_dates_and_numbers_leave_nothing_either(imported):
    film = dicoms.dataset(
        RAMP, PatientBirthDate="19420611", StudyDate="20110317", PatientID="73311",
        AccessionNumber="73312", InstanceNumber=7331373, StudyInstanceUID="1.73314.9",
        SeriesInstanceUID="1.73315.9", SOPInstanceUID="1.73316.9", PatientName="DOE^JANE",
    )  # fmt: skip
    done, out = imported({"a": film})
    assert done.images["age"][0] == 68
    text = (out / "images.csv").read_text() + done.images["path"][0]
    for word in ("1942", "2011", "0611", "0317", "7331", "DOE", "JANE"):
        assert word not in text


def test_names_of_files_are_hashed_in_the_table(imported):
    done, out = imported({"Jane Doe/a.dcm": dicoms.dataset(RAMP), "Jane Doe/b": b"x"})
    refused = pd.read_csv(out / "refused.csv")
    assert len(refused) == 1 and "Jane" not in (out / "refused.csv").read_text()
    assert dicom_tags.keyed(b"k", "file", "x") != dicom_tags.keyed(b"l", "file", "x")
    assert not [path for path in out.rglob("*") if "Jane" in path.name]
