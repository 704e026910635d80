"""The READMEs are true: their code runs, their files exist, their tables are the package's."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from tiers import every

from resnorm_jax import arrangements
from resnorm_jax.cli.tables import markdown_table
from resnorm_jax.lab.statistics import spearman
from resnorm_jax.norms.rows import NORMS
from resnorm_jax.schemes import ARRANGEMENTS, STREAMS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FOLDERS = {path.parent.name: path.read_text() for path in ROOT.glob("resnorm_jax/*/README.md")}
BLOCKS = [
    (name, block)
    for name, text in {"": README, **FOLDERS}.items()
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    if "import resnorm_jax as rn" in block
]


@pytest.fixture(autouse=True)
def _tables_as_before():
    """Blocks register rows of their own: other tests in this process must not see them."""
    tables = (ARRANGEMENTS, NORMS, STREAMS)
    kept = [(dict(t._rows), dict(t._aliases)) for t in tables]
    yield
    for table, (rows, aliases) in zip(tables, kept, strict=True):
        table._rows, table._aliases = rows, aliases


@pytest.mark.parametrize("index", every(range(len(BLOCKS))))
def test_python_blocks_run(index):
    space: dict = {}
    name, block = BLOCKS[index]
    exec(compile(block, f"{name}/README.md", "exec"), space)
    assert "rn" in space
    if "logits" in space:
        assert space["logits"].shape == (4, 9)
    if "encoder" in space:  # a row of the reader's own: it works by name
        x = jax.random.normal(jax.random.key(0), (2, 3, 4))
        variables = space["encoder"].init(jax.random.key(1), x)
        assert jnp.isfinite(space["encoder"].apply(variables, x)).all()


def test_there_are_blocks():
    assert {"", "schemes", "norms", "article", "testing"} <= {name for name, _ in BLOCKS}


def test_a_stranger_can_read_it_in_minutes():
    assert len(README.splitlines()) <= 150


def test_links_lead_to_files():
    places = {ROOT: README} | {ROOT / "resnorm_jax" / n: text for n, text in FOLDERS.items()}
    links = [(p, link) for p, t in places.items() for link in re.findall(r"\]\(([^)#]+)\)", t)]
    assert len(links) > 15
    assert [link for p, link in links if ":" not in link and not (p / link).exists()] == []


def test_commands_name_configs_that_exist():
    named = re.findall(r"\bconfigs/\w+\.py", "".join([README, *FOLDERS.values()]))
    assert len(named) >= 15
    assert [n for n in named if not (ROOT / n).is_file()] == []


@pytest.mark.parametrize(
    ("folder", "what"),
    [("schemes", "arrangements"), ("schemes", "streams"), ("norms", "norms")],
)
def test_the_tables_are_the_packages(folder, what):
    """What is listed is true. A new row need not be listed: ``resnorm list WHAT --markdown``."""
    text = (ROOT / "resnorm_jax" / folder / "README.md").read_text()
    table = text.partition(f"<!-- {what} -->\n")[2].partition(f"<!-- end {what} -->")[0]
    names = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    assert len(names) >= {"arrangements": 65, "streams": 39, "norms": 37}[what]
    assert table == markdown_table(what, names)


def test_the_two_commands_stand_on_lines_of_their_own():
    lines = README.splitlines()
    assert sum(bool(re.fullmatch(r"pip install .*&& pytest", line)) for line in lines) == 1
    assert sum(bool(re.match(r"pip install .*&& python train.py ", line)) for line in lines) == 1


def test_the_table_by_depth_is_of_the_committed_results():
    path = ROOT / "resnorm_jax" / "bench" / "results" / "vowels_arrangement_cpu.json"
    table = json.loads(path.read_text())["vowels"]
    found = {(row["name"], row["depth"]): row for row in table["rows"]}
    measured = {name for name, _ in found}
    assert set(found) == {(name, depth) for name in measured for depth in (3, 24)}
    assert len(measured) >= 65
    assert measured <= set(arrangements.names())
    text = FOLDERS["bench"]
    lines = re.findall(r"^\| `(\w+)` \| ([\d.]+) \(([\d.]+)\) \| ([\d.]+) \(", text, re.MULTILINE)
    assert {line[0] for line in lines} == {n for n in measured if arrangements.get(n).usual}
    for name, shallow, spread, deep in lines:
        rows = found[name, 3], found[name, 24]
        assert [f"{100 * row['accuracy']:.2f}" for row in rows] == [shallow, deep]
        assert f"{100 * rows[0]['sd']:.2f}" == spread
    over = sum(found[name, 24]["accuracy"] > 0.9 for name in measured)
    assert f"of all {len(measured)}, {over} have over 90 %" in text


def test_the_table_of_certificates_is_of_the_committed_results():
    path = ROOT / "resnorm_jax" / "lab" / "results" / "certify_cpu.json"
    checks = json.loads(path.read_text())["checks"]
    table = FOLDERS["lab"].partition("<!-- certify -->\n")[2].partition("<!-- end certify -->")[0]
    lines = table.splitlines()[2:]
    assert len(lines) == len(checks) >= 5
    assert {"calibration", "held out: data"} <= {check["use"] for check in checks}
    for line, check in zip(lines, checks, strict=True):
        data, use, count, rank, right, missed = (
            cell.strip() for cell in line.strip("|").split("|")
        )
        found = check["agreement"]
        assert data.startswith(f"{check['data']}, {found['depth']}, ")
        assert float(data.rpartition(", ")[2]) == check["learning_rate"]
        assert (use, int(count)) == (check["use"], found["arrangements"])
        low, high = found["interval"]
        assert rank == f"{found['spearman']:.2f} ({low:.2f} to {high:.2f})"
        assert right == f"{found['not_right']} of {found['not_said']}"
        assert re.findall(r"`(\w+)`", missed) == found["missed"]
        ranks = [(row["rank"], row["trained_rank"]) for row in found["rows"]]
        assert spearman(*zip(*ranks, strict=True)) == pytest.approx(found["spearman"], abs=1e-9)
