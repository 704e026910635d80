"""`resnorm lab article`: the quick run writes both files; mistakes end with status 2."""

import json
import re

import pytest

from resnorm_jax.cli.main import main
from resnorm_jax.lab.article.claims import CLAIMS
from resnorm_jax.lab.article.sections import PARTS


@pytest.mark.parametrize("name", ["report.html", "report.json"])
def test_an_existing_report_is_left_alone(tmp_path, name, capsys):
    (tmp_path / name).write_text("mine")
    assert main(["lab", "article", f"--output={tmp_path}", "--quick"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_one_seed_is_no_band(tmp_path, capsys):
    assert main(["lab", "article", f"--output={tmp_path / 'new'}", "--seeds=1"]) == 2
    assert "--seeds: 1" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_quick_run_writes_page_and_numbers(tmp_path, capsys):
    assert main(["lab", "article", f"--output={tmp_path}", "--quick"]) == 0
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert [row["id"] for row in numbers["claims"]] == [claim.id for claim in CLAIMS]
    assert set(numbers["results"]) == {part.key for part in PARTS}
    page = (tmp_path / "report.html").read_text()
    assert page.count("<figure>") == sum(len(part.drawings) for part in PARTS)
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    for words in ("残差连接", "层归一化", "as printed", "worked example"):
        assert words in page
    shown = capsys.readouterr().out
    assert "report.html" in shown
    assert "100%" in shown
