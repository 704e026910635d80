"""``resnorm convert``: a run as a Hugging Face checkpoint, or a checkpoint in this library's format."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.errors import UserError
from resnorm_jax.schema import KEY_SEED

if TYPE_CHECKING:
    from resnorm_jax.training.saved_run import Trained

ABOUT = (
    "Write a run as a Hugging Face checkpoint, which transformers loads; or a Hugging Face checkpoint "
    "in this library's format, which rn.from_pretrained loads: resnorm.json and model.safetensors, "
    "with arrays named by their paths. A run's program, or its parameters alone for other programs, is "
    "written by resnorm export."
)


def main(argv: list[str]) -> int:
    """Convert a run or a checkpoint."""
    parser = Parser(prog="resnorm convert", description=ABOUT)
    parser.add_argument("source", type=Path, help="run directory, or folder of a checkpoint")
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    parser.add_argument(
        "--family", help="model_type to write a run as; the one that fits if left out"
    )
    parser.add_number("--seed", int, KEY_SEED, help="which seed's checkpoint; the first")
    parser.add_argument("--checkpoint", choices=("best", "last"), help="as scored if left out")
    chosen = parser.parse_args(argv)
    from resnorm_jax.interop.files import check_new, exists

    check_new(chosen.output)
    if exists(chosen.source / "checkpoints"):
        _of_run(chosen)
    else:
        parser.not_read(chosen, ("family", "seed", "checkpoint"), "for a checkpoint")
        _of_checkpoint(chosen)
    return 0


def _of_run(chosen: argparse.Namespace) -> None:
    with ending_at_once():
        from resnorm_jax.interop.pretrained import save_pretrained
        from resnorm_jax.training.saved_run import load_trained

    trained = load_trained(chosen.source, chosen.seed, chosen.checkpoint)
    family = chosen.family or _family(trained)
    shape = trained.meta["shape"]
    save_pretrained(
        chosen.output,
        trained.config.model,
        trained.variables,
        trained.classes,
        family=family,
        channels=shape[-1] if shape else 3,
        beside=_tokenizers(trained),
        task=trained.task.name,
    )
    print(f"{chosen.output}: a {family!r} checkpoint of {len(trained.classes)} classes")


def _tokenizers(trained: "Trained") -> list[Path]:
    """Return the folders of a run's tokenizer: its own; its checkpoint's where that is the same."""
    own, name = trained.workdir / "tokenizer.json", "tokenizer.json"
    theirs = Path(trained.config.init_from or "") / name
    same = theirs.is_file() and own.is_file() and theirs.read_bytes() == own.read_bytes()
    return [trained.workdir, *([theirs.parent] if same else [])]


def _family(trained: "Trained") -> str:
    """Return the family that a run's model is of: its checkpoint's, or the first that fits."""
    from resnorm_jax.interop.config_json import describe_checkpoint, their_config
    from resnorm_jax.interop.families import FAMILIES

    if trained.config.init_from is not None:
        try:
            return describe_checkpoint(trained.config.init_from).family.name
        except UserError:
            pass  # the folder is gone; the model says enough
    why = ""
    for family in FAMILIES.rows():
        try:
            their_config(family, trained.config.model, trained.classes)
        except UserError as error:
            why = why or f"; as {family.name!r}: {error}"
        else:
            return family.name
    raise UserError(f"{trained.workdir}: no family of Hugging Face has such a model{why}")


def _of_checkpoint(chosen: argparse.Namespace) -> None:
    with ending_at_once():
        from resnorm_jax.interop.config_json import describe_checkpoint
        from resnorm_jax.interop.own_format import write_own
        from resnorm_jax.interop.pretrained import from_pretrained

    described = describe_checkpoint(chosen.source)
    _, variables = from_pretrained(chosen.source)
    write_own(
        chosen.output, described.model(), described.meta(), variables["params"], described.classes
    )
    print(f"{chosen.output}: {described.family.name!r} model in this library's format")
