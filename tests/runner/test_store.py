from pathlib import Path

import pytest

from runner.errors import SweepError
from runner.store.stores import open_store, store_of


@pytest.mark.parametrize(
    ("asked", "variable", "expected"),
    [
        (None, None, "out"),
        (None, "", "out"),
        (None, "from/variable", "from/variable"),
        ("asked", "from/variable", "asked"),
        ("/x/asked", None, "/x/asked"),
    ],
)
def test_the_store_is_the_requested_one_then_the_variable_then_out(
    asked: str | None, variable: str | None, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AXOSWEEP_STORE", raising=False)
    if variable is not None:
        monkeypatch.setenv("AXOSWEEP_STORE", variable)
    assert open_store(asked).root == tmp_path / expected
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "results"])
def test_a_file_is_not_a_store(tmp_path: Path, below: str) -> None:
    (tmp_path / "rows.jsonl").touch()
    with pytest.raises(SweepError, match=r"rows\.jsonl is not a folder"):
        open_store(str(tmp_path / "rows.jsonl" / below))


@pytest.mark.parametrize("name", ["modal", "out/modal"])
def test_a_folder_with_the_name_of_a_mirror_gets_no_runs_of_this_machine(name: str, tmp_path: Path) -> None:
    """They would be taken for runs on Modal."""
    with pytest.raises(SweepError, match=r"modal: .* the mirror .* store=DIR"):
        store_of("local", str(tmp_path / name))
    assert store_of("modal", str(tmp_path / name)).root == tmp_path / name / "modal"


def test_a_store_in_the_home_folder_is_found_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_store("~/results").root == tmp_path / "results"
