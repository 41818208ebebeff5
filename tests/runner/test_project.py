"""A user's own conf/ and sweeps/, in the working directory or named, come before the shipped ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.command import help as help_page
from runner.command.complete import complete
from runner.config.project import find_project, own_conf
from runner.config.shipped import shipped_root
from runner.errors import SweepError

MODEL = "# @package axolotl\nbase_model: mine\nsequence_len: 77\n"
SWEEP = "# @package _global_\nhydra: {sweeper: {params: {learning_rate: [1e-3, 2e-3, 3e-3]}}}\nmax_steps: 3\n"
FOREIGN = "defaults: [_self_, {model: resnet}]\nseed: 1\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AXOSWEEP_STORE", str(tmp_path / "store"))
    return tmp_path


def _write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        file = folder / f"{name.replace('__', '/')}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def test_a_users_group_file_replaces_the_shipped_one(ask: Callable[..., Any], here: Path) -> None:
    _write(here, conf__model__llama3_8b=MODEL, conf__model__mine=MODEL)
    for name in ("llama3_8b", "mine"):
        (experiment,) = ask(f"model={name}").experiments
        assert (experiment.axolotl["base_model"], experiment.axolotl["sequence_len"]) == ("mine", 77)
    assert ask("model=tiny").experiments[0].axolotl["base_model"] != "mine"


def test_a_file_that_has_changed_since_the_last_command_of_the_process_is_read_again(
    ask: Callable[..., Any], here: Path
) -> None:
    for text in (MODEL, MODEL + "seed: 5\n", MODEL):
        _write(here, conf__model__mine=text)
        for _ in range(2):
            assert ask("model=mine").experiments[0].axolotl["seed"] == (5 if "seed" in text else 42)
    (here / "conf/model/mine.yaml").unlink()
    with pytest.raises(SweepError, match="mine"):
        ask("model=mine")


@pytest.mark.parametrize("text", ["base_model: mine\nsequence_len: 77\n", "axolotl:\n  base_model: mine\n"])
def test_a_model_file_without_its_first_line_is_refused_with_the_missing_line(
    ask: Callable[..., Any], here: Path, text: str
) -> None:
    _write(here, conf__model__mine=text)
    with pytest.raises(SweepError, match=r"The first line of the file for model= .*`# @package axolotl`"):
        ask("model=mine")


def test_a_users_sweep_file_is_found_and_counts_before_a_shipped_one(ask: Callable[..., Any], here: Path) -> None:
    _write(here, sweeps__first=SWEEP, sweeps__tiny_grid=SWEEP)
    for name in ("first", "tiny_grid"):
        requested = ask("-m", f"+sweeps={name}")
        assert [one.axolotl["max_steps"] for one in requested.experiments] == [3, 3, 3]
        assert requested.request.name == name


def test_a_folder_next_to_the_sweep_files_is_no_config_group(ask: Callable[..., Any], here: Path) -> None:
    """A user's own results or rows may be in a folder that is called like a key."""
    _write(here, sweeps__first=SWEEP, store__x="{}\n", lora__mine="# @package axolotl\nlora_r: 1\n")
    for name in ("json", "action", "from", "stages", "max_steps"):
        (here / name).mkdir()
    request = ask("-m", "+sweeps=first", "store=store", "--json", "action=plan", "stages=[preprocess]").request
    assert (request.store, request.json, request.action) == ("store", True, "plan")
    assert [one.axolotl["lora_r"] for one in ask("-m", "lora=glob([r16,mine])").experiments] == [16]
    with pytest.raises(SweepError, match="there is no such lora"):
        ask("lora=mine")


def test_a_named_folder_comes_before_the_one_of_the_working_directory(ask: Callable[..., Any], here: Path) -> None:
    _write(here, conf__lora__r8="# @package axolotl\nlora_r: 1\n", conf__lora__own="# @package axolotl\nlora_r: 2\n")
    other = _write(here / "other", conf__lora__r8="# @package axolotl\nlora_r: 3\n", sweeps__theirs=SWEEP)
    _write(other / "conf", sweeps__inside=SWEEP)
    for flag in (["--config-dir", "other/conf"], ["-cd=other/conf"]):
        ranks = [one.axolotl["lora_r"] for one in ask("-m", *flag, "lora=r8,own,r16").experiments]
        assert ranks == [3, 2, 16]
    assert len(ask("-m", "--config-dir", "other/conf", "+sweeps=theirs").experiments) == 3
    assert len(ask("-m", "--config-dir", "other/conf", "+sweeps=inside").experiments) == 3


def test_ones_own_options_are_in_help_and_completion(here: Path) -> None:
    _write(here, conf__model__mine=MODEL, sweeps__first=SWEEP, conf__model__broken="a: [")
    assert "mine" in help_page.text()
    assert "model=mine" in complete("axosweep model=min", 18)
    assert complete("axosweep -m +sweeps=fi", 22) == ["+sweeps=first"]


