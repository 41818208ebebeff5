"""The fast composer gives the same values as Hydra, in the same order, and the same errors."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from modal_app.patches.apply import apply_launcher_patches
from runner.composing.fast_compose import ComposedJob, compose_all
from runner.composing.hydra_inside import CachingLoader, multirun
from runner.composing.job_overrides import another_number, parsed
from runner.composing.resolvers import register_resolvers

Job = tuple[str, ...]
FILES = {
    "config.yaml": """
        defaults: [_self_, model: small, data: one, optional extra: null, experiment: null,
          override hydra/hydra_logging: none, override hydra/job_logging: none]
        seed: 1
        name: run-${seed}
        gone: null
        ask: {limit: null, list: [1, {a: 2}, {a: 3}, 4], at: "${.limit}", up: "${..seed}"}
        env: ${oc.env:NO_SUCH_VARIABLE,none}
        same: ${model}
        hidden: 4
        numbers: {1: "${seed}", 2: {3: x}, 5: ["${seed}", {6: "${name}"}]}
        """,
    "model/small.yaml": "{layers: 2, width: 8, path: '${shipped:tiny}/${seed}', opt: {name: adam, betas: [1, 2]}}",
    "model/large.yaml": "{layers: 9, width: 80, heads: '${model.layers}', opt: {name: '${data.rows.0.path}'}}",
    "model/by_name.yaml": "{layers: '${oc.select:seed}', width: '${oc.decode:\"[1,2]\"}', opt: '${oc.select:hidden}'}",
    "model/by_job.yaml": "{layers: 1, width: '${hydra:job.num}', opt: {name: '${times_two:${seed}}'}}",
    "model/missing.yaml": "{layers: '???', width: 1}",
    "data/one.yaml": "rows: [{path: a.jsonl, type: '${model.width}'}]",
    "data/two.yaml": "{rows: [{path: a.jsonl}, {path: b.jsonl, split: '${data.rows.0.path}'}], more: {x: {y: 1}}}",
    "data/missing.yaml": "{rows: [], more: {x: '???'}}",
    "data/outside.yaml": """
        # @package _global_
        seed: 5
        rows: []
        """,
    "extra/some.yaml": "{text: 'a \\\\${b} c', turn: '${ask.list.1.a}', nodes: {'${seed}': 1}}",
    "extra/typed.yaml": "{text: x}",
    "experiment/plain.yaml": """
        # @package _global_
        seed: 3
        """,
    "experiment/tuned.yaml": """
        # @package _global_
        defaults: [override /model: large, override /data: two]
        seed: 7
        model: {width: 5, extra: '${name}'}
        """,
    "experiment/noted.yaml": """
        # @package _global_
        defaults: [_self_, {/notes: '${model}_${data}'}]
        seed: 8
        """,
    "notes/small_one.yaml": "{few: 1}",
    "notes/large_one.yaml": "{many: '${seed}'}",
    "experiment/astray.yaml": """
        # @package _global_
        defaults: [override /hydra/launcher: nowhere]
        """,
    "experiment/named.yaml": """
        # @package _global_
        hydra: {job: {name: other}}
        name: '${hydra.job.name}'
        """,
    "experiment/batched.yaml": """
        # @package _global_
        hydra: {sweeper: {max_batch_size: 3}}
        """,
    "experiment/by_model.yaml": """
        # @package _global_
        hydra: {sweeper: {max_batch_size: '${model.layers}'}}
        """,
}
OVERRIDES = """
    model=small model=large model=by_name model=by_job model=missing data=one data=two extra=some experiment=tuned
    experiment=noted experiment=named
    model=nowhere ~data ~model=small +extra=some model@other=large +model@other=small data=[one,two]
    seed=2 seed=null ++seed=x name=plain ++name=other +name=taken gone=5 +gone=6 ++gone.deep=7 gone.deep=8 ~gone ~name
    ~seed ~seed=1 model.layers=3 ++model.layers=4 +model.layers=5 ++model.new=1 +model.newer=2 ++model.deep.er=3
    ~model.layers ~model.opt ++model.opt.name=sgd model.opt=null ++model.opt={name:sgd,lr:1} model.opt={eps:1e-8}
    ~model.opt.betas model.opt.betas=[3] ++model.opt.betas.0=9 model.opt.betas.1=two ++model.path.below=1
    model.width=1e-4 model.width=true model.width=1.0 model.width=null model.width=08 "model.width='08'" model.width=''
    data.rows.0.path=b.jsonl data.rows.0.type=x ++data.rows.0.new=1 ~data.rows.0 data.rows.1.path=z ++data.rows.5.path=q
    ~data.rows.0.type data.rows=[] "data.rows=[{path: c.jsonl}]" ++data.more={z:1} ++data.more.x=2 ++data.more.x.y=3
    ~data.more.x ask.limit=3 ask.limit='${seed}' '++ask.more="${model.layers}"' '+ask.num="${hydra:job.num}"'
    '++ask.twice="${times_two:${seed}}"' '+ask.root="${times_sqrt:8,${seed}}"'
    '++ask.four="${times:2,${ask.limit}}"' '++ask.rel="${.limit}"' '++ask.dict={a: "${seed}", b: {c: "${..a}"}}'
    ask.list=[4] ask.list.1.a=9 ++ask.list.1.b=1 ~ask.list.0 ~ask.list.2 +ask.list.1.c=5 ask.list.0='${seed}'
    '++ask.escaped="\\${seed}"' ask={limit:2} ++ask={limit:2,other:3} +same.layers=1 ++same.fresh=2 env=set ~env
    '++gone="${nowhere}"' ++gone=??? '++gone="${oc.env:HOME}"' '++gone="${model}"' top=1 +top=1 ++top.a.b=1 +a-b=1
    '++ask.list="${data.rows}"' '+b="${data}"' +b.rows.0.path=w '++model.opt.betas="${ask.list}"' hydra.job.name=x
    key@pkg=1 ++extra.turn=1 'model.width="${nope"' ++seed=[1,2] ++seed={a:1} ask.up=5 ask.at.x=1
    """


def _words(text: str) -> list[str]:
    """Split at blanks outside of quotes and brackets, which stay as in Hydra's grammar."""
    words, depth, quote = [""], 0, ""
    for letter in text:
        if letter in "'\"" and (not quote or quote == letter):
            quote = "" if quote else letter
        depth += (letter in "[{") - (letter in "]}") if not quote else 0
        if letter.isspace() and not quote and not depth:
            words.append("")
        else:
            words[-1] += letter
    return [word[1:-1] if word[:1] in "'\"" else word for word in words if word]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    conf = tmp_path_factory.mktemp("conf")
    for name, text in FILES.items():
        lines = text.strip("\n").splitlines()
        margin = len(lines[0]) - len(lines[0].lstrip())
        (conf / name).parent.mkdir(exist_ok=True)
        (conf / name).write_text("\n".join(line[margin:] for line in lines) + "\n")
    return conf


