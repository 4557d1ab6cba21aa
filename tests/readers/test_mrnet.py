import numpy as np
import pytest

from medkeras.errors import DataError
from medkeras.readers import mrnet, tables

LABELS = {"abnormal": "1101", "acl": "1000", "meniscus": "0101"}


@pytest.fixture
def knees(tmp_path):
    """Writes four exams to train on and two to test, and returns the folder."""
    root = tmp_path / "MRNet-v1.0"
    add(root, "train", ["0000", "0001", "0002", "0010"])
    add(root, "valid", ["1130", "1131"])
    return root


def add(root, part, exams):
    for plane in mrnet.PLANES:
        (root / part / plane).mkdir(parents=True)
        for exam in exams:
            np.save(root / part / plane / f"{exam}.npy", np.zeros((1, 2, 2), np.uint8))
    for label, values in LABELS.items():
        rows = "".join(f"{e},{v}\n" for e, v in zip(exams, values, strict=False))
        (root / f"{part}-{label}.csv").write_text(rows)


def rewrite(root, text, name="train-acl.csv"):
    (root / name).write_bytes(text.encode() if isinstance(text, str) else text)


def problems(root):
    with pytest.raises(DataError) as caught:
        mrnet.read(root)
    return [(p.path, p.reason, p.remedy) for p in caught.value.problems]


def noted(table):
    return " | ".join(f"{note['path']}: {note['reason']}" for note in table.attrs["notes"])


@pytest.mark.parametrize("inner", [True, False])
def test_one_row_per_exam(knees, inner):
    table = mrnet.read(knees if inner else knees.parent)
    assert table["path"].tolist() == [
        "train/0000", "train/0001", "train/0002", "train/0010", "valid/1130", "valid/1131",
    ]  # fmt: skip
    assert table["patient"].tolist() == table["path"].tolist()
    assert table["split"].tolist() == ["train"] * 4 + ["test"] * 2
    assert table["abnormal"].tolist() == [1, 1, 0, 1, 1, 1]
    assert table["acl"].tolist() == [1, 0, 0, 0, 1, 0]
    assert table["meniscus"].tolist() == [0, 1, 0, 1, 0, 1]
    assert table["coronal"].iloc[1] == str(knees.resolve() / "train/coronal/0001.npy")
    assert tables.files(table) == ["axial", "coronal", "sagittal"]
    assert tables.labels(table) == ["abnormal", "acl", "meniscus"]
    assert tables.classes(table) is None
    assert "does not say who is shown" in noted(table)


@pytest.mark.parametrize("part", ["train", "valid"])
def test_one_part_alone_has_no_published_split(tmp_path, part):
    add(tmp_path, part, ["0000", "0001"])
    table = mrnet.read(tmp_path)
    assert len(table) == 2 and "split" not in table


def test_a_missing_plane_is_named_with_its_exam(knees):
    (knees / "train" / "coronal" / "0001.npy").unlink()
    (knees / "valid" / "axial" / "1131.npy").unlink()
    (knees / "valid" / "sagittal" / "1131.npy").unlink()
    with pytest.raises(DataError) as caught:
        mrnet.read(knees)
    assert str(caught.value).splitlines() == [
        "train/0001: has no coronal volume",
        "valid/1131: has no axial and no sagittal volume",
    ]
    assert caught.value.problems[0].remedy == (
        "add train/coronal/0001.npy, or remove the whole exam"
    )
    assert caught.value.table["path"].tolist() == [
        "train/0000", "train/0002", "train/0010", "valid/1130",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "0000,1\n0001,0\n0002,0\n0010,0\n0099,1\n",
            ("train/0099", "is named in train-acl.csv, but has no volume in axial, coronal, "
             "sagittal", "add its volumes, or remove the rows"),
            id="row without files",
        ),
        pytest.param(
            "0000,1\n0001,0\n0010,0\n",
            ("train/0002", "has no row in train-acl.csv", "add a row, or remove its volumes"),
            id="files without row",
        ),
        pytest.param(
            "0000,1\n0001,0\n0002,0\n0010,0\n0001,0\n",
            ("train/0001", "stands in train-acl.csv 2 times", "keep the row that is right"),
            id="repeated",
        ),
        pytest.param(
            "0000,1\n0001,0\n0002,0\n0010,0\n0001,1\n",
            ("train/0001", "stands in train-acl.csv 2 times, as 0 and as 1",
             "keep the row that is right"),
            id="conflicting",
        ),
        pytest.param(
            "0000,1\n1,0\n0002,0\n0010,0\n",
            ("train/0001", "is written '1' in train-acl.csv, without its zeros", "write 0001"),
            id="lost zeros in one row",
        ),
        pytest.param(
            "0000,1\n0001,2\n0002,0\n0010,0\n",
            ("train/0001", "has acl = '2' in train-acl.csv",
             "write 1 or 0, or nothing where it is unknown"),
            id="unknown label",
        ),
        pytest.param(
            "0000,1\n0001,0\n0002,0\n0010,0\n0001\n",
            ("train-acl.csv", "row '0001' is not an exam and its label", "write it like `0000,1`"),
            id="missing cell",
        ),
        pytest.param(
            "0000,1\n0001,0\n0002,0\n0010,0\n,1\n",
            ("train-acl.csv", "row ',1' is not an exam and its label", "write it like `0000,1`"),
            id="no exam",
        ),
        pytest.param(
            "0500,1\n0501,0\n",
            ("train-acl.csv", "names 2 exams, none of which is there (the first: 0500)",
             "use the csv that belongs to train"),
            id="another part's csv",
        ),
        pytest.param(" \n\n", ("train-acl.csv", "is empty", "fill it, or remove it"), id="empty"),
        pytest.param(
            b"0000,1\n\xff\xfe,0\n",
            ("train-acl.csv", "is not UTF-8 text", "save it as `CSV UTF-8`"),
            id="no text",
        ),
        pytest.param(
            '0000,1\n"0001,0\n0002,0\n',
            ("train-acl.csv", "is not a csv file (unexpected end of data)", "mend its quotes"),
            id="open quote",
        ),
    ],
)  # fmt: skip
def test_broken_csvs_say_what_to_do(knees, text, expected):
    rewrite(knees, text)
    assert problems(knees) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff0000,1\n0001,0\n0002,0\n0010,0\n",
        "0000;1\r\n\r\n0001;0\r\n0002;0\r\n0010;0\r\n\r\n",
        "0010\t0\n0002\t0.0\n 0000\t1.0\n0001 \t0\n",
        "0000,1,\n0001,0,\n0002,0,\n0010,0,\n",
    ],
    ids=["byte order mark", "semicolons and blank lines", "tabs, any order", "trailing commas"],
)
def test_what_spreadsheets_do_is_accepted(knees, text):
    expected = mrnet.read(knees)
    rewrite(knees, text)
    assert mrnet.read(knees).equals(expected)