def test_a_broken_file_stops_only_who_asks_for_it(ask: Callable[..., Any], here: Path) -> None:
    _write(here, conf__model__broken="a: [")
    assert ask("lora=r8").experiments
    with pytest.raises(SweepError, match=r"broken\.yaml"):
        ask("model=broken")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"# @package axolotl with my values\nlora_r: 3\n", "Too many components in '@package axolotl with my values'"),
        (b"# @package\nlora_r: 3\n", "Expected header format: KEY VALUE, got '@package'"),
        (b"# @package axolotl\nnote: \xe9t\xe9\n", "can't decode byte 0xe9"),
        (b"# @package axolotl\ndefaults: r8\n", "defaults must be a list"),
        (b"5\n", "Invalid loaded object type: int"),
        (b"# @package _global_\ndefaults: [{override /alpha: 8}]\n", "Unsupported item value in defaults : int"),
    ],
)
def test_a_file_that_hydra_cannot_use_is_named(ask: Callable[..., Any], here: Path, content: bytes, says: str) -> None:
    (here / "conf" / "lora").mkdir(parents=True)
    (here / "conf" / "lora" / "mine.yaml").write_bytes(content)
    assert ask("lora=r8").experiments
    for words in (["lora=mine"], ["-m", "lora=r8,mine"], ["--cfg", "job", "lora=mine"]):
        with pytest.raises(SweepError) as refused:
            ask(*words)
        assert str(refused.value).startswith("The config file lora/mine.yaml cannot be used: ")
        assert says in str(refused.value)


def test_defaults_lists_that_lead_back_to_their_file_are_refused(ask: Callable[..., Any], here: Path) -> None:
    _write(here, conf__lora__mine="# @package axolotl\ndefaults: [mine]\n")
    _write(here, conf__lora__one="defaults: [two]\n", conf__lora__two="defaults: [{/lora: one}]\n")
    for words in (["lora=mine"], ["-m", "lora=r8,mine"], ["--cfg", "job", "lora=mine"]):
        with pytest.raises(SweepError, match=r"The defaults list of lora/mine.yaml leads back to this file\. Remove"):
            ask(*words)
    with pytest.raises(SweepError, match=r"of lora/one.yaml leads back to this file through lora/two.yaml\."):
        ask("lora=two")


def test_the_checkouts_own_conf_is_there_once(
    ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shipped_root())
    assert find_project().conf == (shipped_root() / "conf",)
    assert find_project().homes == (shipped_root(),)
    ask("--info", "searchpath")
    assert capfd.readouterr().out.count(f"{shipped_root()}/conf ") == 1


def test_the_conf_of_another_hydra_application_is_left_alone(
    ask: Callable[..., Any], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(here, conf__config=FOREIGN, conf__model__tiny="layers: 18\n")
    assert ask("lora=r8").experiments[0].axolotl["base_model"].endswith("tiny/model")
    assert "conf is not read" in capsys.readouterr().err
    with pytest.raises(SweepError, match="replace axosweep's own"):
        ask("--config-dir", "conf", "lora=r8")
    with pytest.raises(SweepError, match="--config-dir"):
        own_conf()


def test_a_users_own_root_config_counts(ask: Callable[..., Any], here: Path) -> None:
    text = (shipped_root() / "conf" / "config.yaml").read_text()
    _write(here, conf__config=text.replace("seed: 42", "seed: 43"))
    assert ask("lora=r8").experiments[0].axolotl["seed"] == 43


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("experiment__mine", "axolotl: {max_steps: 3}\n", "# @package _global_"),
        (
            "experiment__mine",
            "defaults: [{override /lora: r8}]\n",
            "`# @package _global_`: without it, .* looks for lora",
        ),
        ("lora__mine", "lora_r: 3\n", "# @package axolotl"),
        ("experiment__mine", "# @package _global_\nmax_steps: 3\n", "below `axolotl:`"),
        ("experiment__mine", "# @package _global_\nhydra:\n", "mine.yaml has `hydra:` without a value"),
        ("experiment__mine", "# @package _global_\ntrackin: {mode: offline}\n", "Did you mean tracking"),
    ],
)
def test_what_a_file_says_where_nothing_reads_it_is_refused(
    ask: Callable[..., Any], here: Path, name: str, text: str, says: str
) -> None:
    _write(here, **{f"conf__{name}": text})
    with pytest.raises(SweepError, match=says):
        ask(f"{name.partition('__')[0]}=mine")


@pytest.mark.parametrize(("word", "folder"), [("experiment=mine", "conf/"), ("+sweeps=mine", "sweeps/")])
def test_an_option_of_another_folder_is_refused_with_the_folder_that_was_looked_in(
    ask: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SweepError, match=rf"Your own would be in {folder}, which .* does not have \({tmp_path}\)"):
        ask("-m", word, "lora=r8,r16")
    (tmp_path / folder).mkdir()
    with pytest.raises(SweepError, match=r"there is no such \w+\. There are"):
        ask("-m", word, "lora=r8,r16")


def test_a_folder_that_is_not_there_is_refused(ask: Callable[..., Any]) -> None:
    with pytest.raises(SweepError, match="--config-dir nowhere: there is no such folder"):
        ask("--config-dir", "nowhere", "lora=r8")
