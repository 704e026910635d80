"""The arrangements, one row each. Only the files `catalog*.py` know a scheme by its name."""

from resnorm_jax.arrangements.depth_rules import deepnorm_alpha, deepnorm_beta
from resnorm_jax.arrangements.spec import Arrangement, Init, NormSlot

DEFAULT = "pre_ln"
NORM = NormSlot()

ROWS = (
    Arrangement(
        name="none",
        equation="f(x)",
        source="control: neither skip nor norm",
        stream="replace",
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
        stream="replace",
    ),
    Arrangement(
        name="post_ln",
        equation="LN(x + f(x))",
        source="Vaswani et al. 2017 (arXiv 1706.03762), section 3.1",
        norm_on_stream=NORM,
        usual=True,
    ),
    Arrangement(
        name="pre_ln",
        equation="x + f(LN(x)); final LN",
        source="Xiong et al. 2020 (arXiv 2002.04745), table 1",
        norm_before=NORM,
        final_norm=NORM,
        usual=True,
    ),
    Arrangement(
        name="sandwich_ln",
        equation="x + LN(f(LN(x))); final LN",
        source="Ding et al. 2021 (arXiv 2105.13290), section 2.4; Kim et al. 2025 (arXiv 2502.02732)",
        norm_before=NORM,
        norm_after=NORM,
        final_norm=NORM,
        aliases=("peri_ln",),
        usual=True,
    ),
    Arrangement(
        name="res_post_norm",
        equation="x + LN(f(x)), LN's scale 0 at first; final LN",
        source="Liu et al. 2021 (arXiv 2111.09883), section 3.2; init of microsoft/Swin-Transformer "
        "models/swin_transformer_v2.py (_init_respostnorm)",
        norm_after=NormSlot(scale_init=0.0),
        final_norm=NORM,
        usual=True,
    ),
    Arrangement(
        name="deepnorm",
        equation="LN(a x + f(x)), a = (2N)^(1/4); Xavier-normal gain (8N)^(-1/4) on v, out, fc1, fc2",
        source="Wang et al. 2022 (arXiv 2203.00555), figure 2 (encoder-only); "
        "microsoft/torchscale architecture/encoder.py",
        norm_on_stream=NORM,
        skip_scale=deepnorm_alpha,
        init=Init("normal", dict.fromkeys(("value", "out", "fc1", "fc2"), deepnorm_beta)),
        deep=True,
        usual=True,
    ),
    Arrangement(
        name="rezero",
        equation="x + a f(x), one scalar a per layer, 0 at first",
        source="Bachlechner et al. 2020 (arXiv 2003.04887); majumderb/rezero",
        stream="scalar_gate",
        usual=True,
    ),
)
