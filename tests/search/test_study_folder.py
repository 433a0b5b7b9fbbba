"""Processes that begin the same search at the same moment."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from secateur.core.errors import StorageError
from secateur.search.study_folder import open_folder


def test_all_begin_it_together(tmp_path: Path) -> None:
    pytest.importorskip("filelock")
    for attempt in range(10):
        errors: list[Exception] = []

        def begin(path: Path = tmp_path / str(attempt), into: list[Exception] = errors) -> None:
            try:
                open_folder(path, {"seed": 0})
            except Exception as error:
                into.append(error)

        threads = [threading.Thread(target=begin) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors


def test_another_folder_is_refused_even_with_locks(tmp_path: Path) -> None:
    pytest.importorskip("filelock")
    (tmp_path / "locks").mkdir()
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(StorageError, match="no search"):
        open_folder(tmp_path, {"seed": 0})
    (tmp_path / "thesis.txt").unlink()
    assert open_folder(tmp_path, {"seed": 0}).settings.exists()
