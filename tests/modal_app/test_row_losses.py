"""The file of the losses of held-out rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modal_app.held_out.row_losses import About, RowLosses


def losses(rows: int) -> RowLosses:
    number, ones = np.arange(rows, dtype=np.uint64), np.ones(rows, np.int32)
    about = About("rows", 10, 1.0, ("a.jsonl",), documents_known=True)
    nll = np.random.default_rng(0).random(rows)
    return RowLosses(about, number, number, np.zeros(rows, np.uint16), ones, ones, ones, ones, nll)


def test_a_file_that_is_damaged_at_any_place_counts_as_none_or_says_what_it_said(tmp_path: Path) -> None:
    path = tmp_path / "losses.npz"
    losses(60).write(path)
    good, written = path.read_bytes(), losses(60).nll.tolist()
    damaged = [good[:length] for length in (0, 1, 3, 100, len(good) - 1)]
    damaged += [good[:at] + bytes([good[at] ^ 0x7F]) + good[at + 1 :] for at in range(0, len(good), 9)]
    read = []
    for content in damaged:
        path.write_bytes(content)
        read.append(RowLosses.read(path))
    assert read.count(None) > len(damaged) / 2
    assert all(one.nll.tolist() == written for one in read if one is not None)


def test_nothing_but_the_file_is_left_by_writing_it(tmp_path: Path) -> None:
    for _ in range(2):
        losses(3).write(tmp_path / "losses.npz")
    assert [one.name for one in tmp_path.iterdir()] == ["losses.npz"]
