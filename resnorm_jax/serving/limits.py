"""What a server takes, and how it says no."""

from collections.abc import Mapping
from dataclasses import dataclass

from resnorm_jax.schema import from_zero, option, over_zero


@dataclass(frozen=True)
class Limits:
    """Limits of `resnorm serve`; each is an option of the command."""

    batch: int = option(16, "most rows that are computed together", over_zero(1024))
    rows: int = option(64, "most rows of a request", over_zero(2**20))
    body: int = option(2**20, "most bytes of a request", over_zero(2**30))
    characters: int = option(100_000, "most characters of a text", over_zero(2**30))
    queue: int = option(256, "most rows that wait for the model", over_zero(2**20))
    timeout: float = option(10.0, "seconds until a request is given up", over_zero(3600))
    connections: int = option(512, "most connections at a time", over_zero(2**16))
    lengths: int = option(4, "most padded lengths to compile for", over_zero(64))
    drain: float = option(30.0, "seconds for waiting requests after a signal", from_zero(3600))


class Refused(Exception):  # noqa: N818 - it is an answer, not a fault
    """A request that is answered with a status over 399 and one line.

    Attributes:
      status: of HTTP.
      field: of the request, or "".
      message: the line, without the field.
      headers: of the answer.
    """

    def __init__(
        self, status: int, message: str, field: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, message, field)
        self.status, self.message, self.field = status, message, field
        self.headers = dict(headers or {})

    @property
    def line(self) -> str:
        """The field and the message."""
        return f"{self.field}: {self.message}" if self.field else self.message


BUSY = {"Retry-After": "1"}