def test_a_header_is_left_out_and_noted(knees):
    expected = mrnet.read(knees)
    rewrite(knees, "filename,label\n0000,1\n0001,0\n0002,0\n0010,0\n")
    table = mrnet.read(knees)
    assert table.equals(expected)
    assert "train-acl.csv: begins with a header, 'filename,label'" in noted(table)


def test_exams_of_a_csv_that_lost_all_its_zeros_are_found_by_number(knees):
    expected = mrnet.read(knees)
    rewrite(knees, "0,1\n1,0\n2,0\n10,0\n")
    table = mrnet.read(knees)
    assert table.equals(expected)
    assert "train-acl.csv: has lost the zeros before 4 exams" in noted(table)


def test_a_number_that_two_exams_share_is_not_guessed(knees):
    for plane in mrnet.PLANES:
        np.save(knees / "train" / plane / "01.npy", np.zeros((1, 2, 2), np.uint8))
    rewrite(knees, "0,1\n1,0\n2,0\n10,0\n")
    found = {path for path, *_ in problems(knees)}
    assert {"train/0001", "train/01", "train/1"} <= found


def test_a_number_of_thousands_of_digits_is_a_name_like_any_other(knees):
    rewrite(knees, "0000,1\n0001,0\n0002,0\n0010,0\n" + "9" * 5000 + ",1\n")
    (found,) = problems(knees)
    assert "has no volume" in found[1]


def test_an_empty_cell_is_unknown(knees):
    rewrite(knees, "0000,1\n0001,\n0002,0\n0010,0\n")
    assert mrnet.read(knees)["acl"].isna().tolist() == [False, True] + [False] * 4


def test_a_tear_in_a_normal_knee_is_noted_only(knees):
    rewrite(knees, "0000,1\n0001,0\n0002,1\n0010,0\n")
    assert "train/0002: abnormal is 0 where there is a tear" in noted(mrnet.read(knees))


def test_all_faults_come_at_once(knees):
    (knees / "valid-acl.csv").unlink()
    (knees / "train" / "axial" / "0010.npy").unlink()
    np.save(knees / "train" / "axial" / "stray.npy", np.zeros(1))
    (knees / "train" / "coronal" / "more").mkdir()
    np.save(knees / "train" / "coronal" / "more" / "0003.npy", np.zeros(1))
    rewrite(knees, "0000,yes\n0001,0\n0002,0\n0010,0\n")
    found = [(path, reason) for path, reason, _ in problems(knees)]
    assert found == [
        ("train/coronal/more/0003.npy", "lies too deep, expected in train/coronal"),
        ("train/0000", "has acl = 'yes' in train-acl.csv"),
        ("train/0010", "has no axial volume"),
        ("train/stray", "has no coronal and no sagittal volume"),
        ("train/stray", "has no row in train-abnormal.csv, train-acl.csv, train-meniscus.csv"),
        ("valid-acl.csv", "does not exist"),
    ]


def test_a_plane_that_is_missing_altogether_is_said_once(knees):
    (knees / "train" / "sagittal").rename(knees / "elsewhere")
    (found,) = problems(knees)
    assert found[:2] == (
        "train/sagittal", "does not exist, expected one volume of each exam in it",
    )  # fmt: skip


def test_layout_faults(tmp_path):
    assert "does not exist" in problems(tmp_path / "absent")[0][1]
    assert problems(tmp_path)[0][1] == "holds neither train nor valid"
    (tmp_path / "train").mkdir()
    assert problems(tmp_path)[0][:2] == ("train", "holds no volumes")


def test_a_csv_may_say_who_the_patients_are(knees):
    exams = mrnet.read(knees)["path"].tolist()
    rows = "".join(f"{exam},p{number // 2}\n" for number, exam in enumerate(exams))
    rewrite(knees, "path,patient\n" + rows, "patients.csv")
    table = mrnet.read(knees)
    assert table["patient"].tolist() == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert noted(table) == ""
    rewrite(knees, "path,patient\n" + rows.replace("train/0001,p0\n", ""), "patients.csv")
    assert [found[:2] for found in problems(knees)] == [
        ("train/0001", "has no row in patients.csv")
    ]


def test_other_folders_are_left_alone_and_nothing_is_written(knees, content_of):
    (knees / "masks" / "acl" / "train" / "axial").mkdir(parents=True)
    np.save(knees / "masks" / "acl" / "train" / "axial" / "0000.npy", np.zeros(1))
    before = content_of(knees)
    assert len(mrnet.read(knees)) == 6
    assert content_of(knees) == before
