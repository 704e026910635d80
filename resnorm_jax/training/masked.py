"""What a model learns in masked pretraining: to tell what was masked from the rest of the row.

The same classifier, with a head for each position in place of that for the row: its parameters but the
head's are those that classification starts from.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnorm_jax.build import kernel_and_stride
from resnorm_jax.config import Config, PretrainConfig
from resnorm_jax.errors import UserError
from resnorm_jax.modules.classifier import SequenceClassifier
from resnorm_jax.modules.pooling import POOLING, Pooling
from resnorm_jax.ops.masks import valid_positions
from resnorm_jax.training.masking import mask_stretches, mask_tokens
from resnorm_jax.training.step import Batch, Sums

MASK_TOKENS = ("[MASK]", "<mask>")  # of vocabularies that have one; else padding stands for it
# What a tokenizer puts around the tokens of a text; never masked.
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "<s>", "</s>", "<pad>")
# Fields, and the kind of data that reads them.
READERS = {"masking": "tokens", "mean_length": "features"}
_SOURCE = "every position, for masked pretraining"


@cache
def every_position(class_token: bool, beside: tuple[str, ...]) -> Pooling:
    """Return the pooling that keeps all positions but those of learned tokens, which are put first."""
    first = int(class_token) + len(beside)
    return Pooling("positions", lambda x, mask: x[:, first:], _SOURCE, class_token, beside)


def positions_asked(length: int, rate: float) -> int:
    """Return of how many positions of a row logits are computed: one row in 30,000 has more chosen.

    Four deviations over the mean of a binomial distribution; what a row has beyond that is masked, and
    is not in the loss.
    """
    most = math.ceil(length * rate + 4 * math.sqrt(length * rate * (1 - rate)))
    return min(length, most)


@dataclass(frozen=True)
class Masked:
    """An objective of `StepOptions`: the loss of what was masked, and of that alone.

    Tokens: cross-entropy of the masked positions. Features: square error of the masked values, as
    scaled by channel.

    Attributes:
      kind: of the data: ``"tokens"`` or ``"features"``.
      how: rate and the rest.
      vocabulary: number of tokens.
      mask_token: id that stands for a masked one.
      special: ids that are never masked.

    Source: tokens as in Devlin et al. 2018 (arXiv 1810.04805); features as in Zerveas et al. 2021
    (arXiv 2010.02803), eq. 5. That classifiers of long sequences should be pretrained so on their own
    inputs: Amos et al. 2023 (arXiv 2310.02980).
    """

    kind: str
    how: PretrainConfig
    vocabulary: int = 0
    mask_token: int = 0
    special: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sums: of losses, of what was masked and, of tokens, of those told rightly."""
        return ("loss", "correct", "count") if self.kind == "tokens" else ("loss", "count")

    def sums(self, out: Mapping[str, jax.Array], batch: Batch) -> Sums:
        """Return sums over rows of what `applied` gives by row."""
        return {name: jnp.sum(out[name] * batch["weight"]) for name in self.names}

    def applied(self, apply: Callable[..., Any]) -> Callable[..., Any]:
        """Return the ``apply`` that masks, runs the model, and returns ``names`` by row, ``[B]``."""

        def masking(variables: Any, x: jax.Array, *args: Any, **how: Any) -> Any:
            given = dict(how)
            mask = args[0] if args else given.get("mask")
            dropout, own = jax.random.split(given["rngs"]["dropout"])
            given["rngs"] = {**given["rngs"], "dropout": dropout}
            valid = valid_positions(mask, given.get("lengths"), x.shape[1])
            valid = jnp.ones(x.shape[:2], bool) if valid is None else valid
            seen, chosen = self._masked(own, x, jnp.broadcast_to(valid, x.shape[:2]))
            if self.kind == "tokens":  # of other positions no logits are computed
                asked = positions_asked(x.shape[1], self.how.rate)
                flags, at = jax.lax.top_k(chosen.astype(jnp.int32), asked)
                chosen, given["at"], x = flags > 0, at, jnp.take_along_axis(x, at, 1)
            out = apply(variables, seen, *args, **given)
            out, *new = out if "mutable" in given else (out,)
            found = self._by_row(out, x, chosen)
            return (found, *new) if new else found

        return masking

    def _masked(
        self, key: jax.Array, x: jax.Array, valid: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        how = self.how
        if self.kind == "tokens":
            plain = how.masking == "plain"
            valid &= ~jnp.isin(x, jnp.array(self.special, x.dtype))
            return mask_tokens(key, x, valid, how.rate, self.vocabulary, self.mask_token, plain)
        rows, length, channels = x.shape
        drawn = mask_stretches(key, (rows, length, channels), how.rate, how.mean_length)
        chosen = drawn & valid[..., None]
        return jnp.where(chosen, 0, x), chosen

    def _by_row(self, out: jax.Array, x: jax.Array, chosen: jax.Array) -> dict[str, jax.Array]:
        if self.kind == "tokens":
            losses = optax.softmax_cross_entropy_with_integer_labels(out, x)
            right = (out.argmax(-1) == x) & chosen
            found = {"loss": jnp.where(chosen, losses, 0), "correct": right, "count": chosen}
        else:
            values = out.reshape(len(x), -1, x.shape[-1])[:, : x.shape[1]]
            errors = jnp.square(values - x)
            found = {"loss": jnp.where(chosen, errors, 0), "count": chosen}
        return {
            name: a.astype(jnp.float32).reshape(len(x), -1).sum(-1) for name, a in found.items()
        }


def masked_model(
    config: Config, model: SequenceClassifier, meta: Mapping[str, Any]
) -> tuple[SequenceClassifier, Masked]:
    """Return the model of the pretraining, and its objective.

    Raises:
      UserError: for a kind of data that cannot be masked, or a field that it does not read.
    """
    kind, how = meta["kind"], config.pretrain
    if kind == "images":
        raise UserError(
            "config.pretrain.updates: images are not masked here; it is for tokens and features"
        )
    for name, reader in READERS.items():
        if kind != reader and getattr(how, name) != getattr(PretrainConfig, name):
            raise UserError(f"config.pretrain.{name}: not read: the data are {kind}, not {reader}")
    if how.rate / (1 - how.rate) > how.mean_length:
        raise UserError(
            f"config.pretrain.rate: {how.rate} with stretches of mean length {how.mean_length} leaves "
            "less than a position between two; give a longer pretrain.mean_length"
        )
    words = list(meta["vocabulary"])
    mask_token = next((words.index(w) for w in MASK_TOKENS if w in words), 0)
    special = tuple(words.index(w) for w in SPECIAL if w in words)
    stride = kernel_and_stride(config.model, meta)[1]
    values = len(words) if kind == "tokens" else stride * int(np.prod(meta["shape"]))
    row = POOLING.get(model.pooling)
    plain: dict[str, Any] = {
        "head_activation": None, "head_norm": None, "head_bias": True, "token_dropout": 0.0,
    }  # fmt: skip
    return (
        model.clone(classes=values, pooling=every_position(row.class_token, row.beside), **plain),
        Masked(kind, how, len(words), mask_token, special),
    )
