"""What a family of pretrained models is: a row, from which its models are read and written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from resnorm_jax.interop.layouts import Rule
from resnorm_jax.registry import Registry

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """A field of their config that is one of our model's.

    Attributes:
      theirs: its name in their config.json.
      ours: the field of `resnorm_jax.config.ModelConfig`.
      default: its value where config.json has none.
      names: their value to ours, where they are not the same.
    """

    theirs: str
    ours: str
    default: Any = None
    names: Values | None = None


@dataclass(frozen=True)
class Joint:
    """An array that their files hold as several.

    Attributes:
      name: of it, as a rule says it, with prefix.
      parts: names in their files, with prefix.
      join: from the parts to it.
      split: from it to parts that `join` makes it of.
    """

    name: str
    parts: tuple[str, ...]
    join: Callable[..., np.ndarray]
    split: Callable[[np.ndarray], tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Family:
    """A row: one ``model_type`` of Hugging Face, or an architecture of it, as a model of this library.

    Attributes:
      name: their ``model_type``, unless that is given.
      source: paper, and the code whose values it gives.
      architecture: their class of a classifier.
      prefix: what stands before the names of all but the head in that class's files.
      kind: of the data: ``tokens`` or ``images``.
      settings: fields that both have.
      fixed: our fields that all models of the family share.
      required: their fields that must have these values: others are not read here.
      rules: where their modules stand here.
      read: further fields of ours from their config.
      write: further fields of theirs from ours, and what their classes do not take for granted.
      separator: the token that ends a text, for types of tokens.
      unread: patterns of names in their files that no classifier needs.
      heads: paths of ours that a checkpoint may lack: they are new then.
      joints: arrays that their files hold as several.
      model_type: theirs, of a row that is chosen by its architecture.
      derived: arrays in their files, by name without the prefix, that follow from our fields: where
        a file has one it is checked, and all are written.
    """

    name: str
    source: str
    architecture: str
    prefix: str
    settings: tuple[Setting, ...]
    fixed: Values
    rules: tuple[Rule, ...]
    kind: str = "tokens"
    required: Values = field(default_factory=dict)
    read: Callable[[Values], Values] = lambda config: {}
    write: Callable[[Values], Values] = lambda model: {}
    separator: str | None = None
    unread: tuple[str, ...] = ()
    heads: tuple[str, ...] = ("head", "head_hidden", "head_norm")
    joints: tuple[Joint, ...] = ()
    model_type: str | None = None
    derived: Callable[[Values], Mapping[str, np.ndarray]] = lambda model: {}


FAMILIES: Registry[Family] = Registry("model_type")

ACTIVATION_NAMES = {
    "gelu": "gelu",
    "relu": "relu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}