@pytest.fixture(autouse=True)
def _resolvers() -> None:
    register_resolvers()
    if not OmegaConf.has_resolver("times_two"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 1.4 has another name for it
            OmegaConf.register_new_resolver("times_two", lambda number: f"{number}{number}")


@pytest.fixture
def started(tree: Path) -> Iterator[Callable[..., tuple[DictConfig, ConfigLoader]]]:
    """`started(*overrides)`: what a sweeper gets, for the small tree of configs."""
    with _hydra(tree):
        yield _start


def _hydra(conf: Path) -> initialize_config_dir:
    apply_launcher_patches()  # as the application does
    base = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
    return initialize_config_dir(str(conf), **base)


def _start(*overrides: str) -> tuple[DictConfig, ConfigLoader]:
    loader = CachingLoader(GlobalHydra.instance().config_loader())
    master = loader.load_configuration("config", list(overrides), RunMode.MULTIRUN)
    if not HydraConfig.initialized():  # Hydra does so for each sweep, which takes longer than anything else here
        HydraConfig.instance().set_config(master)
    return master, loader


def _by_hydra(master: DictConfig, job: Job, number: int) -> str:
    loader = GlobalHydra.instance().config_loader()
    try:
        config = loader.load_sweep_config(master, list(job))
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        HydraConfig.instance().set_config(config)
        choices = OmegaConf.to_container(config.hydra.runtime.choices)
        with open_dict(config):
            del config["hydra"]
    except (HydraException, OmegaConfBaseException, ValueError, TypeError, AssertionError, AttributeError) as error:
        return _told(error)
    try:
        return _text(OmegaConf.to_container(config, resolve=True, throw_on_missing=True), choices)
    except OmegaConfBaseException as error:
        return _told(error)


def _told(error: BaseException) -> str:
    cause = f" from {_told(error.__cause__)}" if error.__cause__ is not None else ""
    return f"{type(error).__name__}: {error}{cause}"


def _text(node: Any, choices: Any) -> str:
    return json.dumps([node, choices], default=str)


def _fast(master: DictConfig, loader: ConfigLoader, jobs: Sequence[Job]) -> list[str]:
    found = []
    for one in compose_all(master, jobs, loader, 3):
        if isinstance(one, ComposedJob):
            found.append(_told(one.unresolved) if one.unresolved else _text(one.node, one.choices))
        else:
            found.append(_told(one))
    return found


def _both(start: Callable[..., Any], jobs: Sequence[Job]) -> tuple[list[str], list[str]]:
    """Our configs and Hydra's. A job at which Hydra's own code breaks is left out, since ours calls that code."""
    master, loader = start()
    expected: dict[Job, str] = {}
    for job in jobs:
        printed = _by_hydra(master, job, 3 + len(expected))
        if not printed.startswith(("ValueError", "TypeError", "AssertionError", "AttributeError")):
            expected[job] = printed
    return _fast(master, loader, list(expected)), list(expected.values())


WORDS = _words(OVERRIDES)
MIXES = st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(tuple), min_size=2, max_size=4)
"""Jobs that have nothing to do with each other."""


