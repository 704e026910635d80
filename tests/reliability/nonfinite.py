"""NaN planted in a step, forward and backward: whether the right layer and row are named.

The places, what must be named, and what each policy must do are the tests of the forensic pass; here
each of them is a line of the table.
"""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

from reliability.runs import ROOT

TESTS = ROOT / "tests" / "training" / "test_nonfinite.py"


def measure(quick: bool, seed: int, each) -> dict[str, Any]:
    """Run the tests of the forensic pass and of the policies, the full table unless quick."""
    if not TESTS.exists():
        return {"outcomes": {"no forensic pass": 1}}
    marks = ["-m", "not table and not slow"] if quick else ["-m", ""]
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-n", "0", "-q", *marks, f"--junitxml={written}"]
        for _ in each(range(1), "nonfinite"):
            subprocess.run([*command, str(TESTS)], cwd=ROOT, check=False, capture_output=True)
        found = {case.get("name"): _outcome(case) for case in ET.parse(written).iter("testcase")}
    return {"outcomes": dict(Counter(found.values())), "by_test": found}


def _outcome(case: ET.Element) -> str:
    failed = [child.tag for child in case if child.tag in ("failure", "error")]
    if failed:
        return "not named"
    return "not tried" if case.find("skipped") is not None else "found"
