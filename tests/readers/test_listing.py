import os

import pytest

from medkeras.readers import folders, listing


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def test_files_by_ending_and_folder_in_natural_order(tmp_path):
    touch(tmp_path, "b/10.npy", "b/9.NPY", "a/x.npy", "b/c/1.npy", "b/n.txt", "b/.h.npy")
    assert listing.files(tmp_path, [], {".npy"}) == ["a/x.npy", "b/9.NPY", "b/10.npy", "b/c/1.npy"]
    assert listing.files(tmp_path, [], {".npy"}, below="b/c") == ["b/c/1.npy"]
    assert listing.files(tmp_path, [], {".npy"}, skip=("b",)) == ["a/x.npy"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    problems = []
    assert listing.files(tmp_path, problems, {".npy"}, below="train/axial") == []
    assert [(p.path, p.reason) for p in problems] == [
        ("train/axial", "cannot be listed (No such file or directory)")
    ]


def test_links_to_folders_are_never_followed(tmp_path):
    touch(tmp_path / "outside" / "axial", "1.npy")
    root = touch(tmp_path / "root", "train/a.npy")
    (root / "valid").symlink_to(tmp_path / "outside")
    (root / "train" / "loop").symlink_to(root)
    (root / "train" / "itself.npy").symlink_to(root / "train" / "itself.npy")
    problems = []
    assert listing.files(root, problems, {".npy"}, below="valid/axial") == []
    assert listing.files(root, problems, {".npy"}) == ["train/a.npy"]
    assert sorted((p.path, p.reason) for p in problems) == [
        ("train/itself.npy", "is a link to nothing"),
        ("train/loop", "is a link to a folder, which is not followed"),
        ("valid", "is a link to a folder, which is not followed"),
        ("valid", "is a link to a folder, which is not followed"),
    ]


def test_a_csv_outside_the_data_is_not_read(tmp_path):
    touch(tmp_path, "root/x", "secret.csv")
    (tmp_path / "root" / "a.csv").symlink_to(tmp_path / "secret.csv")
    problems = []
    assert listing.read_rows(tmp_path / "root" / "a.csv", tmp_path / "root", problems) is None
    assert [(p.path, p.reason) for p in problems] == [("a.csv", "is a link out of the data folder")]


@pytest.mark.parametrize(
    "text",
    [
        "0001,1\n0002,\n",
        "\ufeff0001;1\r\n\r\n 0002 ;\r\n",
        "0001\t1\n\n0002\t",
        "\ufeffsep=;\r\n0001;1\r\n0002;\r\n",
        "SEP=|\n0001|1\n0002|\n",
    ],
)
def test_rows_without_a_header(tmp_path, text):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8", newline="")
    rows = listing.read_rows(tmp_path / "a.csv", tmp_path, [])
    assert rows == [["0001", "1"], ["0002", ""]]


def test_what_a_spreadsheet_says_before_the_header_is_no_header(tmp_path):
    # Without it, the commas of the first line would part the cells.
    (tmp_path / "a.csv").write_text("sep=;\nPath;a,b,c\n1.png;x\n")
    table = listing.read_csv(tmp_path / "a.csv", tmp_path, [])
    assert table.to_dict("list") == {"path": ["1.png"], "a,b,c": ["x"]}
    (tmp_path / "a.csv").write_text("sep=;")
    problems = []
    assert listing.read_csv(tmp_path / "a.csv", tmp_path, problems) is None
    assert problems[0].reason == "is empty"


def test_a_layout_begins_at_the_root_or_at_the_only_folder_inside_that_fits(tmp_path):
    def fits(folder):
        return (folder / "mark").is_file()

    touch(tmp_path, "a/mark", "b/x")
    assert folders.start(tmp_path, fits) == tmp_path.resolve() / "a"
    touch(tmp_path, "b/mark")
    assert folders.start(tmp_path, fits) == tmp_path.resolve()
    touch(tmp_path, "mark")
    assert folders.start(str(tmp_path), fits) == tmp_path.resolve()


def test_a_folder_that_may_not_be_read_holds_nothing(tmp_path):
    if os.geteuid() == 0:
        assert folders.inside(tmp_path / "absent") == []
        return
    (tmp_path / "shut" / "inner").mkdir(parents=True)
    (tmp_path / "shut").chmod(0)
    assert folders.inside(tmp_path / "shut") == []
