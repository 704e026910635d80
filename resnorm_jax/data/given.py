"""What is asked of a text that somebody types, before it is tokenized."""

from resnorm_jax.errors import UserError


def check_text(where: str, text: str) -> None:
    """Raise UserError, naming the place, unless a text holds something and is Unicode.

    A command line's bytes that are not UTF-8, and JSON's halves of pairs, are no text.
    """
    if not text.strip():
        raise UserError(f"{where}: no visible character; give a text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: character {error.start + 1} is no Unicode character; give the text in UTF-8"
        ) from None
