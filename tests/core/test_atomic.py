"""Files are either as they were or complete."""

from __future__ import annotations

import pytest

from raptor.core.atomic import explained, replacing, write_atomically
from raptor.core.errors import UserError


def test_a_file_appears_complete_in_a_folder_that_is_made_for_it(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    assert write_atomically(path, "one") == path
    assert write_atomically(path, b"two").read_bytes() == b"two"
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_whatever_goes_wrong_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_atomically(tmp_path / "file.txt", "old")

    def fail_half_way(file):
        file.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError), replacing(path) as temporary:
        fail_half_way(temporary)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_what_cannot_be_written_is_named_as_text(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"^cannot write {tmp_path}/file/inner.txt: "):
        write_atomically(tmp_path / "file" / "inner.txt", "text")
    with (
        pytest.raises(UserError, match=f"^cannot write {tmp_path}/other.txt: No space left on device$"),
        replacing(tmp_path / "other.txt"),
    ):
        raise OSError(28, "No space left on device", b"/some/bytes")


@pytest.mark.parametrize("name", ["gone/events", b"gone/events", None])
def test_a_path_in_an_error_is_text_even_where_a_library_gives_bytes(tmp_path, name):
    shown = tmp_path if name is None else "gone/events"
    with pytest.raises(UserError, match=f"^cannot write {shown}: No such file or directory$"), explained(tmp_path):
        raise FileNotFoundError(2, "No such file or directory", name)
