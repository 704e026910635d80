"""``resnorm show NAME``: what a scheme does, layer by layer, or what a row of another table says."""

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.schema import from_zero, over_zero
from resnorm_jax.sizes import SIZES

BACKENDS, PRECISIONS = ("cpu", "gpu", "tpu"), ("float32", "bfloat16", "float16")
KINDS = ("arrangement", "stream", "norm", "query_key", "activation", "relative")


def main(argv: list[str]) -> int:
    """Print a plan, or a row."""
    parser = _parser()
    chosen = parser.parse_args(argv)
    if chosen.json:
        parser.not_read(chosen, ["layer", "code"], "with --json, which has the whole plan")
    if chosen.length is None:
        parser.not_read(chosen, ["backend", "precision"], "without --length")
    with ending_at_once():
        from resnorm_jax.cli.show_rows import show

    show(chosen, parser)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="resnorm show",
        description="What a scheme does in each layer: equation, norms, constants, parameters.",
    )
    parser.add_argument("name", help=f"an arrangement; or a {', '.join(KINDS[1:])}")
    parser.add_argument("--table", choices=KINDS, help="where several have the name")
    depth, width, other = SIZES["depth"], SIZES["width"], from_zero(SIZES["depth"].high)
    parser.add_number("--depth", int, depth, default=12, help="layers (12)")
    parser.add_number("--layer", int, other, help="one layer, counted from 1; all if left out")
    parser.add_number("--width", int, width, default=64, help="of the stream (64)")
    parser.add_number("--heads", int, SIZES["heads"], default=4, help="attention heads (4)")
    parser.add_number(
        "--mlp-width", int, SIZES["mlp_width"], help="inside the feed-forward networks (4 width)"
    )
    parser.add_number("--kv-heads", int, SIZES["kv_heads"], help="of keys and values (all)")
    parser.add_number("--head-width", int, SIZES["head_width"], help="of a head (width / heads)")
    parser.add_argument("--window", help='positions seen to either side, or by layer: "all+64*2"')
    parser.add_argument("--relative", help="relative positions in the scores (none)")
    parser.add_number(
        "--relative-buckets", int, SIZES["relative_buckets"], help="of them (their own)"
    )
    parser.add_number(
        "--layer-groups",
        int,
        SIZES["layer_groups"],
        help="layers with parameters of their own (all)",
    )
    parser.add_argument("--norm", default="layer", help='a norm, or one by depth: "layer*2+rms"')
    parser.add_argument("--activation", default="gelu", help="of the feed-forward networks (gelu)")
    parser.add_argument("--decoder", action="store_true", help="a decoder, with cross-attention")
    parser.add_number(
        "--other", int, other, default=0,
        help="layers of the encoder or decoder beside",
    )  # fmt: skip
    parser.add_number(
        "--length", int, over_zero(2**31), help="of sequences: also tell how attention is computed"
    )
    parser.add_argument("--backend", choices=BACKENDS, help="for --length; the one JAX runs on")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="for --length (float32)"
    )
    parser.add_argument("--code", action="store_true", help="also print the functions' code")
    parser.add_argument("--json", action="store_true", help="the whole plan, for programs")
    return parser
