"""base=FILE and `axosweep import`: an Axolotl config comes out unchanged, whatever is in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from runner.command.import_config import _dumped, import_config
from runner.composing.axolotl_file import for_omegaconf, read_base
from runner.errors import SweepError
from tests.good_configs.files import HERE, NAMES, as_a_run_has_it, as_axolotl_reads, lay_out

ON_EIGHT = ("gpu=h100", "gpu.count=8")
TINY = "base_model: m\ndatasets: [{path: a.jsonl, type: alpaca}]\nlearning_rate: 2e-5\nlora_r: 64\nseed: 1\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AXOSWEEP_STORE", str(tmp_path / "store"))
    return tmp_path


def _by_choice(requested: Any) -> dict[str, Mapping[str, Any]]:
    found = {}
    for experiment in requested.experiments:
        choice = experiment.overrides[0].partition("=")[2]
        found[Path(choice).stem] = experiment.axolotl
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_good_config_is_imported_as_it_is(here: Path, name: str) -> None:
    import_config(str(HERE / f"{name}.yml"), name=None, config_dir=None, force=False)
    written = OmegaConf.load(here / "conf" / "base" / f"{name}.yaml")
    composed = OmegaConf.to_container(OmegaConf.merge({"seed": 42}, written), resolve=True, throw_on_missing=True)
    assert composed == as_a_run_has_it(as_axolotl_reads(HERE / f"{name}.yml"))


ODD = ("anchors_and_oddities", "dora_by_layer", "own_template_inline", "tokens_overridden", "every_tracker")


@pytest.mark.parametrize("way", ["base", "experiment"])
@pytest.mark.parametrize("names", [ODD, pytest.param(NAMES, marks=pytest.mark.slow)], ids=["odd", "all"])
def test_a_good_config_composes_to_what_it_was(
    ask: Callable[..., Any], here: Path, names: Sequence[str], way: str
) -> None:
    lay_out(here)
    if way == "experiment":
        for name in names:
            import_config(f"{name}.yml", name=None, config_dir=None, force=False)
    choices = ",".join(f"{name}.yml" if way == "base" else name for name in names)
    composed = _by_choice(ask("-m", f"{way}={choices}", *ON_EIGHT))
    assert list(composed) == list(names)
    for name in names:
        assert composed[name] == as_a_run_has_it(as_axolotl_reads(here / f"{name}.yml")), name


_TEXT = st.one_of(
    st.text(),
    st.text(alphabet="${}\\'\"?: -.e1~#\n"),
    st.sampled_from(
        ["???", "${", "${x}", "\\${x}", "yes", "null", "~", "1e5", ".5", "0x1F", "1:30", "2026-11-03", "<<", "="]
    ),
)
_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**30), 10**30),
        st.floats(allow_nan=False, allow_infinity=False),
        _TEXT,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(_TEXT, st.integers(0, 10**6)), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.medium
@given(st.dictionaries(_TEXT, _VALUES, min_size=1, max_size=4))
def test_any_value_survives_hydras_syntax_and_the_file_that_is_written(config: dict[str, Any]) -> None:
    escaped = for_omegaconf(config)
    assert OmegaConf.to_container(OmegaConf.create(escaped), resolve=True, throw_on_missing=True) == config
    written = OmegaConf.create(_dumped(escaped))
    assert OmegaConf.to_container(written, resolve=True, throw_on_missing=True) == config


def test_nothing_of_axosweeps_own_groups_leaks_in_but_a_requested_group_counts(
    ask: Callable[..., Any], here: Path
) -> None:
    (here / "mine.yml").write_text(TINY)
    (plain,) = ask("base=mine.yml").experiments
    assert set(plain.axolotl) == {"base_model", "datasets", "learning_rate", "lora_r", "seed"}
    assert (plain.gpu.type, plain.axolotl["learning_rate"]) == ("cpu", 2e-5)
    ranks = [one.axolotl["lora_r"] for one in ask("-m", "base=mine.yml", "lora=r8,r16").experiments]
    assert ranks == [8, 16]
    (on_cpu,) = ask("base=mine.yml", "gpu=cpu").experiments
    assert on_cpu.axolotl["bf16"] is False
    import_config("mine.yml", name=None, config_dir=None, force=False)
    ranks = [one.axolotl["lora_r"] for one in ask("-m", "experiment=mine", "lora=r8,r16").experiments]
    assert ranks == [8, 16]


def test_a_base_is_requested_as_it_was_written_and_names_the_sweep(ask: Callable[..., Any], here: Path) -> None:
    (here / "configs").mkdir()
    for name in ("one.yml", "two two.yaml", "configs/one.yml"):
        (here / name).write_text(TINY.replace("64", str(len(name))))
    one = ask("base=one.yml", "max_steps=3")
    assert one.experiments[0].overrides == ("base=one.yml", "max_steps=3")
    assert one.request.name == "one"
    several = ask("-m", "base=one.yml,'two two.yaml',configs/one.yml", "max_steps=3,4")
    assert [one.axolotl["lora_r"] for one in several.experiments[::2]] == [7, 12, 15]
    assert several.experiments[2].overrides == ("base='two two.yaml'", "max_steps=3")
    assert several.request.name == "base-max_steps"


def test_the_rows_of_a_base_are_split_by_its_own_seed_whatever_seed_is_swept(
    ask: Callable[..., Any], here: Path
) -> None:
    (here / "mine.yml").write_text(TINY)
    (here / "none.yml").write_text(TINY.replace("seed: 1\n", ""))
    assert [one.data.seed for one in ask("-m", "base=mine.yml", "seed=5,6").experiments] == [1, 1]
    assert [one.data.seed for one in ask("-m", "base=none.yml", "seed=5,6").experiments] == [42, 42]
    assert [one.data.seed for one in ask("base=mine.yml", "data.seed=3").experiments] == [3]
    assert [one.data.seed for one in ask("base=mine.yml", "data.seed=null").experiments] == [None]
    import_config("mine.yml", name=None, config_dir=None, force=False)
    assert [one.data.seed for one in ask("-m", "experiment=mine", "seed=5,6").experiments] == [1, 1]


def test_the_default_seed_of_preparing_is_not_that_of_a_run_which_reads_its_own_data(
    ask: Callable[..., Any], here: Path
) -> None:
    (here / "stream.yml").write_text("base_model: m\npretraining_dataset: [{path: a/b}]\nmax_steps: 2\n")
    assert [one.data.seed for one in ask("base=stream.yml").experiments] == [None]
    assert [one.data.seed for one in ask("base=stream.yml", "data.seed=3").experiments] == [3]


def test_what_a_base_loses_and_where_it_would_run_is_printed_to_standard_error(
    ask: Callable[..., Any], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mine.yml").write_text(TINY + "output_dir: ./out\n")
    ask("-m", "base=mine.yml", "seed=1,2")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("mine.yml: output_dir: left out") == 1
    assert "base=mine.yml: without gpu=..., a run trains on the CPU" in printed.err
    ask("base=mine.yml", "gpu=h100")
    assert "without gpu=" not in capsys.readouterr().err


def test_overrides_can_be_requested_again(
    ask: Callable[..., Any], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mine.yml").write_text(TINY)
    ask("-m", "base=mine.yml", "learning_rate=1e-4,2e-4", "action=overrides")
    assert capsys.readouterr().out.splitlines() == [
        f"base=mine.yml ++axolotl.learning_rate={rate}" for rate in ("0.0001", "0.0002")
    ]


def test_a_sweeper_of_others_takes_a_base_too(ask: Callable[..., Any], here: Path) -> None:
    (here / "mine.yml").write_text(TINY)
    requested = ask("-m", "hydra/sweeper=basic", "base=mine.yml", "learning_rate=1e-3,3e-3")
    assert [one.axolotl["learning_rate"] for one in requested.experiments] == [1e-3, 3e-3]
    assert requested.experiments[0].axolotl["base_model"] == "m"


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        ("base: a.yml\nhydra: {sweeper: {params: {max_steps: [1, 2]}}}\n", [1, 1]),
        ("hydra: {sweeper: {params: {base: [a.yml, b.yml]}}}\n", [1, 2]),
        ("base: a.yml\nhydra: {sweeper: {params: {lora: [r8, r16]}}}\nmax_steps: 9\n", [8, 16]),
    ],
)
def test_a_sweep_file_may_name_a_base(ask: Callable[..., Any], here: Path, text: str, ranks: list[int]) -> None:
    for name, rank in (("a", 1), ("b", 2), ("c", 3)):
        (here / f"{name}.yml").write_text(TINY.replace("64", str(rank)))
    (here / "sweeps").mkdir()
    (here / "sweeps" / "mine.yaml").write_text(f"# @package _global_\n{text}")
    requested = ask("-m", "+sweeps=mine")
    assert [one.axolotl["lora_r"] for one in requested.experiments] == ranks
    (here / "conf" / "base").mkdir(parents=True)  # as `axosweep import` leaves it
    (here / "conf" / "base" / "a.yaml").write_text("# @package axolotl\nlora_r: 5\n")
    (here / "conf" / "base" / "own.yaml").write_text("lora_r: 5\n")  # its keys are below `base`
    assert [one.axolotl["lora_r"] for one in ask("-m", "+sweeps=mine").experiments] == ranks
    assert set(requested.experiments[0].axolotl) >= {"base_model", "lora_r"}
    if "lora: [" not in text:
        assert {one.axolotl["lora_r"] for one in ask("-m", "+sweeps=mine", "base=c.yml").experiments} == {3}


def _take_over(file: str, way: str, ask: Callable[..., Any]) -> None:
    if way == "base":
        ask("-m", f"base={file}", "learning_rate=1e-4,2e-4")
    else:
        import_config(file, name=None, config_dir=None, force=False)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no such file"),
        ("", "is empty, not an Axolotl config"),
        ("- 1\n", "is a list, not an Axolotl config"),
        ("a: [\n", "is not valid YAML"),
        ("base_model: m\n---\nbase_model: n\n", "is not valid YAML"),
        (b"base_model: \xff\xfe\n", "not text in UTF-8"),
        ("base_model: m\nlearnig_rate: 1\n", "Did you mean learning_rate"),
        ("base_model: m\ndatasets: [{pathh: x}]\n", "datasets.0.pathh"),
        ("base_model: m\nfsdp: [full_shard, auto_wrap]\n", "It says: The top-level `fsdp` list is no longer supported"),
        ("base_model: m\nunsloth_rope: true\n", "Please use `lora_mlp_kernel`, `lora_qkv_kernel`"),
        ("base_model: m\ngptq_groupsize: 128\n", "Axolotl has no key gptq_groupsize."),
        ("base_model: m\nresume_from_checkpoint: out/checkpoint-5\n", "lora_model_dir"),
        ("base_model: m\nchat_template_kwargs: {date: 2026-11-03}\n", "chat_template_kwargs.date is read as a date"),
        ("base_model: m\nadded_tokens_overrides: {yes: x}\n", "its name is read as a bool"),
        ("base_model: m\nweight_decay: .inf\n", "weight_decay is inf"),
        ("base_model: m\nlora.r:\n", "Axolotl has no key lora.r."),
        ("base_model: m\ndatasets: [{path: x}]\ndatasets.7.path: y\n", "Axolotl has no key datasets.7.path."),
        ("base_model: m\n8: x\n", "Axolotl has no key 8."),
        ("base_model: m\nplugins: !!set {a, b}\n", "read as a set"),
    ],
)
@pytest.mark.parametrize("way", ["base", "import"])
def test_what_cannot_be_taken_over_is_refused_with_the_reason(
    ask: Callable[..., Any], here: Path, content: str | bytes | None, says: str, way: str
) -> None:
    if content is not None:
        (here / "bad.yml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SweepError, match=re.escape(says)) as refused:
        _take_over("bad.yml", way, ask)
    assert "bad.yml" in str(refused.value)
    assert not (here / "conf").exists()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("base=mine.yml experiment=llama3_8b_alpaca", "both say what a run starts from"),
        ("base=llama3_8b_alpaca", "experiment=llama3_8b_alpaca"),
        ("base=.", "is a folder"),
        ("base=https://example.org/x.yml", "Download"),
        ("~base", "the path of an Axolotl config"),
        ("base=5", "the path of an Axolotl config"),
        ("base=a.yml,b.yml", "which need -m"),
        ("-m base=glob(*.yml)", "base=glob(*.yml): write the values as a list, as in base=A,B."),
        ("-m from=interval(1,2)", "write the values as a list, as in from=A,B."),
    ],
)
def test_a_base_that_means_nothing_is_refused(ask: Callable[..., Any], here: Path, line: str, says: str) -> None:
    (here / "mine.yml").write_text(TINY)
    with pytest.raises(SweepError, match=re.escape(says)):
        ask(*line.split())


def test_empty_keys_of_earlier_versions_are_left_out_with_a_note(here: Path) -> None:
    empty = "debug:\nfsdp:\ngptq_groupsize: ''\nlora_modules_to_save:\n"
    empty += "datasets: [{path: x, type: alpaca, num_samples: null}]\n"
    (here / "old.yml").write_text(f"base_model: m\nseed: 1\n{empty}")
    base = read_base("old.yml")
    dataset = {"path": "x", "type": "alpaca"}
    assert base.axolotl == {"base_model": "m", "seed": 1, "lora_modules_to_save": None, "datasets": [dataset]}
    (note,) = base.notes
    assert note.startswith("debug, fsdp, gptq_groupsize, datasets.0.num_samples: left out; Axolotl has no such key")


def test_secrets_and_addresses_are_left_out_and_distinguished(here: Path) -> None:
    (here / "mine.yml").write_text(
        TINY + "output_dir: ./out\nwandb_project: mine\nwandb_entity:\nhub_model_id: me/x\ncomet_api_key: hush\n"
        "plugins: [axolotl.integrations.hatchery.HatcheryPlugin]\nhatchery: {api_key: hush, lora_rank: 8}\n"
    )
    base = read_base("mine.yml")
    assert "hush" not in str(base)
    assert base.axolotl["hatchery"] == {"lora_rank": 8}
    assert base.tracking == {"project": "mine"}
    notes = "\n".join(base.notes)
    assert "comet_api_key: a secret, left out. Set COMET_API_KEY" in notes
    assert "hatchery.api_key: a secret, left out. Set HATCHERY_API_KEY" in notes
    assert "output_dir, wandb_project, hub_model_id: left out" in notes
    assert "wandb_entity" not in notes


def test_an_import_overwrites_nothing_unless_forced(ask: Callable[..., Any], here: Path) -> None:
    (here / "mine.yml").write_text(TINY)
    said = import_config("mine.yml", name=None, config_dir=None, force=False)
    assert [line.partition(":")[0] for line in said[:2]] == ["conf/base/mine.yaml", "conf/experiment/mine.yaml"]
    (here / "mine.yml").write_text(TINY.replace("64", "32"))
    with pytest.raises(SweepError, match=r"conf/experiment/mine\.yaml: there already"):
        import_config("mine.yml", name=None, config_dir=None, force=False)
    import_config("mine.yml", name=None, config_dir=None, force=True)
    assert ask("experiment=mine").experiments[0].axolotl["lora_r"] == 32
    with pytest.raises(SweepError, match="There is already an experiment llama3_8b_alpaca"):
        import_config("mine.yml", name="llama3_8b_alpaca", config_dir=None, force=False)


@pytest.mark.parametrize("name", ["16", "null", "a b", "a/b", "x.yaml", "-x"])
def test_a_name_that_hydra_would_not_read_is_refused(here: Path, name: str) -> None:
    (here / "mine.yml").write_text(TINY)
    with pytest.raises(SweepError, match="--name NAME"):
        import_config("mine.yml", name=name, config_dir=None, force=False)


def test_an_import_goes_where_the_command_says(ask: Callable[..., Any], here: Path) -> None:
    (here / "7 of mine!.yml").write_text(TINY)
    with pytest.raises(SweepError, match="--name"):
        import_config("7 of mine!.yml", name=None, config_dir="other/conf", force=False)
    import_config("7 of mine!.yml", name="seven", config_dir="other/conf", force=False)
    requested = ask("--config-dir", "other/conf", "experiment=seven")
    assert requested.experiments[0].axolotl["base_model"] == "m"
    assert requested.request.name == "seven"


def test_what_an_import_writes_says_how_it_is_used(here: Path) -> None:
    (here / "mine.yml").write_text(TINY + "wandb_project: 2026\n")
    import_config("mine.yml", name=None, config_dir=None, force=False)
    text = (here / "conf" / "experiment" / "mine.yaml").read_text()
    assert text.startswith("# @package _global_\n")
    assert "axosweep plan experiment=mine" in text
    assert yaml.safe_load(text)["tracking"] == {"project": "2026"}
