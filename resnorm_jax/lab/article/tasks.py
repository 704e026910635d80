"""C5, C6 and C7: other layers, other data, and sequence to sequence."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.lab.article.depth import LABELS, model_of
from resnorm_jax.lab.article.networks import (
    ARRANGEMENTS,
    KINDS,
    all_switches,
    encoder_classifier,
    init_of,
    loss_of,
    scores_of,
)
from resnorm_jax.lab.article.settings import Settings
from resnorm_jax.lab.article.training import best_rate, train_grid
from resnorm_jax.lab.problems import problem
from resnorm_jax.lab.trainer import cross_entropy
from resnorm_jax.modules.decoder import TransformerDecoder
from resnorm_jax.modules.encoder import TransformerEncoder
from resnorm_jax.modules.front_ends import TokenEmbedding
from resnorm_jax.modules.positions import LearnedPositions

ROWS = 32
SYMBOLS, LENGTH = 8, 6
MARGIN = 0.1
"""A network trains where it beats the majority class, or chance, by this much."""


def row_of(seen: Any, rates: tuple[float, ...], **names: Any) -> dict[str, Any]:
    """One network's scores, ``loss`` and ``accuracy`` both ``[S, R, looks]``, at its best rate."""
    loss, accuracy = (np.asarray(each)[..., -1] for each in seen)
    rate = best_rate(loss)
    best = accuracy[:, rate]
    return {
        **names, "rate": rates[rate], "accuracy": best.tolist(), "mean": float(best.mean()),
        "sd": float(best.std(ddof=1)), "loss": float(np.median(loss[:, rate])),
    }  # fmt: skip


def kinds_claim(settings: Settings) -> dict[str, Any]:
    """C5: the same blocks around four kinds of layer, on rows of digits."""
    data, found = problem("rows"), []
    for kind, branch in KINDS.items():
        model = partial(
            model_of, data.classes, settings.width // 2, settings.kind_depth,
            branch(settings.width // 2),
        )  # fmt: skip
        run = train_grid(
            init_of(model, data.train), loss_of(model, data.train, ROWS), settings.task_seeds,
            settings.few_rates, settings.kind_steps, variants=all_switches(),
            observe=scores_of(model, data.train, data.test),
        )  # fmt: skip
        for n, label in enumerate(LABELS):
            seen = jax.tree.map(lambda a, n=n: a[n], run.seen)
            found.append(row_of(seen, settings.few_rates, kind=kind, network=label))
    numbers = {**compared(found, "kind", data.majority), "majority": data.majority}
    return {"rows": found, "numbers": numbers}


def compared(
    rows: list[dict[str, Any]], over: str, baseline: float | dict[str, float]
) -> dict[str, float]:
    """For each kind, whether skip and norm train, and what they gain over neither."""
    trains, gains = [], []
    for kind in dict.fromkeys(row[over] for row in rows):
        mean = {row["network"]: row["mean"] for row in rows if row[over] == kind}
        least = baseline[kind] if isinstance(baseline, dict) else baseline
        trains.append(mean["skip and norm"] >= least + MARGIN)
        gains.append(mean["skip and norm"] - mean["neither"])
    return {
        "kinds": len(trains), "share_that_trains": float(np.mean(trains)),
        "least_gain": float(min(gains)), "mean_gain": float(np.mean(gains)),
    }  # fmt: skip


def data_claim(settings: Settings) -> dict[str, Any]:
    """C6: a classifier each of text, images and speech, with skip and norm, and with neither."""
    found, majority = [], {}
    for name in ("text", "images", "speech"):
        data = problem(name)
        majority[name] = data.majority
        for label, arrangement in ARRANGEMENTS.items():
            made = encoder_classifier(data, settings.width, settings.task_depth, arrangement)
            model = lambda variant, made=made: made  # noqa: E731
            run = train_grid(
                init_of(model, data.train, True), loss_of(model, data.train, ROWS, True),
                settings.task_seeds, settings.few_rates, settings.task_steps,
                observe=scores_of(model, data.train, data.test, True),
            )  # fmt: skip
            seen = jax.tree.map(lambda a: a[0], run.seen)
            found.append(row_of(seen, settings.few_rates, data=name, network=label, set=data.name))
    return {"rows": found, "majority": majority, "numbers": compared(found, "data", majority)}


class Reverser(nn.Module):
    """An encoder reads a sequence of symbols, a decoder writes it backwards."""

    width: int
    depth: int
    arrangement: str

    @nn.compact
    def __call__(self, source: jax.Array, shifted: jax.Array) -> jax.Array:
        """Map two ``[B, L]`` of symbols to logits ``[B, L, symbols]`` of the next ones."""

        def embedded(x: jax.Array, name: str) -> jax.Array:
            h = TokenEmbedding(self.width, SYMBOLS + 1, name=f"{name}_embedding")(x)
            return LearnedPositions(LENGTH, jnp.float32, name=f"{name}_positions")(h)

        options: dict[str, Any] = {"depth": self.depth, "heads": 2, "arrangement": self.arrangement}
        memory = TransformerEncoder(**options, name="encoder")(embedded(source, "source"))
        out = TransformerDecoder(**options, encoder_depth=self.depth, name="decoder")(
            embedded(shifted, "target"), memory
        )
        return nn.Dense(SYMBOLS, name="head")(out)


def pair(key: jax.Array, rows: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Random symbols, the same backwards, and that shifted by a start symbol."""
    source = jax.random.randint(key, (rows, LENGTH), 0, SYMBOLS)
    target = source[:, ::-1]
    return source, target, jnp.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=SYMBOLS)


def sequence_claim(settings: Settings) -> dict[str, Any]:
    """C7: reversing a sequence, encoder and decoder under the same arrangement."""
    found = []
    for label, arrangement in ARRANGEMENTS.items():
        model = Reverser(settings.width, max(1, settings.task_depth // 2), arrangement)

        def loss(params: Any, root: jax.Array, step: jax.Array, variant: Any, model=model):
            source, target, shifted = pair(jax.random.fold_in(root, step), 2 * ROWS)
            return cross_entropy(model.apply(params, source, shifted), target)

        def init(key: jax.Array, variant: Any, model=model):
            source, _, shifted = pair(key, 2)
            return model.init(key, source, shifted)

        def observe(params: Any, variant: Any, model=model):
            source, target, shifted = pair(jax.random.key(12345), 256)  # not trained on
            logits = model.apply(params, source, shifted)
            return cross_entropy(logits, target), (logits.argmax(-1) == target).mean()

        run = train_grid(
            init, loss, settings.task_seeds, settings.few_rates, settings.pair_steps,
            observe=observe,
        )  # fmt: skip
        seen = jax.tree.map(lambda a: a[0], run.seen)
        found.append(row_of(seen, settings.few_rates, task="reverse", network=label))
    return {
        "rows": found,
        "chance": 1 / SYMBOLS,
        "numbers": {**compared(found, "task", 1 / SYMBOLS), "chance": 1 / SYMBOLS,
                    "accuracy": found[-1]["mean"]},
    }  # fmt: skip
