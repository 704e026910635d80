"""The worked example, L4 trained by the article's recipe, and L6 over many seeds."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.article import Transformer, TransformerModel, worked_example
from resnorm_jax.lab.article import statistics
from resnorm_jax.lab.article.settings import Settings
from resnorm_jax.lab.article.training import train_grid
from resnorm_jax.lab.problems import problem
from resnorm_jax.lab.trainer import cross_entropy, rows_of_step
from resnorm_jax.modules.pooling import mean_pool

ADAM_RATE, BATCH = 1e-3, 32
PRINTED_LOSSES = (
    2.7324, 2.3535, 2.0625, 1.7297, 1.4724, 1.2078, 1.0164, 0.8689, 0.7627, 0.6885,
)  # fmt: skip
PRINTED_ACCURACY = 0.902
LEVELS = (0.0, 0.025, 0.5, 0.975, 1.0)


class Listing(nn.Module):
    """L4 between what it needs for real data: a linear layer before, the mean of positions after."""

    d_model: int

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, deterministic: bool = True) -> jax.Array:
        """Classify ``x [B, L, C]``; of the ``d_model`` outputs the first are the classes."""
        h = nn.Dense(self.d_model, name="embed")(x)
        out = Transformer(self.d_model, name="transformer")(
            h, src_key_padding_mask=~mask, deterministic=deterministic
        )
        return mean_pool(out, mask)


def worked(settings: Settings) -> dict[str, Any]:
    """The worked example: the article's numbers beside the right ones."""
    rows = [
        {
            "name": r.name,
            "article": r.printed,
            "right": np.asarray(r.right).tolist(),
            "ok": r.agrees,
        }
        for r in worked_example()
    ]
    wrong = [row["name"] for row in rows if row["ok"] is False]
    return {"rows": rows, "numbers": {"numbers_wrong_in_the_article": len(wrong)}}


def listing(settings: Settings) -> dict[str, Any]:
    """L4: Adam 1e-3, cross-entropy, batch 32, ten epochs, on speech features."""
    data = problem("speech")
    model: Any = Listing(settings.listing_width)  # untyped: `apply` returns many things
    rows = data.train
    per_epoch = len(rows.y) // BATCH

    def loss(params: Any, root: jax.Array, step: jax.Array, variant: Any) -> jax.Array:
        some = rows.take(rows_of_step(root, step, len(rows.y), BATCH))
        drop = {"dropout": jax.random.fold_in(jax.random.fold_in(root, 1), step)}
        logits = model.apply(params, some.x, some.mask, deterministic=False, rngs=drop)
        return cross_entropy(logits, some.y)

    def observe(params: Any, variant: Any) -> jax.Array:
        return (model.apply(params, *data.test[::2]).argmax(-1) == data.test.y).mean()

    found = train_grid(
        lambda key, variant: model.init(key, rows.x[:2], rows.mask[:2]), loss, settings.listing_seeds,
        (ADAM_RATE,), per_epoch * settings.listing_epochs, observe=observe, every=per_epoch,
    )  # fmt: skip
    losses = np.asarray(found.losses)[0, :, 0].reshape(settings.listing_seeds, -1, per_epoch)
    accuracy = np.asarray(found.seen)[0, :, 0]
    last = accuracy[:, -1]
    return {
        "losses": losses.mean(-1).tolist(),
        "accuracy": accuracy.tolist(),
        "numbers": {
            "accuracy_mean": float(last.mean()),
            "accuracy_sd": float(last.std(ddof=1)),
            "majority": data.majority,
            "gain_over_majority": float(last.mean()) - data.majority,
            "article_accuracy_of_unnamed_data": PRINTED_ACCURACY,
        },
        "params": jax.tree.map(lambda a: np.asarray(a[0, 0, 0]), found.params),
    }


# The article's own code reads a batch in two dimensions as one sequence; ours keeps rows apart.
READINGS = {
    "rows_apart": lambda model, params, x: model.apply(params, x),
    "batch_as_one_sequence": lambda model, params, x: model.apply(params, x[None])[0],
}


def many_seeds(settings: Settings) -> dict[str, Any]:
    """L6: L5 on one random batch, ten steps, over many seeds, in both readings of the batch."""
    curve, found = np.array(PRINTED_LOSSES), {}
    numbers: dict[str, float] = {"seeds": settings.seeds}
    for name, losses in random_batch_losses(settings).items():
        quantiles = statistics.band(losses, LEVELS)
        found[name] = {"band": quantiles.tolist(), "losses": losses.tolist()}
        numbers[f"{name}_inside_95"] = statistics.share_inside(curve, quantiles[1], quantiles[3])
        numbers[f"{name}_inside_range"] = statistics.share_inside(curve, quantiles[0], quantiles[4])
    for kind in ("95", "range"):
        numbers[f"best_inside_{kind}"] = max(numbers[f"{name}_inside_{kind}"] for name in found)
    return {"levels": LEVELS, "article": PRINTED_LOSSES, "readings": found, "numbers": numbers}


def random_batch_losses(settings: Settings) -> dict[str, np.ndarray]:
    """Losses ``[seeds, 10]`` of each reading, before each update."""
    model = TransformerModel(hidden_dim=settings.hidden)

    def one(read, seed: jax.Array) -> jax.Array:
        kx, ky = jax.random.split(jax.random.fold_in(jax.random.key(0), seed))
        x = jax.random.normal(kx, (BATCH, model.input_dim))
        y = jax.random.randint(ky, (BATCH,), 0, model.output_dim)
        loss = lambda params, root, step, variant: cross_entropy(read(model, params, x), y)  # noqa: E731
        init = lambda key, variant: model.init(key, x)  # noqa: E731
        found = train_grid(init, loss, 1, (ADAM_RATE,), len(PRINTED_LOSSES), first_seed=seed)
        return found.losses[0, 0, 0]

    # One after the other: a hundred optimizer states side by side would take 2 GB.
    return {
        name: np.asarray(
            jax.jit(lambda n, r=read: jax.lax.map(lambda s: one(r, s), n))(
                jnp.arange(settings.seeds)
            )
        )
        for name, read in READINGS.items()
    }
