"""Every constant of every arrangement against its paper's formula, by layer; nothing is compiled.

The formulas are written again here, in Python's floats, from the papers and the official code that
each entry cites. A row without an entry fails.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

import resnorm_jax as rn
from resnorm_jax import arrangements
from resnorm_jax.arrangements import Place
from resnorm_jax.schemes import gates, hyper, inside, linear_maps, manifold, memory, two_streams
from resnorm_jax.schemes.query_key import QUERY_KEY
from resnorm_jax.schemes.stream import Site

DEPTHS = (4, 24, 100)
D = 64
COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(autouse=True)
def compiled():
    """Names of the programs that are compiled in a test: none, but in the test of this counter."""
    seen: list[str] = []

    def listen(event: str, *_: Any, **__: Any) -> None:
        if event == COMPILED:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)
    assert seen == []


def test_the_counter_counts(compiled):
    jax.jit(lambda x: x + 17)(1.0)
    assert compiled
    compiled.clear()


# --- What a row is said to be ---

Rule = float | Callable[[int, int, int], float]  # a number, or a function of N, i and s from 1
RANDOM = "random"


@dataclass(frozen=True)
class Block:
    """A sublayer; ``norms`` are those of its own slots, by name."""

    name: str
    norms: Mapping[str, str]
    read: Rule = 1.0
    skip: Rule = 1.0
    branch: Rule = 1.0


@dataclass(frozen=True)
class Row:
    """An arrangement: ``layer(n, i)`` gives its blocks, ``first`` each parameter's first value.

    ``first`` holds scope, shape and value; the value of all elements, an array by n, i and s, or
    `RANDOM`.
    """

    layer: Callable[[int, int], tuple[Block, ...]]
    final_norm: str | None = None
    embedding_norm: str | None = None
    distribution: str = "uniform"
    gains: Mapping[str, Rule] = field(default_factory=dict)
    embedding: Rule = 1.0
    attention: Mapping[str, Any] = field(default_factory=dict)
    mlp: Mapping[str, Any] = field(default_factory=dict)
    stream: str = "add"
    stream_norms: Mapping[str, str] = field(default_factory=dict)
    closing_norms: Mapping[str, str] = field(default_factory=dict)
    first: Mapping[str, tuple[str, Any, Any]] = field(default_factory=dict)


BEFORE, AFTER, ON = ({f"norm_{where}": "layer"} for where in ("before", "after", "on_stream"))
BOTH, ZERO_AFTER = BEFORE | AFTER, {"norm_after": "layer, scale 0"}
KINDS = ("attention", "feed_forward")
CARRIERS, ALL = ("value", "out", "fc1", "fc2"), ("query", "key", "value", "out", "fc1", "fc2")


def alike(norms, **rules):
    """Attention, then a feed-forward network, with the same norms and scales."""
    return lambda n, i: tuple(Block(name, norms, **rules) for name in KINDS)


def post_ln(**fields):
    return Row(alike(ON), **fields)


def pre_ln(norms=BEFORE, **fields):
    return Row(alike(norms), final_norm="layer", **fields)


def scalar(value, scope="sublayer"):
    return scope, (), value


def vector(value, scope="sublayer"):
    return scope, (D,), value


def kernel(rows, columns, value=RANDOM, scope="sublayer"):
    return scope, (rows, columns), value


def all_gains(roles, rule):
    return dict.fromkeys(roles, rule)


# --- What differs by layer ---


def mix_ln(n, i):
    """2412.13795: the first floor(N / 4) layers are Post-LN."""
    return alike(ON if i <= math.floor(n * 0.25) else BEFORE)(n, i)


def normformer(n, i):
    """2110.09456: a norm after attention alone."""
    return Block("attention", BOTH), Block("feed_forward", BEFORE)


def hybrid_norm(n, i):
    """2503.04598: y = norm(x + attention(x)); y + FFN(y)."""
    return Block("attention", ON), Block("feed_forward", {})


def hybrid_norm_star(n, i):
    """Its first layer is Pre-LN."""
    return alike(BEFORE)(n, i) if i == 1 else hybrid_norm(n, i)


def shaped(n, i):
    """2311.01906: no skip around attention; the code's 0.1 of 18 layers, by 1 / sqrt(N)."""
    beta = 0.1 * math.sqrt(18) / math.sqrt(n)
    return Block("attention", BEFORE, skip=0.0), Block("feed_forward", BEFORE, branch=beta)


