import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner.environment import trainer_environment
from runner.environment.bytecode import compile_modules
from runner.errors import SweepError


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like an environment, named by AXOSWEEP_TRAINER."""
    python = tmp_path / "trainer" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(tmp_path / "trainer"))
    return tmp_path / "trainer"


def test_a_missing_environment_says_how_to_get_it_and_how_big_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(tmp_path / "nothing"))
    with pytest.raises(SweepError, match=r"no trainer environment yet.*axosweep setup.*8 GB"):
        trainer_environment.find()


def test_an_environment_of_the_current_lock_is_found(environment: Path) -> None:
    (environment / trainer_environment.STAMP).write_text(trainer_environment.lock_hash() + "\n")
    assert trainer_environment.find() == environment / "bin" / "python"


def test_an_environment_of_another_lock_is_refused(environment: Path) -> None:
    (environment / trainer_environment.STAMP).write_text("0" * 64)
    with pytest.raises(SweepError, match=r"built from another lock.*make trainer"):
        trainer_environment.find()


def test_an_environment_that_the_user_made_and_named_is_taken(environment: Path) -> None:
    assert trainer_environment.find() == environment / "bin" / "python"


def test_the_environment_may_be_named_by_its_python(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(environment / "bin" / "python"))
    assert trainer_environment.folder() == environment


def test_an_environment_whose_own_name_begins_with_python_is_that_folder(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(environment / "python-3.12-axolotl"))
    assert trainer_environment.folder() == environment / "python-3.12-axolotl"


def test_an_environment_that_is_up_to_date_is_not_built_again(environment: Path) -> None:
    stamp = environment / trainer_environment.STAMP
    stamp.write_text(trainer_environment.lock_hash())
    trainer_environment.build()  # a build would replace the empty python, and take minutes
    assert (environment / "bin" / "python").read_bytes() == b""


def test_an_environment_whose_build_did_not_end_is_none(environment: Path) -> None:
    with pytest.raises(SweepError, match="no trainer environment yet"):
        trainer_environment.check(environment, ours=True)


def test_an_unfinished_build_is_none_wherever_it_is(environment: Path) -> None:
    (environment / trainer_environment.STAMP).write_text(trainer_environment.UNFINISHED)
    with pytest.raises(SweepError, match="no trainer environment yet"):
        trainer_environment.find()


OWN = f"3.{sys.version_info.minor}"


@pytest.mark.parametrize(
    ("stamp", "version", "known"),
    [
        (None, "3.10", "3.10"),  # the user's own
        ("0" * 64, "3.12", "3.12"),  # setup renews its packages
        (trainer_environment.UNFINISHED, "3.12", "3.12"),
        ("0" * 64, "3.10", OWN),  # setup replaces it
    ],
)
def test_the_python_in_keys_is_the_environments_unless_setup_would_replace_it(
    environment: Path, stamp: str | None, version: str, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = environment / "bin" / "python"
    python.write_text(f"#!/bin/sh\nexec echo {version}\n")
    python.chmod(0o755)
    if stamp is not None:
        (environment / trainer_environment.STAMP).write_text(stamp)
    monkeypatch.setenv("UV_PYTHON", sys.executable)
    assert trainer_environment.python_version() == known


@pytest.mark.parametrize("named", [True, False])
def test_before_setup_the_python_in_keys_is_the_one_that_setup_would_choose(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If uv chooses, the real uv is run."""
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(tmp_path / "nothing"))
    monkeypatch.delenv("UV_PYTHON", raising=False)
    if named:
        monkeypatch.setenv("UV_PYTHON", sys.executable)
        assert trainer_environment.python_version() == OWN
    else:
        created = tmp_path / "as-setup"
        trainer_environment.create(created)
        answer = subprocess.run([created / "bin" / "python", "-V"], capture_output=True, text=True, check=True).stdout
        assert answer.startswith(f"Python {trainer_environment.python_version()}.")


def test_setup_leaves_a_folder_alone_that_axosweep_did_not_create(environment: Path) -> None:
    """uv would empty it, or remove everything from the user's environment that the lock does not name."""
    (environment / "precious").touch()
    with pytest.raises(SweepError, match="axosweep did not create"):
        trainer_environment.build()
    assert (environment / "precious").exists()


def test_setup_leaves_an_environment_alone_while_a_run_uses_it(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run would import the new version of what it has not imported yet, under the key of the old one."""
    shutil.copy(shutil.which("cat") or "", environment / "bin" / "python")
    (environment / trainer_environment.STAMP).write_text("0" * 64)
    monkeypatch.setenv("PATH", "")  # without a compiler, nothing is built in any case
    monkeypatch.delenv("CC", raising=False)
    pipe = subprocess.PIPE
    with subprocess.Popen([environment / "bin" / "python"], stdin=pipe, stdout=pipe, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        process.stdout.read(1)  # while a process starts, the kernel knows no command line of it
        with pytest.raises(SweepError, match=rf"used by process {process.pid}\b.*axosweep cancel.*axosweep warm stop"):
            trainer_environment.build()
        process.stdin.close()


def test_setup_leaves_a_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "precious").write_text("mine")
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(tmp_path / "precious"))
    with pytest.raises(SweepError, match="axosweep did not create"):
        trainer_environment.build()
    assert (tmp_path / "precious").read_text() == "mine"


def test_every_module_of_an_environment_is_compiled_and_counted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    environment = tmp_path / "environment"
    trainer_environment.create(environment)
    (packages,) = environment.glob("lib/python3.*/site-packages")
    for number in range(120):
        (packages / f"module_{number}.py").write_text(f"number = {number}\n")
    (packages / "of_python_2.py").write_text("print 1\n")
    compile_modules(environment / "bin" / "python")
    compiled = {path.name.partition(".")[0] for path in (packages / "__pycache__").glob("module_*.pyc")}
    assert compiled == {f"module_{number}" for number in range(120)}
    assert capfd.readouterr().err == "", "no word about what is not Python 3"
