"""JSON lines with line numbers, strictly: what JSON does not have, or has two readings, is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from resnorm_jax.data.csv_format import Row
from resnorm_jax.data.files import check_line
from resnorm_jax.data.names import shown
from resnorm_jax.data.text_lines import text_lines
from resnorm_jax.errors import UserError

LONGEST_LINE = 2**24  # characters; a line of JSON takes up to 40 times as many bytes in memory


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object, unless a key stands in it twice."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"the key {shown(twice)} stands twice in an object; keep one")
    return made


def _no_constant(name: str) -> NoReturn:
    raise UserError(f"{name} is not JSON; missing and infinite values are not supported")


DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)


def _value(place: str, line: str) -> Any:
    try:
        return DECODER.decode(line)
    except json.JSONDecodeError as error:
        fault = (
            f"malformed JSON at column {error.colno} ({error.msg}); write one JSON object a line"
        )
    except UserError as error:
        fault = str(error)
    except RecursionError:
        fault = "brackets too deep to be read; give lists of numbers, one in another"
    except ValueError:  # an integer of more digits than Python reads
        fault = "a number of too many digits; write it shorter"
    raise UserError(f"{place}: {fault}")


def json_table(path: str | Path, encoding: str = "utf-8") -> Iterator[Row]:
    """Yield ``(file:line, object)`` of each line that is not blank: one JSON object a line.

    Raises:
      UserError: see `resnorm_jax.data.text_lines.text_lines`; also where a line is no JSON object, is
        too long or too deep, or has a key twice, NaN or Infinity.
    """
    for number, line in enumerate(text_lines(path, encoding), start=1):
        line = line.rstrip("\n")
        if not line.strip():
            continue
        place = f"{path}:{number}"
        check_line(place, line, LONGEST_LINE)
        value = _value(place, line)
        if not isinstance(value, dict):
            raise UserError(
                f"{place}: a JSON {type(value).__name__}, not an object; "
                'write one object a line, e.g. {"text": "...", "label": "..."}'
            )
        yield place, value
