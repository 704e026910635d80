"""Oracles in float64 NumPy, written from the papers' equations and not from the package's code.

All of them take complex numbers too (no absolute value, no conjugate), so that `gradients` can
differentiate them by the complex step: exact to rounding, and without anybody's autodiff.
"""

import numpy as np
from scipy.special import erf

STEP = 1e-30


def x64():
    """Context in which JAX has float64."""
    import jax

    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64()


def quick_jit(function, **options):
    """`jax.jit` that compiles in half the time, for programs that run once."""
    import jax

    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(function, compiler_options=quick, **options)


# --- Norms. Every `axis` may be a number or a tuple; scale and bias broadcast to x. ---


def layer_norm(x, scale=1.0, bias=0.0, axis=-1, epsilon=1e-6):
    """Ba et al. 2016, eq. 3-4."""
    centred = x - x.mean(axis, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis, keepdims=True) + epsilon) * scale + bias


def rms_norm(x, scale=1.0, axis=-1, epsilon=1e-6):
    """Zhang and Sennrich 2019, eq. 4, epsilon inside the root."""
    return x / np.sqrt((x * x).mean(axis, keepdims=True) + epsilon) * scale


def l2_norm(x, axis=-1, epsilon=1e-12):
    """x over its length, Loshchilov et al. 2024; epsilon inside the root."""
    return x / np.sqrt((x * x).sum(axis, keepdims=True) + epsilon)


def std_layer_norm(x, scale=1.0, bias=0.0, axis=-1, epsilon=1e-6):
    """The tutorial form: unbiased deviation, epsilon outside the root; one element gives bias."""
    centred = x - x.mean(axis, keepdims=True)
    count = x.size // x.mean(axis).size
    std = np.sqrt((centred * centred).sum(axis, keepdims=True) / max(1, count - 1))
    return centred / (std + epsilon) * scale + bias


def sum_to(x, shape):
    """Sum ``x`` over the axes along which an array of ``shape`` was broadcast."""
    x = x.sum(tuple(range(x.ndim - len(shape))))
    spread = tuple(a for a, n in enumerate(shape) if n == 1 and x.shape[a] != 1)
    return x.sum(spread, keepdims=True)


def layer_norm_vjp(x, scale, bias, cotangent, axis=-1, epsilon=1e-6):
    """Cotangents of x, scale and bias."""
    centred = x - x.mean(axis, keepdims=True)
    inverse = 1 / np.sqrt((centred * centred).mean(axis, keepdims=True) + epsilon)
    normed = centred * inverse
    g = cotangent * scale
    dx = g - g.mean(axis, keepdims=True) - normed * (g * normed).mean(axis, keepdims=True)
    return dx * inverse, sum_to(cotangent * normed, scale.shape), sum_to(cotangent, bias.shape)


def rms_norm_vjp(x, scale, cotangent, axis=-1, epsilon=1e-6):
    """Cotangents of x and scale."""
    inverse = 1 / np.sqrt((x * x).mean(axis, keepdims=True) + epsilon)
    normed = x * inverse
    g = cotangent * scale
    dx = (g - normed * (g * normed).mean(axis, keepdims=True)) * inverse
    return dx, sum_to(cotangent * normed, scale.shape)


def std_layer_norm_vjp(x, scale, bias, cotangent, axis=-1, epsilon=1e-6):
    """Cotangents of x, scale and bias; those of a constant row are of its centring alone."""
    count = x.size // x.mean(axis).size
    centred = x - x.mean(axis, keepdims=True)
    std = np.sqrt((centred * centred).sum(axis, keepdims=True) / max(1, count - 1))
    safe = np.where(std.real > 0, std, 1)
    g = cotangent * scale
    dot = (g * centred).sum(axis, keepdims=True)
    dc = g / (std + epsilon) - dot * centred / ((std + epsilon) ** 2 * max(1, count - 1) * safe)
    dx = dc - dc.mean(axis, keepdims=True)
    normed = centred / (std + epsilon)
    return dx, sum_to(cotangent * normed, scale.shape), sum_to(cotangent, bias.shape)


# --- Transformer ---


def attention(q, k, v, mask=None):
    """Softmax attention, Vaswani et al. 2017, eq. 1: ``[B, T, H, K]`` each, mask to [B, H, T, S].

    A query with nothing to look at gets zero here; nobody should look at it either.
    """
    logits = np.einsum("bthk,bshk->bhts", q, k) / np.sqrt(q.shape[-1])
    allowed = np.broadcast_to(True if mask is None else mask, logits.shape)
    top = np.where(allowed, logits.real, -np.inf).max(-1, keepdims=True, initial=-1e300)
    weights = np.where(allowed, np.exp(np.where(allowed, logits - top, 0)), 0)
    total = weights.sum(-1, keepdims=True)
    weights = weights / np.where(total == 0, 1, total)
    return np.einsum("bhts,bshk->bthk", weights, v)


