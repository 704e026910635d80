"""An explanation of one prediction, as plain values for a page and for JSON."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from resnorm_jax.build import PATCH, kernel_and_stride, pooling_of
from resnorm_jax.data import Examples
from resnorm_jax.errors import UserError
from resnorm_jax.lab.explain.attribution import Attribution, attribute
from resnorm_jax.lab.explain.model import Seen, case_of, observe_case
from resnorm_jax.lab.explain.rollout import POOLED, SOURCE, pooled_weights, roll_out, spread
from resnorm_jax.modules.pooling import POOLING
from resnorm_jax.training.saved_run import Trained


def explain(trained: Trained, examples: Examples, row: int) -> dict[str, Any]:
    """Explain the prediction for one row.

    Returns:
      ``prediction``, ``positions`` (labels), ``shares`` (of each in the roll-out), ``even_shares`` (if
      all tokens had the same), ``kernel`` and ``stride`` (of the embedding: a token's share is spread
      over what it sees), ``class_token_share``, ``attribution`` (parts of the predicted class' logit,
      by token), and ``input``.

    Raises:
      UserError: for a row that is not there, or longer than the model's learned positions.
    """
    if not 0 <= row < len(examples):
        raise UserError(f"--row: {row}; the file has rows 0 to {len(examples) - 1}")
    trained.check_lengths(examples.take(np.array([row])))
    case = case_of(trained, examples, row)
    seen = observe_case(case)
    chosen = int(seen.logits.argmax())
    pooling = pooling_of(trained.config.model)
    share = pooled_weights(pooling, seen.output) @ roll_out(
        seen.attention, np.ones(len(seen.output), bool)
    )
    tokens = len(POOLING.get(pooling).tokens)
    kernel, stride = kernel_and_stride(trained.config.model, trained.meta)
    shares = share[tokens:]
    even = np.full(len(shares), 1 / len(shares))
    if stride > 1:
        to_positions = spread(kernel, stride, case.x.shape[1])
        shares, even = shares @ to_positions, even @ to_positions
    return {
        "row": row,
        "kind": trained.meta["kind"],
        "prediction": _prediction(trained.meta, seen, examples, row),
        "pooling": pooling,
        "pooling_rule": POOLED[pooling][1],
        "roll_out_source": SOURCE,
        "attentions": len(seen.attention),
        "positions": labels(trained, case.x),
        "shares": shares,
        "even_shares": even,
        "kernel": kernel,
        "stride": stride,
        "class_token_share": float(share[:tokens].sum()) if tokens else None,
        "grid": grid(trained),
        "attribution": _attribution(attribute(case, seen, chosen), tokens),
        "input": case.x[0],
    }


def labels(trained: Trained, x: np.ndarray) -> list[str]:
    """Return a name for each position of ``x [1, L, ...]``: the token, the time step, the patch."""
    kind = trained.meta["kind"]
    if kind == "tokens":
        return [str(trained.meta["vocabulary"][token]) for token in x[0]]
    if kind == "images":
        rows, columns = grid(trained) or (1, 1)
        return [f"row {r + 1}, column {c + 1}" for r in range(rows) for c in range(columns)]
    return [f"step {t + 1}" for t in range(x.shape[1])]


def grid(trained: Trained) -> tuple[int, int] | None:
    """Return the rows and columns of patches of an image; None for sequences."""
    if trained.meta["kind"] != "images":
        return None
    patch = trained.config.model.patch or PATCH
    height, width = trained.meta["shape"][:2]
    return height // patch, width // patch


def _prediction(
    meta: Mapping[str, Any], seen: Seen, examples: Examples, row: int
) -> dict[str, Any]:
    wide = seen.logits.astype(np.float64)
    probabilities = np.exp(wide - wide.max())
    probabilities /= probabilities.sum()
    chosen, label = int(wide.argmax()), int(examples.y[row])
    return {
        "class": meta["classes"][chosen],
        "probability": probabilities[chosen],
        "label": meta["classes"][label] if label >= 0 else None,
        "logits": dict(zip(meta["classes"], wide.tolist(), strict=True)),
        "probabilities": dict(zip(meta["classes"], probabilities.tolist(), strict=True)),
    }


def _attribution(found: Attribution, tokens: int) -> dict[str, Any]:
    size = sum(abs(part.sum()) for _, _, part in found.parts)
    return {
        "method": found.method.name,
        "about": found.method.about,
        "source": found.method.source,
        "starts_from": found.method.start,
        "start": found.start,
        "logit": found.logit,
        "residual": found.residual,
        "complete": found.complete,
        "parts": [
            {
                "layer": layer,
                "branch": branch,
                "contribution": float(part.sum()),
                "share": float(abs(part.sum()) / size) if size else 0.0,
                "by_position": part[tokens:],
                "class_token": float(part[:tokens].sum()) if tokens else None,
            }
            for layer, branch, part in found.parts
        ],
    }