@st.composite
def products(draw: st.DrawFn) -> list[Job]:
    """Jobs as in a sweep: options and values in all combinations, in addition to what all jobs have."""
    names = ("model", "data", "seed", "model.width", "++model.new", "ask.limit")
    axes = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
    values = [draw(st.lists(st.sampled_from(_values(name)), min_size=2, max_size=3, unique=True)) for name in axes]
    same = draw(st.lists(st.sampled_from(WORDS), max_size=2))
    return [(*same, *job) for job in itertools.product(*values)]


def _values(name: str) -> list[str]:
    options = [word for word in WORDS if word.startswith(f"{name}=") and "[" not in word]
    return options if len(options) > 1 else [f"{name}={value}" for value in ("1", "x", "null", "'${seed}'")]


SWEEPS = st.one_of(MIXES, products())


TRAPS = """
    ask.limit=3 | seed=2 | ++seed=x name=plain | same.layers=1 | ++same.fresh=2 model.width=5 | +name=taken | top=1
    ask.list.1.a=9 ~ask.list.0 | ~ask.list.0 ask.list.1.a=9 | ++top.a.b=1 ~gone '++gone="${model}"' | ++gone.deep=7
    '+ask.num="${hydra:job.num}"' | seed=3 '+ask.num="${hydra:job.num}"' | model=by_job seed=4 | model=by_name seed=[1]
    ++ask.new=1 '++ask.rel="${.limit}"' ++ask.last=2 | ++top.a.b=1 ~env '++env="${seed}"' | ++model.new=1 ++model.last=2
    model.opt=null ++model.opt.lr=1 | model.layers=3 ~model | model=small data=outside | model=large data=outside
    model=small data=two ask.nope='${seed}' | model=large data=two ask.nope='${seed}' | model=large data=two ask.nope=1
    model=small data=one seed=1 | model=small data=two seed=1 | model=large data=one seed=1 | model=large data=two
    model=missing data=two model.layers=4 | model=missing data=one | data=missing | data=missing data.more.x=1
    model=small extra=some | model=large extra=some | model=by_name
    experiment=noted | model=large experiment=noted | model=large data=two experiment=noted | model=small data=outside
    experiment=astray | model=large experiment=astray | model=large experiment=named | experiment=named | hydra=none
    experiment=batched | model=large experiment=batched | experiment=by_model | model=large experiment=by_model
    experiment=tuned | experiment=plain | experiment=tuned model=small | experiment=tuned model=large | model=nowhere
    ~data ++ask.list="${data.rows}" | data=[one,two] model.width=2 | data.rows.0.path=b.jsonl model=large | +model=small
    model=small model=small data=one | model=small model=small data=two | model=small model=nowhere data=two
    model=small model=large data=one seed=3 | model=large model=small data=two seed=3
    hydra.job.name=x seed=2 | '++model.opt={name: sgd}' ++model.opt.betas.0=9 | env=set | '++gone="${nowhere}"' seed=9
    model.width=1.0 | model.width=1e-4 | model.width=08 | model.width=true | "model.width='08'" | ++gone=??? seed=8
    """


