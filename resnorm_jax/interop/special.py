"""Arrays of a checkpoint that no rule can say: that follow from its config, or are several in one."""

from collections.abc import Iterator, Mapping

import jax.numpy as jnp
import numpy as np

from resnorm_jax.errors import UserError
from resnorm_jax.interop.family import Family, Joint, Values

Arrays = Mapping[str, np.ndarray]


def check_derived(family: Family, model: Values, tensors: Arrays) -> frozenset[str]:
    """Return the names of a checkpoint's arrays that follow from its config.

    Args:
      family: of the checkpoint.
      model: its fields, in our words.
      tensors: the checkpoint's arrays by name.

    Raises:
      UserError: for one that has other values than those that its formula gives.
    """
    known = set()
    for name, expected in family.derived(model).items():
        for full in {family.prefix + name, name} & set(tensors):
            known.add(full)
            found = tensors[full]
            rounding = max(1e-5, 2 * float(jnp.finfo(found.dtype).eps))
            same = found.shape == expected.shape and bool(
                np.all(np.abs(np.asarray(found, np.float32) - expected) <= rounding)
            )
            if not same:
                raise UserError(
                    f"{full}: its values are not those of the formula of {family.name!r} models; they "
                    "are computed here, so a model with others is not read"
                )
    return frozenset(known)


class Joined(Mapping[str, np.ndarray]):
    """A checkpoint's arrays, with those of `Family.joints` in place of their parts."""

    def __init__(self, family: Family, tensors: Arrays) -> None:
        """Look which joints have all their parts."""
        self._tensors = tensors
        self._joints = {j.name: j for j in family.joints if set(j.parts) <= set(tensors)}

    def __getitem__(self, name: str) -> np.ndarray:
        joint = self._joints.get(name)
        if joint is None:
            return self._tensors[name]
        return joint.join(*(np.asarray(self._tensors[part], np.float32) for part in joint.parts))

    def __contains__(self, name: object) -> bool:
        inside = any(name in joint.parts for joint in self._joints.values())
        return name in self._joints or (name in self._tensors and not inside)

    def __iter__(self) -> Iterator[str]:
        inside = {part for joint in self._joints.values() for part in joint.parts}
        yield from (name for name in self._tensors if name not in inside)
        yield from self._joints

    def __len__(self) -> int:
        return sum(1 for _ in self)


def written(family: Family, model: Values, tensors: Arrays) -> dict[str, np.ndarray]:
    """Return arrays as a checkpoint holds them: joints in parts, and those that follow from fields."""
    joints: dict[str, Joint] = {joint.name: joint for joint in family.joints}
    out = {family.prefix + name: array for name, array in family.derived(model).items()}
    for name, array in tensors.items():
        joint = joints.get(name)
        out |= (
            {name: array}
            if joint is None
            else dict(zip(joint.parts, joint.split(array), strict=True))
        )
    return out
