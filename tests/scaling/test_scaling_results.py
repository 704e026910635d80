"""The README's table of plans beside compiled programs is that of the committed results."""

import json
from pathlib import Path

from resnorm_jax import bench, scaling
from resnorm_jax.bench.scaling import CASES, scaling_lines

RESULTS = Path(bench.__file__).parent / "results" / "scaling_cpu.json"
README = Path(scaling.__file__).with_name("README.md")


def test_the_table_is_of_the_committed_results():
    rows = json.loads(RESULTS.read_text())["scaling"]
    table = README.read_text().partition("<!-- scaling -->\n")[2].partition("\n<!-- end")[0]
    assert table.splitlines() == scaling_lines(rows)
    assert {row["case"] for row in rows} <= set(CASES)
    assert 8 in {row["devices"] for row in rows}
