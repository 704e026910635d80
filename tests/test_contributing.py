"""What a contributor is told is true: files exist, and what machines read parses."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
YAML = [*sorted((ROOT / ".github").rglob("*.yml")), ROOT / ".pre-commit-config.yaml"]


def read(name):
    return yaml.safe_load((ROOT / name).read_text())


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_parses(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_the_gate_runs_on_the_oldest_and_newest_versions():
    job = read(".github/workflows/gate.yml")["jobs"]["gate"]
    assert job["strategy"]["matrix"] == {"python": ["3.11", "3.13"], "jax": ["oldest", "newest"]}
    assert job["steps"][-1] == {"run": "bash .ci/run"}
    # The oldest JAX is the one that the package asks for.
    (pattern,) = re.findall(r"s/(.*?)/jax==", job["steps"][2]["run"])
    line = re.compile(pattern.replace(r"\(", "(").replace(r"\)", ")"), re.MULTILINE)
    assert len(line.findall((ROOT / "pyproject.toml").read_text())) == 1


def test_the_other_tiers_run_at_night():
    job = read(".github/workflows/nightly.yml")["jobs"]["tests"]
    assert job["strategy"]["matrix"]["tier"] == ["table", "slow"]
    assert job["steps"][-1]["run"] == "pytest -m ${{ matrix.tier }}"


def test_templates_have_what_github_asks_for():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").iterdir():
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= set(form)
        ids = [part["id"] for part in form["body"]]
        assert len(ids) == len(set(ids)) >= 3
        assert all(part["attributes"]["label"] for part in form["body"])


def test_hooks_have_fixed_versions():
    remote, local = read(".pre-commit-config.yaml")["repos"]
    assert re.fullmatch(r"v\d+\.\d+\.\d+", remote["rev"])
    assert [hook["id"] for hook in remote["hooks"]] == ["ruff-check", "ruff-format"]
    assert [hook["entry"] for hook in local["hooks"]] == ["mypy"]


def test_each_task_is_ten_lines_and_names_files_that_exist():
    tasks = GUIDE.split("\n## ")[1:]
    assert len(tasks) == 3
    for task in tasks:
        assert [int(n) for n in re.findall(r"^(\d+)\. ", task, re.MULTILINE)] == [*range(1, 11)]
    named = re.findall(r"`((?:\w+/)*\w*/?\w+\.(?:py|md)|(?:\w+/)+)`", GUIDE)
    assert len(named) >= 15
    places = (ROOT, ROOT / "resnorm_jax")
    assert [n for n in named if "NAME" not in n and not any((p / n).exists() for p in places)] == []
