"""Which parameters weight decay applies to, by their roles."""

import re
from typing import Any

import jax

from resnorm_jax.errors import check_choice
from resnorm_jax.planning.roles import ROLE_NAMES, parameter_roles


def decay_roles(text: str) -> frozenset[str]:
    """Return the roles that ``config.optimizer.decay`` lists, separated by commas or ``+``.

    Raises:
      UserError: for a role that is not known, naming the nearest.
    """
    names = [name.strip() for name in re.split("[,+]", text)]
    return frozenset(check_choice("config.optimizer.decay", name, ROLE_NAMES) for name in names)


def decay_mask(params: Any, roles: frozenset[str] = frozenset({"kernel"})) -> Any:
    """Return a tree of booleans: True where weight decay applies.

    Raises:
      ValueError: naming parameters that no rule of `ROLES` covers.
    """
    return jax.tree.map(lambda role: role in roles, parameter_roles(params))
