"""Files that are written: links, pipes, devices, and file systems that cannot do everything."""

import errno
import os
import stat

import filelock
import pytest

from igc_ref.files import writable, write_csv
from igc_ref.training import folder as runs
from tests.support.runs import config, failing


def test_a_link_is_followed_and_a_pipe_is_written_to(tmp_path):
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(tmp_path / "file")
    os.mkfifo(pipe)  # a device goes the same way
    (other := tmp_path / "pipe.partial").touch()
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path in (link, pipe):
        write_csv(writable(path), [["a", 1]])
    assert (tmp_path / "file").read_text() == os.read(reader, 99).decode() == "a,1\n"
    os.close(reader)
    assert link.is_symlink()
    assert pipe.is_fifo()
    assert other.exists()


@pytest.mark.parametrize("path", ["nowhere/file", "file/file", "folder"])
def test_what_cannot_be_written_is_found_out_before_and_named_as_it_was_given(tmp_path, path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError) as caught:
        writable(tmp_path / path)
    assert caught.value.filename == str(tmp_path / path)
    assert writable(tmp_path / "file").read_text() == "old"
    assert {entry.name for entry in tmp_path.iterdir()} == {"file", "folder"}


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF])
def test_a_folder_that_cannot_be_synced_does_not_end_the_run(tmp_path, monkeypatch, code):
    sync = os.fsync

    def refusing(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", refusing)
    write_csv(tmp_path / "file", [["a", 1]])
    assert (tmp_path / "file").read_text() == "a,1\n"


@pytest.mark.parametrize("error", [NotImplementedError(), OSError(errno.ENOLCK, "no locks")])
def test_a_file_system_without_locks_is_used_without_one_and_that_is_said(
    tmp_path, monkeypatch, error
):
    lines = []
    monkeypatch.setattr(filelock.FileLock, "acquire", failing(error))
    with runs.create(config(tmp_path), lines.append) as folder:
        assert (folder / runs.CONFIG).exists()
    assert lines == [f"{folder} cannot be locked here: use it from one process at a time"]
