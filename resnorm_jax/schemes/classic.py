"""The classic arrangements: which norms stand where, with no constants and no parameters beside."""

import jax

from resnorm_jax.schemes.slots import NORM, NormSlot
from resnorm_jax.schemes.spec import Arrangement
from resnorm_jax.schemes.stream import Site, Stream

DEFAULT = "pre_ln"


def _replace(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    return y.astype(x.dtype)


REPLACE = Stream("replace", "f", "control: no skip", _replace)

ROWS = (
    Arrangement(
        name="none",
        equation="f(x)",
        source="control: neither skip nor norm",
        stream=REPLACE,
        usual=True,
    ),
    Arrangement(
        name="residual_only",
        equation="x + f(x)",
        source="He et al. 2015 (arXiv 1512.03385), eq. 1; control: skip without norm",
        usual=True,
    ),
    Arrangement(
        name="norm_only",
        equation="LN(f(x))",
        source="control: norm without skip",
        norm_on_stream=NORM,
        stream=REPLACE,
    ),
    Arrangement(
        name="post_ln",
        equation="LN(x + f(x))",
        source="Vaswani et al. 2017 (arXiv 1706.03762), section 3.1",
        used_by="the original Transformer, BERT",
        norm_on_stream=NORM,
        usual=True,
    ),
    Arrangement(
        name="pre_ln",
        equation="x + f(LN(x)); final LN",
        source="Xiong et al. 2020 (arXiv 2002.04745), table 1",
        used_by="GPT-2, ViT, Llama",
        norm_before=NORM,
        final_norm=NORM,
        usual=True,
    ),
    Arrangement(
        name="sandwich_ln",
        equation="x + LN(f(LN(x))); final LN",
        source="Ding et al. 2021 (arXiv 2105.13290), section 2.4; Kim et al. 2025 (arXiv "
        "2502.02732), whose norm of the embedding is left out",
        used_by="CogView, Gemma 2, Gemma 3, GLM-4",
        norm_before=NORM,
        norm_after=NORM,
        final_norm=NORM,
        aliases=("peri_ln",),
        usual=True,
    ),
    Arrangement(
        name="res_post_norm",
        equation="x + LN(f(x)), LN's scale and bias 0 at first, so that a layer is the identity; "
        "final LN, its scale 1",
        source="Liu et al. 2021 (arXiv 2111.09883), section 3.2; init of "
        "microsoft/Swin-Transformer models/swin_transformer_v2.py (_init_respostnorm). Left out: "
        "the norm on the stream every 6 layers of its largest models",
        used_by="Swin v2, there with cosine attention",
        norm_after=NormSlot(scale_init=0.0),
        final_norm=NORM,
        usual=True,
    ),
    Arrangement(
        name="embedding_norm_pre_ln",
        equation="x + f(LN(x)), x = LN(embedding) at first; final LN",
        source="BLOOM (arXiv 2211.05100); BloomModel of huggingface/transformers",
        used_by="BLOOM",
        embedding_norm=NORM,
        norm_before=NORM,
        final_norm=NORM,
        aliases=("bloom",),
    ),
)
