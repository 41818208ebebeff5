"""Configs as people publish them: each is imported unchanged, and could run on the trainer, or is refused for the true
reason."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark import ParameterSet
from omegaconf import OmegaConf

from runner.command.import_config import import_config
from runner.errors import SweepError
from tests.good_configs.files import as_a_run_has_it, as_axolotl_reads, lay_out
from tests.preflight.could_run import obstacles
from tests.published_configs.table import FILES, NEW, OLD, TRANSLATED, VERDICTS

REFUSED_BY_THE_IMPORT = "cannot be used as it is"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder, with the configs and what they read."""
    folder = lay_out(tmp_path_factory.mktemp("published"), FILES)
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AXOSWEEP_STORE", str(folder / "store"))
        yield folder


@pytest.fixture(scope="module")
def found(place: Path) -> Mapping[str, Sequence[str]]:
    """What prevents each from running. One trainer process checks all of them."""
    files = [Path(file.name) for file in FILES]
    return {file.stem: texts for file, texts in obstacles(files).items()}


def _cases() -> list[ParameterSet]:
    def marks(pending: str) -> Sequence[pytest.MarkDecorator]:
        return [pytest.mark.xfail(strict=True, reason=pending)] if pending else []

    return [pytest.param(name, id=name, marks=marks(verdict.pending)) for name, verdict in VERDICTS.items()]


def test_there_are_sixty_a_third_of_each_kind_and_each_says_whose_style_it_has() -> None:
    assert {file.stem for file in FILES} == set(VERDICTS)
    assert len(FILES) >= 60
    assert min(map(len, (OLD, NEW, TRANSLATED))) >= 20
    assert all(file.read_text().startswith("# As in ") for file in FILES)


@pytest.mark.slow
@pytest.mark.parametrize("name", _cases())
def test_a_published_config_could_run_or_is_refused_with_the_true_reason(
    found: Mapping[str, Sequence[str]], name: str
) -> None:
    """All imports, plugins, optimizers, formats and templates of one that could run resolve in the trainer's Python."""
    reason, text = VERDICTS[name].reason, "\n".join(found[name])
    if not reason:
        assert text == ""
    for words in reason:
        assert words in text


def test_each_is_imported_as_it_is_or_nothing_is_written(place: Path, tmp_path: Path) -> None:
    for file in FILES:
        written = tmp_path / "base" / f"{file.stem}.yaml"
        if refusal := _import(file.name, tmp_path):
            assert REFUSED_BY_THE_IMPORT in refusal
            assert VERDICTS[file.stem].reason or VERDICTS[file.stem].pending, refusal
            assert not written.exists()
        else:
            composed = OmegaConf.merge({"seed": 42}, OmegaConf.load(written))
            assert OmegaConf.to_container(composed, resolve=True) == as_a_run_has_it(as_axolotl_reads(file)), file.stem


def _import(file: str, conf: Path) -> str:
    """The refusal, if there is one."""
    try:
        import_config(file, name=None, config_dir=str(conf), force=False)
    except SweepError as error:
        return str(error)
    return ""


@pytest.mark.medium
def test_as_a_base_each_that_could_run_composes_to_what_it_is(ask: Callable[..., Any], place: Path) -> None:
    names = [name for name, verdict in VERDICTS.items() if verdict.reason == () and verdict.pending == ""]
    requested = ask("-m", f"base={','.join(f'{name}.yml' for name in names)}", "gpu=h100", "gpu.count=8")
    assert len(requested.experiments) == len(names) >= 30
    for name, experiment in zip(names, requested.experiments, strict=True):
        assert experiment.axolotl == as_a_run_has_it(as_axolotl_reads(place / f"{name}.yml")), name
