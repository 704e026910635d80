"""``resnorm show NAME``: what a scheme does, layer by layer, or what a row of another table says."""

from resnorm_jax.cli.arguments import Parser

KINDS = ("arrangement", "stream", "norm", "query_key", "activation")


def main(argv: list[str]) -> int:
    """Print a plan, or a row."""
    chosen = _parser().parse_args(argv)
    from resnorm_jax.cli.show_rows import show

    show(chosen)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="resnorm show",
        description="What a scheme does in each layer: equation, norms, constants, parameters.",
    )
    parser.add_argument("name", help="an arrangement; or a stream, norm, query_key or activation")
    parser.add_argument("--table", choices=KINDS, help="where several have the name")
    parser.add_argument("--depth", type=int, default=12, help="layers (12)")
    parser.add_argument("--layer", type=int, help="one layer, counted from 1; all if left out")
    parser.add_argument("--width", type=int, default=64, help="of the stream (64)")
    parser.add_argument("--heads", type=int, default=4, help="attention heads (4)")
    parser.add_argument("--mlp-width", type=int, help="inside the feed-forward networks (4 width)")
    parser.add_argument("--norm", default="layer", help='a norm, or one by depth: "layer*2+rms"')
    parser.add_argument("--activation", default="gelu", help="of the feed-forward networks (gelu)")
    parser.add_argument("--decoder", action="store_true", help="a decoder, with cross-attention")
    parser.add_argument(
        "--other", type=int, default=0, help="layers of the encoder or decoder beside"
    )
    parser.add_argument("--code", action="store_true", help="also print the functions' code")
    parser.add_argument("--json", action="store_true", help="the whole plan, for programs")
    return parser
