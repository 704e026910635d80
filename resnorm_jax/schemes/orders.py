"""Arrangements that are orders of sublayers: side by side, three to a layer, or out of turn."""

from resnorm_jax.schemes.place import Place, half
from resnorm_jax.schemes.slots import NORM
from resnorm_jax.schemes.spec import (
    ATTENTION,
    FEED_FORWARD,
    Arrangement,
    Branch,
    Changes,
    Inside,
    Kind,
)

SECOND_FEED_FORWARD = Branch("feed_forward", 1)


def sandwich_sublayers(place: Place) -> tuple[Branch, Branch]:
    """A layer's two sublayers in ``s^k (s f)^(N - k) f^k``, k the whole number near 5N/24.

    s is attention, f feed-forward. Cut into pairs from the start, so that N layers still have 2 N
    sublayers. The coefficient is that of 24 layers in experiments/enwik8_large.sh of
    ofirpress/sandwich_transformer (its text8 run has 3 of 24).
    """
    layers = place.layers
    k = round(5 * layers / 24)
    whole = "s" * k + "sf" * (layers - k) + "f" * k
    kinds: dict[str, Kind] = {"s": "attention", "f": "feed_forward"}
    first, second = (kinds[letter] for letter in whole[2 * place.layer - 2 : 2 * place.layer])
    return Branch(first), Branch(second, 1 if second == first else 0)


def _sandwich_order(place: Place) -> Changes:
    first, second = sandwich_sublayers(place)
    return {"order": ((first,), (second,))}


ROWS = (
    Arrangement(
        name="parallel_one_norm",
        equation="x + f(LN(x)) + g(LN(x)), f attention, g feed-forward, one LN for both; final LN",
        source="Wang and Komatsuzaki 2021 (GPT-J); PaLM (arXiv 2204.02311); GPTJBlock of "
        "huggingface/transformers",
        used_by="GPT-J, PaLM, Phi-2, Cohere Command",
        norm_before=NORM,
        final_norm=NORM,
        order=((ATTENTION, FEED_FORWARD),),
        aliases=("gpt_j",),
        usual=True,
    ),
    Arrangement(
        name="parallel_two_norms",
        equation="x + f(LN(x)) + g(LN'(x)), f attention, g feed-forward; final LN",
        source="Black et al. 2022 (arXiv 2204.06745); GPTNeoXLayer of huggingface/transformers",
        used_by="GPT-NeoX, Pythia, Falcon 40B",
        final_norm=NORM,
        inside=Inside(parallel_norm=NORM),
        order=((ATTENTION, FEED_FORWARD),),
        aliases=("gpt_neox",),
    ),
    Arrangement(
        name="macaron",
        equation="x + f(LN(x)) / 2, then x + attention(LN(x)), then LN(x + g(LN(x)) / 2), f and g "
        "two feed-forward networks; no final norm",
        source="Lu et al. 2019 (arXiv 1906.02762); as in Gulati et al. 2020 (arXiv 2005.08100), "
        "eq. 1, without its convolution",
        used_by="Conformer, there with a convolution after attention",
        norm_before=NORM,
        order=((FEED_FORWARD,), (ATTENTION,), (SECOND_FEED_FORWARD,)),
        by_sublayer={
            FEED_FORWARD: {"branch_scale": half},
            SECOND_FEED_FORWARD: {"branch_scale": half, "norm_on_stream": NORM},
        },
    ),
    Arrangement(
        name="sandwich_order",
        equation="x + f(LN(x)), f in the order A^k (A F)^(N - k) F^k over the 2N sublayers, two a "
        "layer, A attention, F feed-forward, k = 5N / 24 rounded (halves to the even number); "
        "final LN",
        source="Press et al. 2020 (arXiv 1911.03864); ofirpress/sandwich_transformer "
        "experiments/enwik8_large.sh has k = 5 of N = 24",
        norm_before=NORM,
        final_norm=NORM,
        by_layer=_sandwich_order,
    ),
)
