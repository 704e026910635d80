"""What is changed of a model: its norm, or its arrangement."""

from dataclasses import dataclass, replace
from typing import Any

from resnorm_jax import norms
from resnorm_jax.arrangements import SLOTS
from resnorm_jax.build import check_names
from resnorm_jax.config import Config
from resnorm_jax.errors import UserError

FIELDS = ("norm", "arrangement")


@dataclass(frozen=True)
class Change:
    """One field of a model's config, and its new value.

    Attributes:
      field: of `FIELDS`.
      value: a name.
      widen: whether feed-forward layers become wider, so that ``norm=rms`` is exact for Post-LN.
    """

    field: str
    value: str
    widen: bool = False

    def __str__(self) -> str:
        return f"{self.field}={self.value}"

    def config(self, config: Config) -> Config:
        """Return the config of the changed model.

        A norm takes the place of ``model.norm``, and of every slot's own norm that is the same.

        Raises:
          UserError: for what no table has or does not fit, and for a model that is so already.
        """
        before = getattr(config.model, self.field)
        fields: dict[str, Any] = {self.field: self.value}
        if self.field == "norm":
            fields |= {s: self.value for s in SLOTS if getattr(config.model, s) == before}
            if self.value in norms.names() and norms.get(self.value).epsilon is None:
                fields["norm_epsilon"] = None
        if self.widen:
            fields["mlp_width"] = self._wider(config)
        new = replace(config, model=replace(config.model, **fields))
        try:
            check_names(new.model)
        except UserError as error:
            raise UserError(f"--to: {error}") from None
        if self.value == before:
            raise UserError(f"--to: the run has {self} already; name another")
        if self.field == "norm" and norms.get(self.value).across_rows:
            raise UserError(
                f"--to: {self}: its statistics run over rows, which this command does not gather; "
                "name another norm"
            )
        return new

    def _wider(self, config: Config) -> int:
        """Return the hidden units with which the change is exact."""
        if str(self) != "norm=rms" or config.model.norm not in ("layer", "layer_no_bias"):
            raise UserError(
                f"--widen: not read with {self} of norm {config.model.norm}; it is for --to=norm=rms "
                "of layer norms"
            )
        width = config.model.width
        return (config.model.mlp_width or 4 * width) + 2 * (width - 1)


def read_change(text: str, widen: bool = False) -> Change:
    """Return the change of ``norm=NAME`` or ``arrangement=NAME``.

    Raises:
      UserError: for another text.
    """
    field, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not value or field not in FIELDS:
        raise UserError(f"--to: {text!r}; write norm=NAME or arrangement=NAME, e.g. norm=rms")
    return Change(field, value, widen)
