"""NaN planted in ten places: whether the product names the right layer and row.

The places and what must be named are those of the tests of the forensic pass, if it is there.
"""

import importlib.util
from collections import Counter
from typing import Any


def measure(quick: bool, seed: int, each) -> dict[str, Any]:
    """Plant NaN in each place of the table ``PLANTED`` and compare what is named."""
    if importlib.util.find_spec("planted") is None:
        return {"outcomes": {"no forensic pass": 1}}
    from planted import PLANTED, named

    found = {place: named(place) for place in each(list(PLANTED), "nonfinite")}
    right = {place: "found" if PLANTED[place] in found[place] else "not named" for place in found}
    return {"outcomes": dict(Counter(right.values())), "named": found}