def macaron(n, i):
    """2005.08100, eq. 1, without the convolution."""
    return (
        Block("feed_forward", BEFORE, branch=1 / 2),
        Block("attention", BEFORE),
        Block("feed_forward_1", BOTH_ENDS, branch=1 / 2),
    )


BOTH_ENDS = BEFORE | ON


def sandwich(n, i):
    """1911.03864: s^k (sf)^(n - k) f^k; k = 1, 5, 21 of 4, 24, 100 layers."""
    k = {4: 1, 24: 5, 100: 21}[n]
    word = "s" * k + "sf" * (n - k) + "f" * k
    pair = [{"s": KINDS[0], "f": KINDS[1]}[c] for c in word[2 * (i - 1) : 2 * i]]
    if pair[0] == pair[1]:
        pair[1] += "_1"
    return tuple(Block(name, BEFORE) for name in pair)


def parallel(norms):
    return lambda n, i: (Block("parallel", norms),)


# --- First values that depend on the place ---


def turn(n, i, s):
    """2409.19606: e_((s - 1) mod 4) for sublayer s from 1."""
    return np.array([[1.0 if stream == (s - 1) % 4 else 0.0] for stream in range(4)])


def mhc_bias(columns):
    """FFTYYY/mhc-lite and HYV4: 1/4 before, 1 after, the identity but for -8."""

    def value(n, i, s):
        near = [0.0 if j == k else -8.0 for j in range(4) for k in range(4)]
        return np.array([-math.log(3)] * 4 + [0.0] * 4 + near)[:columns]

    return value


def lite_bias(n, i, s):
    """FFTYYY/mhc-lite: 1 and -1 for streams, 0 and 23 times -8 for permutations."""
    signs = [1.0 if stream == (s - 1) % 4 else -1.0 for stream in range(4)]
    return np.array(signs + signs + [0.0] + [-8.0] * 23)


def one_hot_average(n, i, s):
    """2402.02622, section 3: all weight on the current layer's output at first."""
    return np.array([[1.0 if j == k else 0.0 for j in range(n + 1)] for k in range(1, n + 1)])


def cait(n, i, s):
    """2103.17239: 0.1 up to depth 18, 1e-5 up to 24, 1e-6 for deeper networks."""
    return np.full(D, {4: 0.1, 24: 1e-5, 100: 1e-6}[n])


def falling(start, end):
    """karpathy/nanochat: from start in layer 1 to end in the last, linearly."""
    return lambda n, i, s: np.array(start + (end - start) * (i - 1) / (n - 1))


STATIC_HC = {
    "read_gate": ("sublayer", (4, 1), turn),
    "mix_gate": ("sublayer", (4, 4), lambda n, i, s: np.eye(4)),
    "write_gate": ("sublayer", (4,), 1.0),
}
STATIC_FC = STATIC_HC | {"read_gate": ("sublayer", (4, 4), lambda n, i, s: np.eye(4))}
SCALES = {"alpha": ("sublayer", (2,), 0.01)}  # 2409.19606 and 2503.14125: s = 0.01


def mhc(columns, bias, value=RANDOM):
    """2512.24880, table 5: gating factors 0.01."""
    return {
        "kernel": kernel(4 * D, columns, value),
        "bias": ("sublayer", (columns,), bias),
        "alpha": ("sublayer", (2 if columns == 8 else 3,), 0.01),
    }


def depth_queries():
    """2603.15031: pseudo-queries are 0 at first; one for each sublayer and the output."""

    def zeros(n, i, s):
        return np.zeros((2 * n + 1, D))

    return {"query_kernel": ("stack", None, zeros)}


