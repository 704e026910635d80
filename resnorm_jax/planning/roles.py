"""What a parameter is for, by its path; and which of them decay.

Names, not ranks: in a scanned stack a norm's scale has two axes (depth, width) and is still a scale.

Wang et al. 2026 (arXiv 2605.26895, abstract) find weight decay good for the scales of *input* norms,
whose output a linear map reads, and bad for those of *output* norms, which scale what is added to
the stream:

    optimizer.decay=kernel,input_norm_scale,final_norm_scale

Where a norm is neither (on the stream itself, where skip and branch both read it; of queries and
keys, whose product is no linear map) it has a role of its own; that is our reading, the paper's
abstract names no such norms. Decay pulls a parameter to 0: the factor of a zero-centred norm, 1 + g,
to 1, any other's to 0.
"""

import re
from typing import Any

import jax


def _scale(*slots: str) -> str:
    """Pattern of the scales of the norms in some slots, however deep inside the slot."""
    return rf"(^|/)({'|'.join(slots)})/(.*/)?scale$"


# Role and pattern of the path; first match wins. A parameter that matches none is an error, never a
# silent default.
ROLES: tuple[tuple[str, str], ...] = (
    ("embedding", r"(^|/)(embed|positions|types|relative)/embedding$"),
    ("class_token", r"(^|/)(cls|distillation)$"),
    # SeeDNorm's two vectors decay as in its paper (arXiv 2510.22777).
    ("kernel", r"(^|/)(kernel|\w+_kernel|seed_alpha|seed_beta)$"),
    ("low_rank", r"(^|/)lora_[ab]$"),  # beside a kernel: see resnorm_jax.training.low_rank
    ("bias", r"(^|/)(\w+_)?bias$"),
    # A factor of the residual; the kernel of a gated feed-forward network is gate/kernel.
    ("gate", r"(^|/)(\w+_)?gate$"),
    ("norm_shape", r"(^|/)(\w+_)?(alpha|shift)$"),  # inside a norm's point-wise function
    ("factor", r"(^|/)\w+_scale$"),  # of heads, of queries and keys, inside the MLP, of a stream
    (
        "input_norm_scale",
        _scale(
            "norm_before",
            "relative_norm",
            "value_norm",
            "heads_norm",
            "mlp_norm",
            "pre_norm",
            "attention_norm",
            "feed_forward_norm",
        ),
    ),
    ("output_norm_scale", _scale("norm_after")),
    ("stream_norm_scale", _scale("norm_on_stream", "embedding_norm", "post_norm")),
    ("query_key_norm_scale", _scale("query_norm", "key_norm")),
    ("final_norm_scale", _scale("final_norm")),
    ("norm_scale", r"(^|/)scale$"),  # of a norm in no slot of this library
)
ROLE_NAMES = tuple(name for name, _ in ROLES)


def role_of(path: str) -> str | None:
    """Return the role of a parameter by its path, or None where no rule of `ROLES` covers it.

    >>> role_of("layers/attention/norm_after/scale")
    'output_norm_scale'
    """
    return next((role for role, rule in ROLES if re.search(rule, path)), None)


def parameter_roles(params: Any) -> Any:
    """Return a tree of role names, of `ROLES`, in the structure of ``params``.

    Raises:
      ValueError: naming parameters that no rule of `ROLES` covers.

    >>> parameter_roles({"layers": {"norm_after": {"scale": 1.0}, "fc1": {"kernel": 2.0}}})
    {'layers': {'fc1': {'kernel': 'kernel'}, 'norm_after': {'scale': 'output_norm_scale'}}}
    """
    paths = jax.tree_util.tree_leaves_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    found = [role_of(name) for name in names]
    uncovered = [name for name, role in zip(names, found, strict=True) if role is None]
    if uncovered:
        raise ValueError(
            f"no role covers the parameters {uncovered}; add one to resnorm_jax.planning.roles.ROLES"
        )
    return jax.tree.unflatten(jax.tree.structure(params), found)
