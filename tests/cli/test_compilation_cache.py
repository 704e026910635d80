"""Compiled programs kept between runs: never a wrong one, never a failed run, never without a bound."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resnorm_jax.cli import compilation_cache as cache
from resnorm_jax.cli import train
from resnorm_jax.cli.compilation_cache import Store
from resnorm_jax.cli.main import main as resnorm

DAMAGE = {
    "a bit of the digest": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "a bit in the middle": lambda data: data[:500] + bytes([data[500] ^ 64]) + data[501:],
    "the last bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "half of it": lambda data: data[: len(data) // 2],
    "all of it": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
}


def the_file(folder: Path) -> Path:
    [path] = folder.iterdir()
    return path


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_is_not_there_and_is_put_again(damage, tmp_path):
    store, value = Store(tmp_path), bytes(range(256)) * 4
    assert store.get("key") is None
    store.put("key", value)
    assert store.get("key") == value
    path = the_file(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert store.get("key") is None
    store.put("key", value)
    assert store.get("key") == value


def test_the_entries_used_longest_ago_make_room(tmp_path):
    store = Store(tmp_path, limit=3 * 132)
    for age, key in enumerate("cba"):
        store.put(key, key.encode() * 100)
        os.utime(store._file(key), ns=(age, age))
    (tmp_path / "left by a kill.tmp").write_bytes(b"")
    assert store.get("c") is not None  # used now
    store.put("d", b"d" * 100)
    assert [key for key in "abcd" if store.get(key)] == ["a", "c", "d"]
    store.put("e", b"e" * 400)
    assert store.get("e") is None
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 3 * 132


def test_a_store_that_cannot_be_used_is_an_empty_one(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    store = Store(tmp_path / "file" / "folder")
    store.put("key", b"value")
    assert store.get("key") is None


def test_the_folder_is_the_users_and_of_this_kind_of_processor(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.user_folder() == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be passed over, says its specification
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.user_folder().is_relative_to(tmp_path)
    here = cache.processor()
    monkeypatch.setattr("resnorm_jax.reporting.environment.cores", lambda: 10**6)
    assert cache.processor() != here


def test_a_folder_that_others_may_write_into_is_not_used(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionError, match="others than this user may write into"):
        cache._made(tmp_path)
    assert cache._made(tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_the_option_turns_it_off(monkeypatch, capsys):
    monkeypatch.setenv(cache.SWITCH, "1")  # so that it is put back
    assert train.main(["train.py", "--no-compilation-cache", "--config=nowhere.py"]) == 2
    assert "no config file nowhere.py" in capsys.readouterr().err
    assert os.environ[cache.SWITCH] == "0"
    monkeypatch.setenv(cache.SWITCH, "1")
    assert resnorm(["--no-compilation-cache", "evaluate"]) == 2
    assert "error: resnorm evaluate: " in capsys.readouterr().err
    assert os.environ[cache.SWITCH] == "0"


@pytest.mark.parametrize("words", [[], ["bench"], ["evalute"]])
def test_the_option_is_not_for_commands_that_would_not_read_it(words, capsys):
    assert resnorm(["--no-compilation-cache", *words]) == 2
    error = "error: resnorm --no-compilation-cache: name one of evaluate, predict, "
    error += "export, serve, lab after it\n"
    assert capsys.readouterr().err == error


CODE = """
import sys, warnings
warnings.simplefilter("error")
import jax
import numpy as np
from jax import monitoring
from resnorm_jax.cli.compilation_cache import keep_programs

hits = []
monitoring.register_event_listener(lambda name, **_: hits.append(name.endswith("cache_hits")))
keep_programs()
for path in [None, *sys.argv[1:]]:
    if path == "damage":
        from pathlib import Path
        for file in Path(jax.config.jax_compilation_cache_dir).iterdir():
            file.write_bytes(file.read_bytes()[:-1])
    jax.clear_caches()
    hits.clear()
    print(np.asarray(jax.jit(lambda x: (x @ x).sum())(np.ones((3, 3), np.float32))), sum(hits))
"""


def told(tmp_path: Path, *steps: str, **environment: str) -> tuple[str, str]:
    """What the code prints in a process of its own, and what it says on stderr."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    env |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, *steps],
        env=env | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_jax_uses_it_and_damage_changes_nothing(tmp_path):
    out, _ = told(tmp_path, "again", "damage", "again")
    assert out.splitlines() == ["27.0 0", "27.0 1", "27.0 0", "27.0 1"]
    assert (tmp_path / "resnorm_jax" / "programs").is_dir()


@pytest.mark.table
@pytest.mark.parametrize(
    ("environment", "hits", "said"),
    [
        ({}, 1, ""),
        ({"JAX_ENABLE_COMPILATION_CACHE": "0"}, 0, ""),
        ({"JAX_COMPILATION_CACHE_DIR": "mine"}, 1, ""),
        ({"XDG_CACHE_HOME": __file__}, 0, "note: compiled programs are not kept: "),
    ],
)
def test_the_user_decides(environment, hits, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out, err = told(tmp_path, "again", **environment)
    assert out.splitlines() == ["27.0 0", f"27.0 {hits}"]
    assert said in err
    assert ("JAX_COMPILATION_CACHE_DIR" in environment) == (tmp_path / "mine").exists()
    assert len(err.splitlines()) == bool(said)