EXPECTED = {
    "none": Row(alike({}), stream="replace"),
    "residual_only": Row(alike({})),
    "norm_only": post_ln(stream="replace"),
    "post_ln": post_ln(),
    "pre_ln": pre_ln(),
    "sandwich_ln": pre_ln(BOTH),
    "res_post_norm": pre_ln(ZERO_AFTER),  # Swin v2: _init_respostnorm sets gamma and beta to 0
    "embedding_norm_pre_ln": pre_ln(embedding_norm="layer"),
    # 2203.00555, figure 2: alpha = (2N)^(1/4), beta = (8N)^(-1/4) on ffn, v_proj, out_proj
    "deepnorm": Row(
        alike(ON, skip=lambda n, i, s: (2.0 * n) ** (1 / 4)),
        distribution="normal",
        gains=all_gains(CARRIERS, lambda n, i, s: 1 / (8.0 * n) ** (1 / 4)),
    ),
    # 2601.19895: alpha is the number of sublayers
    "keel": Row(alike(BOTH_ENDS, skip=lambda n, i, s: 2 * n)),
    # 2502.05795: the index of the layer, not of the sublayer
    "layer_norm_scaling": Row(
        alike(BEFORE, read=lambda n, i, s: 1 / math.sqrt(i)), final_norm="layer"
    ),
    "mix_ln": Row(mix_ln, final_norm="layer"),
    # MiniCPM: scale_depth / sqrt(num_hidden_layers), scale_depth = 1.4
    "depth_scaled": Row(
        alike(BEFORE, branch=lambda n, i, s: 1.4 / math.sqrt(n)), final_norm="layer"
    ),
    # modular_beam.py: attention of layer l from 0 has i = 2 (l + 1), its MLP one more
    "variance_preserving": Row(
        alike(
            BOTH,
            skip=lambda n, i, s: math.sqrt((beam(i, s) - 1) / beam(i, s)),
            branch=lambda n, i, s: 1.0 / math.sqrt(beam(i, s)),
        ),
        final_norm="layer",
    ),
    # 1908.11365: gain / sqrt(l) on all parameter matrices
    "ds_init": post_ln(gains=all_gains(ALL, lambda n, i, s: i**-0.5)),
    # layer6ai-labs/T-Fixup transformer_layer.py: 0.67 * en_layers ** (-1/4)
    "t_fixup": Row(
        alike({}),
        gains=all_gains(CARRIERS, lambda n, i, s: 0.67 * n ** (-1.0 / 4.0)),
        embedding=lambda n, i, s: (9 * n) ** (-1.0 / 4.0),
    ),
    # 2210.06423: sqrt(log 2N) encoder-only
    "sub_ln": pre_ln(
        distribution="normal",
        gains=all_gains(CARRIERS, lambda n, i, s: math.sqrt(math.log(n * 2))),
        attention={"heads_norm": "layer"},
        mlp={"mlp_norm": "layer"},
    ),
    "parallel_one_norm": Row(parallel(BEFORE), final_norm="layer"),
    "parallel_two_norms": Row(
        parallel({}),
        final_norm="layer",
        attention={"input_norm": "layer"},
        mlp={"input_norm": "layer"},
    ),
    "macaron": Row(macaron),
    "sandwich_order": Row(sandwich, final_norm="layer"),
    "normformer": Row(
        normformer,
        final_norm="layer",
        attention={"head_scale": True},
        mlp={"mlp_norm": "layer"},
    ),
    "reordered_ln": pre_ln(AFTER, attention={"query_key": "full"}),
    "res_post_norm_cosine": pre_ln(ZERO_AFTER, attention={"query_key": "cosine"}),
    "hybrid_norm": Row(
        hybrid_norm, final_norm="layer", attention={"query_key": "head", "value_norm": "layer"}
    ),
    "hybrid_norm_star": Row(
        hybrid_norm_star, final_norm="layer", attention={"query_key": "head", "value_norm": "layer"}
    ),
    "shaped_attention": Row(
        shaped,
        final_norm="layer",
        distribution="normal",
        gains={"query": 0.0},  # W_Q = 0 at first
        attention={"shaped": True},
    ),
    # 2410.17897: V'_n = (V_n + V_1) / 2
    "value_residual": pre_ln(attention={"value_residual": 1 / 2}),
    # NVIDIA/ngpt: alpha 0.05, stored as 1 / sqrt(n_embd)
    "ngpt": Row(
        alike({"norm_after": "l2", "norm_on_stream": "l2"}),
        embedding_norm="l2",
        attention={"query_key": "unit_scaled"},
        mlp={"mlp_scale": True},
        stream="step_towards",
        first={"gate": vector(1 / math.sqrt(D))},
    ),
    "rezero": Row(alike({}), stream="scalar_gate", first={"gate": scalar(0.0, "layer")}),
    "skip_init": Row(alike({}), stream="branch_gate", first={"gate": scalar(0.0)}),
    "layer_scale": pre_ln(stream="vector_gate", first={"gate": vector(cait)}),
    "tanh_zero_gate": pre_ln(stream="tanh_gate", first={"gate": scalar(0.0)}),
    # 1901.09321: L^(-1 / (2m - 2)) with L branches of m = 4 (attention) and m = 2, last ones 0
    "fixup": Row(
        alike({}),
        gains={
            **all_gains(
                ("query", "key", "value"), lambda n, i, s: 1 / (2 * n) ** (1 / (2 * 4 - 2))
            ),
            "fc1": lambda n, i, s: 1 / (2 * n) ** (1 / (2 * 2 - 2)),
            "out": 0.0,
            "fc2": 0.0,
        },
        stream="shift_and_scale",
        first={"shift": scalar(0.0), "scale": scalar(1.0)},
    ),
    "residual_scale": pre_ln(stream="skip_gate", first={"scale": vector(1.0)}),
    "laurel_rw": pre_ln(
        stream="weighted_sum", first={"skip_scale": scalar(1.0), "branch_scale": scalar(1.0)}
    ),
    # modeling_zaya.py: scales ones, biases zeros
    "affine_residual": pre_ln(
        stream="affine_sum",
        first={
            "skip_bias": vector(0.0),
            "skip_scale": vector(1.0),
            "branch_bias": vector(0.0),
            "branch_scale": vector(1.0),
        },
    ),
    "convex_unit_gate": pre_ln(BOTH, stream="unit_gate", first={"gate": vector(RANDOM)}),
    "gpas": pre_ln(stream="held_back", first={"gate": scalar(0.0, "layer")}),
    "admin": post_ln(stream="vector_skip", first={"skip_scale": vector(1.0)}),
    "highway": pre_ln(stream="carry_gate", first={"kernel": kernel(D, D), "bias": vector(-3.0)}),
    # 1910.06764: b_g = 2
    "gtrxl": Row(
        alike(BEFORE),
        stream="gru_gate",
        first={
            "branch_kernel": kernel(D, 3 * D),
            "skip_kernel": kernel(D, 2 * D),
            "candidate_kernel": kernel(D, D),
            "bias": vector(2.0),
        },
    ),
    "gtrxl_input": Row(alike(BEFORE), stream="input_gate", first={"kernel": kernel(D, D)}),
    "gtrxl_output": Row(
        alike(BEFORE),
        stream="output_gate",
        first={"kernel": kernel(D, D), "bias": vector(2.0)},
    ),
    "gtrxl_sig_tanh": Row(
        alike(BEFORE),
        stream="sig_tanh_gate",
        first={"kernel": kernel(D, 2 * D), "bias": vector(2.0)},
    ),
    # DiT models.py: weight and bias of the last projection are 0
    "adaln_zero": Row(
        alike({}),
        final_norm="layer_plain",
        stream="modulated_gate",
        stream_norms={"read_norm": "layer_plain"},
        first={
            "modulation_kernel": kernel(D, 3 * D, 0.0),
            "modulation_bias": ("sublayer", (3 * D,), 0.0),
        },
    ),
    # 2411.07501: B is 0 at first; the rank of Gemma 3n, a quarter of a narrow width
    "laurel_lr": pre_ln(
        stream="low_rank_skip",
        first={"down_kernel": kernel(D, 16), "up_kernel": kernel(16, D, 0.0)},
    ),
    "orthogonal_update": pre_ln(stream="orthogonal_sum"),
    # erwold/mv-split dit.py: beta 0.03, alpha 0
    "mv_split": post_ln(stream="mean_split", first={"scale": vector(0.03), "alpha": vector(0.0)}),
    "deep_delta": Row(
        alike({}),
        final_norm="layer",
        stream="delta_rule",
        stream_norms={"read_norm": "layer"},
        first={
            "gate_kernel": kernel(D, 1),
            "gate_bias": ("sublayer", (1,), 0.0),
            "value_kernel": kernel(D, 1),
            "value_bias": ("sublayer", (1,), 0.0),
        },
    ),
    "resi_dual": post_ln(stream="dual", final_norm="layer"),
    # deit-model-siamesenorm.py: 1 / sqrt(2 (layer + 1)), layer from 0
    "siamese_norm": Row(
        alike(BEFORE, branch=lambda n, i, s: 1 / math.sqrt(2 * i)),
        final_norm="layer",
        stream="siamese",
        stream_norms={"post_norm": "layer", "pre_norm": "layer"},
        closing_norms={"post_norm": "layer", "pre_norm": "layer"},
    ),
    # takase/b2t_connection: all weights of a layer by N^(-1/2)
    "bottom_to_top": post_ln(stream="bottom", gains=all_gains(ALL, lambda n, i, s: n**-0.5)),
    "input_lambdas": pre_ln(
        embedding_norm="layer",
        stream="input_mixture",
        first={
            "resid_gate": scalar(falling(1.15, 1.05), "layer"),
            "input_gate": scalar(falling(0.20, 0.05), "layer"),
        },
    ),
    "hyper_connections": pre_ln(stream="streams", first=STATIC_HC),
    "dynamic_hyper_connections": pre_ln(
        stream="dynamic_streams", first=STATIC_HC | SCALES | {"kernel": kernel(D, 6, 0.0)}
    ),
    "frac_connections": pre_ln(stream="fractions", first=STATIC_FC),
    "dynamic_frac_connections": pre_ln(
        stream="dynamic_fractions",
        first=STATIC_FC | SCALES | {"kernel": kernel(D // 4, 9, 0.0)},
    ),
    "mhc": pre_ln(stream="sinkhorn_streams", first=mhc(24, mhc_bias(24))),
    "mhc_lite": pre_ln(stream="permuted_streams", first=mhc(32, lite_bias, 0.0)),
    # modeling_hy_v4.py: base -log(hc_mult - 1) before, 0 after, scale 0.01
    "unmixed_hyper_connections": pre_ln(
        stream="unmixed_streams",
        first=mhc(8, mhc_bias(8))
        | {
            "head_kernel": kernel(4 * D, 4, scope="stack"),
            "head_bias": ("stack", (4,), -math.log(3)),
            "head_alpha": ("stack", (), 0.01),
        },
    ),
    "denseformer": pre_ln(
        stream="depth_average", first={"depth_alpha": ("stack", None, one_hot_average)}
    ),
    "attention_residuals": pre_ln(stream="depth_attention", first=depth_queries()),
    "block_attention_residuals": pre_ln(stream="depth_attention_blocks", first=depth_queries()),
    "prores": pre_ln(stream="progressive"),
}


def beam(i, s):
    """modular_beam.py: attn_residual_add_idx = 2 * (layer_idx + 1), layer_idx from 0."""
    add = 2 * ((i - 1) + 1)
    return add if s % 2 == 1 else add + 1


# --- What the plan says ---


def some_layers(depth):
    """The first, the last, and those around a quarter and a half."""
    quarter = depth // 4
    return sorted({1, 2, quarter, quarter + 1, depth // 2, depth - 1, depth})


def shown(norm):
    """A planned norm in words."""
    if norm is None:
        return None
    fixed = "" if norm.scale_init is None else f", scale {norm.scale_init:g}"
    return norm.spec.name + fixed


def at(rule, *place):
    return rule(*place) if callable(rule) else rule


def standing(norms):
    return {norm.name: shown(norm) for norm in norms}


def check_blocks(row, layer, n, i):
    blocks = row.layer(n, i)
    assert [s.name for s in layer.sublayers] == [b.name for b in blocks]
    numbers = layer.numbers.sublayers
    for block, sublayer, number in zip(blocks, layer.sublayers, numbers, strict=True):
        place = n, i, number.sublayer
        slots = {
            slot: shown(getattr(sublayer, slot))
            for slot in ("norm_before", "norm_after", "norm_on_stream")
        }
        assert {k: v for k, v in slots.items() if v} == block.norms
        found = number.read_scale, number.skip_scale, number.branch_scale
        wanted = [at(rule, *place) for rule in (block.read, block.skip, block.branch)]
        assert found == pytest.approx(wanted, rel=1e-13), (i, block.name)
        assert standing(sublayer.stream_norms) == row.stream_norms
        for branch, gains in zip(sublayer.branches, number.gains, strict=True):
            check_branch(row, branch, gains, place)


def check_branch(row, branch, gains, place):
    assert branch.distribution == row.distribution
    wanted = {role: at(row.gains[role], *place) for role in branch.roles if role in row.gains}
    assert gains == pytest.approx(wanted, rel=1e-13)
    inside = {"input_norm": shown(branch.input_norm)}
    if branch.name.startswith("feed_forward"):
        expected = row.mlp
        inside |= {"mlp_norm": shown(branch.mlp_norm), "mlp_scale": branch.mlp_scale}
    else:
        expected = row.attention
        kind = branch.query_key.name
        inside |= {slot: shown(getattr(branch, slot)) for slot in ("value_norm", "heads_norm")}
        inside |= {"query_key": None if kind == "none" else kind}
        inside |= {k: getattr(branch, k) for k in ("head_scale", "value_residual", "shaped")}
        takes = "layer" if QUERY_KEY.get(kind).norms else None
        assert [shown(branch.query_norm), shown(branch.key_norm)] == [takes, takes]
    assert {name: what for name, what in inside.items() if what} == expected


def test_every_row_has_an_entry():
    assert set(EXPECTED) == set(arrangements.names())


@pytest.mark.parametrize("name", arrangements.names())
def test_norms_and_numbers_are_the_papers(name):
    row = EXPECTED[name]
    for n in DEPTHS:
        plan = rn.plan(name, n, width=D)
        assert plan.stream.name == row.stream
        assert shown(plan.embedding_norm) == row.embedding_norm
        assert shown(plan.final_norm) == row.final_norm
        assert standing(plan.closing_norms) == row.closing_norms
        assert plan.embedding_gain == pytest.approx(at(row.embedding, n, 1, 1), rel=1e-13)
        for i in some_layers(n):
            check_blocks(row, plan.layer(i), n, i)


def test_sublayers_are_those_of_the_order():
    """They count through the stack: two a layer, one where they are parallel, three in Macaron."""
    for name, each in (("pre_ln", 2), ("parallel_one_norm", 1), ("macaron", 3)):
        plan = rn.plan(name, 24)
        for i in some_layers(24):
            found = [s.sublayer for s in plan.layer(i).numbers.sublayers]
            assert found == list(range(each * (i - 1) + 1, each * i + 1))


# --- Parameters of streams ---

NUMPY = SimpleNamespace(
    full=np.full, asarray=np.asarray, eye=np.eye, where=np.where, arange=np.arange,
    concatenate=np.concatenate, zeros=np.zeros,
)  # fmt: skip


@pytest.fixture
def _numpy(monkeypatch):
    """First values by NumPy in place of JAX, which would compile each operation."""
    for module in (gates, hyper, inside, manifold, memory, two_streams):
        monkeypatch.setattr(module, "jnp", NUMPY)
    nn = SimpleNamespace(one_hot=lambda index, count, dtype: np.eye(count, dtype=dtype)[index])
    monkeypatch.setattr(hyper, "jax", SimpleNamespace(nn=nn))


def first_value(parameter, shape, site):
    """A parameter's first value in float64, as `StreamParameter.create` makes it."""
    if callable(parameter.init):
        return np.asarray(parameter.init(None, shape, np.dtype(np.float64), site))
    return np.full(shape, parameter.init)


@pytest.mark.usefixtures("_numpy")
@pytest.mark.parametrize("name", arrangements.names())
def test_parameters_and_their_first_values_are_the_papers(name):
    row, stream = EXPECTED[name], arrangements.get(name).stream
    assert {p.name: p.scope for p in stream.parameters} == {k: v[0] for k, v in row.first.items()}
    for n in DEPTHS:
        plan = rn.plan(name, n, width=D)
        places = [(i, s.sublayer) for i in some_layers(n) for s in plan.layer(i).numbers.sublayers]
        for parameter in stream.parameters:
            _, shape, value = row.first[parameter.name]
            for i, s in places:
                site = Site(width=D, layers=n, sublayers=plan.sublayers, layer=i, sublayer=s)
                found = parameter.shape(site)
                wanted = at(value, n, i, s)
                assert found == (shape if shape is not None else wanted.shape), parameter.name
                if value is RANDOM:
                    assert callable(parameter.init)
                    continue
                made = first_value(parameter, found, site)
                assert made.shape == found
                np.testing.assert_allclose(made, np.broadcast_to(wanted, found), rtol=1e-13)


@pytest.mark.usefixtures("_numpy")
def test_layer_scale_changes_at_18_and_24_layers():
    (gate,) = arrangements.get("layer_scale").stream.parameters
    found = [float(first_value(gate, (), Site(width=D, layers=n))) for n in (18, 19, 24, 25)]
    assert found == [0.1, 1e-5, 1e-5, 1e-6]


def test_each_rule_of_a_first_value_says_it_in_words():
    """`resnorm show` prints the first line of what makes a first value."""
    rules = [p.init for row in arrangements.rows() for p in row.stream.parameters]
    rules += [p.init for row in QUERY_KEY.rows() for p in row.parameters]
    rules = [rule for rule in rules if callable(rule)]
    assert len(rules) > 30
    assert [rule for rule in rules if not (rule.__doc__ or "").strip()] == []


def test_first_values_of_queries_and_keys():
    """2111.09883: log 10; 2010.04245: log2(L^2 - L); 2410.01131: 1."""
    found = {
        (row.name, p.name): (p.shape(4, 16), p.init(50))
        for row in QUERY_KEY.rows() for p in row.parameters
    }  # fmt: skip
    assert found == {
        ("cosine", "log_scale"): ((4,), pytest.approx(math.log(10))),
        ("cosine_learned", "alpha"): ((), pytest.approx(math.log2(50 * 50 - 50))),
        ("unit_scaled", "scale"): ((4, 16), 1.0),
    }


def test_constants_inside_streams():
    """Numbers that no plan shows, from the code that each row cites."""
    found = {
        "Muse Spark, residual_gate_temperature": gates.TEMPERATURE,
        "Muse Spark, residual_gate_eps": gates.LEAST_SKIP,
        "ortho-residual, connect": linear_maps.ORTHOGONAL_EPSILON,
        "deep-delta-learning, ddl_k_eps": linear_maps.KEY_EPSILON,
        "deep-delta-learning, ddl_v_sigmoid_scale": linear_maps.LARGEST_VALUE,
        "Gemma 3n, laurel_rank": linear_maps.LARGEST_RANK,
        "ngpt, attn_alpha_init_value": inside.STEP,
        "2409.19606, n": hyper.RATE,
        "2409.19606, scale of the dynamic part": hyper.ALPHA,
        "2512.24880, table 5, Sinkhorn-Knopp": manifold.ITERATIONS,
        "TileKernels, eps": manifold.EPSILON,
        "2603.15031, blocks": memory.BLOCKS,
    }
    assert list(found.values()) == [
        0.3, 1e-3, 1e-6, 1e-5, 4.0, 64, 0.05, 4, 0.01, 20, 1e-6, 8,
    ]  # fmt: skip
    assert manifold.PERMUTATIONS[0] == (0, 1, 2, 3)
    assert len(set(manifold.PERMUTATIONS)) == 24


# --- Encoder-decoders ---

M_AND_N = [(6, 6), (18, 6), (4, 100)]


def gains_of(name, depth, stack, other):
    """All gains of the last layer by role, and the numbers of its last sublayer."""
    beside = Place(stack=stack, other=other)
    plan = rn.plan(name, depth, stack=beside, cross_attention=stack == "decoder")
    numbers = plan.layer(depth).numbers.sublayers
    assert len(numbers) == (3 if stack == "decoder" else 2)
    roles = {
        role: gain for number in numbers for gains in number.gains for role, gain in gains.items()
    }
    return roles, numbers[-1], plan.embedding_gain


@pytest.mark.parametrize(("n", "m"), M_AND_N)
def test_deepnorm_in_an_encoder_decoder(n, m):
    """2203.00555, figure 2, encoder-decoder."""
    roles, numbers, _ = gains_of("deepnorm", n, "encoder", m)
    assert numbers.skip_scale == pytest.approx(0.81 * (n * n * n * n * m) ** (1 / 16))
    assert roles == dict.fromkeys(CARRIERS, pytest.approx(0.87 / (n * n * n * n * m) ** (1 / 16)))
    roles, numbers, _ = gains_of("deepnorm", m, "decoder", n)
    assert numbers.skip_scale == pytest.approx((3 * m) ** (1 / 4))
    assert roles == dict.fromkeys(CARRIERS, pytest.approx((12 * m) ** (-1 / 4)))


@pytest.mark.parametrize(("n", "m"), M_AND_N)
def test_sub_ln_in_an_encoder_decoder(n, m):
    """2210.06423: sqrt(1/3 log 3M log 2N) and sqrt(log 3M)."""
    roles, _, _ = gains_of("sub_ln", n, "encoder", m)
    wanted = math.sqrt(math.log(m * 3) * math.log(n * 2) / 3)
    assert roles == dict.fromkeys(CARRIERS, pytest.approx(wanted))
    roles, _, _ = gains_of("sub_ln", m, "decoder", n)
    assert roles == dict.fromkeys(CARRIERS, pytest.approx(math.sqrt(math.log(m * 3))))


@pytest.mark.parametrize(("n", "m"), M_AND_N)
def test_t_fixup_in_an_encoder_decoder(n, m):
    """fixup_initialization of layer6ai-labs/T-Fixup: each stack by its own depth."""
    roles, _, embedding = gains_of("t_fixup", n, "encoder", m)
    assert roles == dict.fromkeys(CARRIERS, pytest.approx(0.67 / n**0.25))
    assert embedding == pytest.approx(1 / (9 * n) ** 0.25)
    roles, _, embedding = gains_of("t_fixup", m, "decoder", n)
    assert roles == dict.fromkeys(CARRIERS, pytest.approx(1 / (9 * m) ** 0.25))
    assert embedding == pytest.approx(1 / (9 * m) ** 0.25)


@pytest.mark.parametrize(("n", "m"), M_AND_N)
def test_fixup_in_an_encoder_decoder(n, m):
    """transformer_zero.py: num_blocks = encoder_layers * 2 + decoder_layers * 3, in both stacks."""
    blocks = n * 2 + m * 3
    wanted = {
        **dict.fromkeys(("query", "key", "value"), pytest.approx(blocks ** (-1.0 / 6.0))),
        "fc1": pytest.approx(1 / math.sqrt(blocks)),
        "out": 0.0,
        "fc2": 0.0,
    }
    for depth, stack, other in ((n, "encoder", m), (m, "decoder", n)):
        assert gains_of("fixup", depth, stack, other)[0] == wanted