@pytest.mark.slow
def test_what_is_known_to_be_a_trap_is_composed_as_hydra_composes_it(started: Callable[..., Any]) -> None:
    jobs = [tuple(_words(job)) for line in TRAPS.split("\n") for job in line.split(" | ")]
    ours, hydras = _both(started, jobs)
    assert len(ours) > len(jobs) * 0.9
    assert ours == hydras


def test_what_jobs_have_in_common_is_stored_once(started: Callable[..., Any]) -> None:
    master, loader = started()
    found = compose_all(master, [(f"seed={seed}", f"top.x={seed}", "data=two") for seed in (2, 2)], loader)
    assert all(isinstance(one, HydraException) for one in found)
    few, many = (compose_all(master, [(f"env={index}",) for index in range(number)], loader) for number in (2, 50))
    nodes = [one.node for one in (*few, *many) if isinstance(one, ComposedJob)]
    assert len(nodes) == 52
    assert {node["env"] for node in nodes} == set(range(50))
    assert len({id(node["model"]) for node in nodes}) == 2


@pytest.mark.parametrize(
    ("started_with", "same"),
    [
        ("experiment=plain", ["small plain", "small named", "large plain", "large named"]),
        ("experiment=batched", ["small batched", "large batched"]),
        ("experiment=by_model", ["small by_model"]),
    ],
)
def test_a_choice_that_changes_the_sweeper_is_found_whatever_came_before(
    started: Callable[..., Any], started_with: str, same: list[str]
) -> None:
    master, loader = started(started_with)
    names = [(one, two) for one in ("small", "large") for two in ("plain", "batched", "named", "by_model")]
    for order in (names, names[::-1]):
        jobs = [(f"model={model}", f"experiment={experiment}") for model, experiment in order]
        found = zip(order, compose_all(master, jobs, loader), strict=True)
        sets = {" ".join(name): _changed_plugin(one) for name, one in found}
        assert sets == {" ".join(name): None if " ".join(name) in same else "sweeper" for name in names}


def _changed_plugin(one: ComposedJob | Exception) -> str | None:
    if isinstance(one, ComposedJob):
        return one.sets
    assert "'hydra.sweeper' must be configured before the sweep starts" in str(one)  # Hydra 1.4 refuses it itself
    return "sweeper"


def test_a_sweep_knows_the_files_that_it_has_started_with(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each job composes Hydra's own node again."""
    monkeypatch.chdir(tmp_path)  # for the folder of its job
    with _hydra(tree):
        multirun("config", ["seed=3"], lambda config: None)
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, CachingLoader)
        assert loader.files_of_hydra()


