"""``resnorm list [WHAT]``: what can be named, with its source."""

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.start import ending_at_once

WHAT = ("arrangements", "streams", "norms", "data", "families", "optimizers", "configs")


def main(argv: list[str]) -> int:
    """Print the tables asked for, or all."""
    parser = Parser(prog="resnorm list", description="What can be named, with its source.")
    parser.add_argument("what", nargs="?", choices=WHAT, help="one table; all if left out")
    parser.add_argument("--markdown", action="store_true", help="as the files README.md have it")
    chosen = parser.parse_args(argv)
    for name in [chosen.what] if chosen.what else WHAT:
        _print(name, chosen.markdown)
    return 0


def _print(name: str, markdown: bool) -> None:
    with ending_at_once():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        from resnorm_jax.cli.tables import TABLES, markdown_table

    if markdown:
        print(markdown_table(name), end="")
        return
    columns, rows = TABLES[name]()
    table = Table(*columns, show_lines=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