def at_head(norms, x):
    """A layer norm with parameters over all heads at once, or over each, by their shape."""
    wide = x.reshape(*x.shape[:2], -1)
    whole = norms["scale"].shape[-1] == wide.shape[-1] != x.shape[-1]
    out = layer_norm(wide if whole else x, **norms)
    return out.reshape(x.shape)


def multi_head_attention(p, x, mask=None, source=None, values=None):
    """Attention; ``p`` has query, key, value ``[D, H, K]`` and out ``[H, K, D]``.

    Norms and factors inside it are those that have parameters in ``p``. ``values`` maps the values
    to those that are attended to, for schemes that mix them.
    """
    source = x if source is None else source
    q, k, v = (
        np.einsum("bld,dhk->blhk", z, p[r]["kernel"]) + p[r]["bias"]
        for r, z in (("query", x), ("key", source), ("value", source))
    )
    if "query_norm" in p:
        q, k = at_head(p["query_norm"], q), at_head(p["key_norm"], k)
    if "query_key_scale" in p:  # 2410.01131, eq. 15-16; `attention` divides by the root of K
        s = p["query_key_scale"]
        q, k = l2_norm(q) * s * q.shape[-1], l2_norm(k) * s
    if "query_key_log_scale" in p:  # 2111.09883, section 3.3
        t = p["query_key_log_scale"][:, None]
        t = np.exp(np.where(t.real < np.log(100), t, np.log(100)))
        q, k = l2_norm(q) * t * np.sqrt(q.shape[-1]), l2_norm(k)
    if "value_norm" in p:
        v = at_head(p["value_norm"], v)
    if values is not None:
        v = values(v)
    heads = attention(q, k, v, mask)
    if "shaped_skip_gate" in p:
        even = attention(0 * q, 0 * k, v, mask)
        heads = (
            p["shaped_skip_gate"] * v + p["shaped_softmax_gate"] * heads
            - p["shaped_centre_gate"] * even
        )  # fmt: skip
    if "head_scale" in p:
        heads = heads * p["head_scale"]
    if "heads_norm" in p:
        heads = layer_norm(heads.reshape(*x.shape[:2], -1), **p["heads_norm"]).reshape(heads.shape)
    return np.einsum("blhk,hkd->bld", heads, p["out"]["kernel"]) + p["out"]["bias"]


def gelu(x):
    """Exact GELU."""
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def feed_forward(p, x):
    """``W2 gelu(W1 x + b1) + b2``, with a norm before W2 if it has parameters."""
    h = x @ p["fc1"]["kernel"] + p["fc1"]["bias"]
    if "fc1_scale" in p:  # 2410.01131, eq. 20-21
        h = h * p["fc1_scale"] * np.sqrt(x.shape[-1])
    h = gelu(h)
    if "mlp_norm" in p:
        h = layer_norm(h, **p["mlp_norm"])
    return h @ p["fc2"]["kernel"] + p["fc2"]["bias"]


# --- Trees and derivatives ---


def tree_map(function, tree):
    """Apply a function to the leaves of nested dictionaries."""
    if isinstance(tree, dict):
        return {key: tree_map(function, value) for key, value in tree.items()}
    return function(tree)


def leaves(tree, path=()):
    """Yield ``(path, array)`` of nested dictionaries."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, tree


def gradients(function, tree):
    """Gradient of a real function of nested arrays by the complex step, one element at a time."""
    tree = tree_map(lambda leaf: np.array(leaf, np.complex128), tree)
    grads = tree_map(lambda leaf: np.zeros(leaf.shape), tree)
    found = dict(leaves(grads))
    for path, leaf in leaves(tree):
        for index in np.ndindex(leaf.shape):
            kept = leaf[index]
            leaf[index] = kept + 1j * STEP
            found[path][index] = function(tree).imag / STEP
            leaf[index] = kept
    return grads


def worst(found, expected):
    """Largest error relative to the largest magnitude of ``expected``; NaN counts as infinite."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    scale = np.max(np.abs(expected), initial=0)
    error = np.max(np.abs(found - expected), initial=0) / (scale if scale > 0 else 1)
    return float(error) if np.isfinite(error) else np.inf


def assert_trees_close(found, expected, tolerance, scale=None):
    """Compare nested dictionaries leaf by leaf; each error is relative to the largest leaf of all.

    Relative to the whole, as the gradient of a key's bias is zero up to rounding.
    """
    found, expected = dict(leaves(found)), dict(leaves(expected))
    assert set(found) == set(expected), set(found) ^ set(expected)
    whole = scale or max(np.max(np.abs(e), initial=0) for e in expected.values())
    for path, leaf in expected.items():
        error = np.abs(np.asarray(found[path], np.float64) - np.asarray(leaf, np.float64))
        assert found[path].shape == np.shape(leaf), path
        largest = float(np.max(error, initial=0))
        assert largest <= tolerance * whole, (path, largest, float(whole))