def test_one_job_is_what_hydra_started_with(started: Callable[..., Any]) -> None:
    words = ("model=large", "seed=3", '+ask.num="${hydra:job.num}"')
    master, loader = started(*words)
    (one,) = compose_all(master, [words], loader)
    assert isinstance(one, ComposedJob)
    assert (one.node["seed"], one.node["model"]["heads"], one.node["ask"]["num"]) == (3, 9, 0)
    assert _by_hydra(master, words, 0) == _text(one.node, one.choices)


def test_a_job_with_other_places_to_look_in_is_left_to_hydra(started: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.yaml").write_text("from_afar: 1\n")
    master, loader = started(f"hydra.searchpath=[{tmp_path}]")
    one, _ = compose_all(master, [("+elsewhere=far",), ("seed=2",)], loader)
    assert isinstance(one, ComposedJob)
    assert one.node["elsewhere"] == {"from_afar": 1}


@dataclass
class Extra:
    """A config that Hydra 1.3 uses as the schema of extra/typed.yaml, since it has its name."""

    text: str = ""


@pytest.mark.medium
@pytest.mark.filterwarnings("ignore")  # 1.3 warns that it is deprecated
def test_a_file_with_a_schema_is_composed_as_hydra_composes_it(started: Callable[..., Any]) -> None:
    """Registered after the first sweep of the process, and removed before the third."""
    store = ConfigStore.instance()
    jobs = [("extra=typed",), ("extra=typed", "extra.text=5"), ("extra=typed", "+extra.more=1"), ("seed=2",)]
    for has_schema in (False, True, False):
        if has_schema:
            store.store(group="extra", name="typed", node=Extra)
        try:
            ours, hydras = _both(started, jobs)
        finally:
            store.repo.pop("extra", None)
        assert len(ours) == len(jobs)
        assert ours == hydras


def test_a_later_sweep_of_the_same_files_has_its_own_time(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("defaults: [late, _self_]\nat: never\nfile: 'at-${now:%f}'\n")
    (tmp_path / "late.yaml").write_text("# @package _global_\nat: '${now:%f}'\n")
    with _hydra(tmp_path):
        times = [_start()[0].file for _ in range(5)]
    assert len(set(times)) == 5


def _check_mixes(tree: Path, number: int) -> None:
    """Of one command line: its first config is the same for all of them."""
    with _hydra(tree):
        started = _start()

        @given(sweep=SWEEPS)
        @settings(max_examples=number)
        def check(sweep: list[Job]) -> None:
            ours, hydras = _both(lambda: started, list(dict.fromkeys(sweep)))
            assert ours == hydras

        check()


@pytest.mark.medium
def test_any_mix_of_overrides_is_composed_as_hydra_composes_it(tree: Path) -> None:
    _check_mixes(tree, 10)


@pytest.mark.slow
def test_very_many_mixes_are_composed_as_hydra_composes_them(tree: Path) -> None:
    """Thirty, with those of the test before."""
    _check_mixes(tree, 20)


@pytest.mark.parametrize("number", ["0", "-3", "12", "0.5", "-2.50", "3.47e-05", "-1e+3", "20000000000000000000"])
def test_a_further_number_of_a_key_is_read_as_hydra_reads_it(number: str) -> None:
    parser = OverridesParser.create()
    known = parsed(parser.parse_override("++axolotl.rate=7"))
    by_hydra = parsed(parser.parse_override(f"++axolotl.rate={number}"))
    assert another_number(known, f"++axolotl.rate={number}") == by_hydra
    assert type(by_hydra.value) is (float if set(number) & set(".e") else int)


@pytest.mark.parametrize("text", ["007", "1_000", "+5", "1.", ".5", "1e", "0x1", "nan", "1,2", "-", "", " 5", "1E5"])
def test_what_only_looks_like_a_number_is_left_to_hydra(text: str) -> None:
    assert another_number(parsed(OverridesParser.create().parse_override("rate=7")), f"rate={text}") is None
