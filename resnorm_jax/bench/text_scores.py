"""A pretrained encoder, fine-tuned, beside what costs less: on one's own texts."""

import csv
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from resnorm_jax.data.checks import check_file
from resnorm_jax.runs import load_config, train

FILES = ("train", "valid", "test")
PACKAGES = ("scikit-learn", "tokenizers")
SPEED = "speed"
UPDATES = 40  # that are done beside torch
BATCH = 64  # rows that a frozen encoder sees at once


@dataclass(frozen=True)
class Texts:
    """What is scored on.

    Attributes:
      folder: of train.csv, valid.csv and test.csv, with the columns text and label.
      init_from: folder of a checkpoint, or None to leave out what needs one.
      seeds: of what is trained.
      quick: whether training ends after two steps.
    """

    folder: Path
    init_from: Path | None = None
    seeds: int = 3
    quick: bool = False

    def file(self, split: str) -> str:
        """Return the path of a split; UserError where there is none."""
        path = str(self.folder / f"{split}.csv")
        check_file("--data", path)
        return path

    def rows(self, split: str) -> tuple[list[str], list[str]]:
        """Return the texts and labels of a split."""
        with open(self.file(split), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [row["text"] for row in rows], [row["label"] for row in rows]


@dataclass(frozen=True)
class Contender:
    """A way to classify.

    Attributes:
      name: for people.
      score: the accuracy on the test rows.
      seeded: whether a seed changes it.
      applies: whether it is for such texts.
    """

    name: str
    score: Callable[[Texts, int], float]
    seeded: bool = False
    applies: Callable[[Texts], bool] = lambda texts: True


def _majority(texts: Texts, seed: int) -> float:
    _, labels = texts.rows("train")
    names, counts = np.unique(labels, return_counts=True)
    return float(np.mean(np.array(texts.rows("test")[1]) == names[counts.argmax()]))


def _tf_idf(texts: Texts, seed: int, analyzer: str = "word") -> float:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return _fitted(texts, TfidfVectorizer(ngram_range=(1, 2), analyzer=analyzer))


def _by_place(texts: Texts, seed: int, machine: bool = False) -> float:
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
    from sklearn.svm import SVC

    words = FunctionTransformer(lambda rows: np.array([row.split() for row in rows]))
    return _fitted(
        texts, words, OneHotEncoder(handle_unknown="ignore"), last=SVC() if machine else None
    )


def _fitted(texts: Texts, *features: Any, last: Any = None) -> float:
    """Return what ``last`` scores on these features, a logistic regression if there is none."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(*features, last or LogisticRegression(max_iter=1000))
    return float(model.fit(*texts.rows("train")).score(*texts.rows("test")))


def _one_length(texts: Texts) -> bool:
    """Whether every row has the same number of words, so that a place means something."""
    return len({len(row.split()) for split in FILES for row in texts.rows(split)[0]}) == 1


def _of_words(texts: Texts) -> bool:
    """Whether a word has two letters; scikit-learn's words have no fewer."""
    return any(len(word) > 1 for row in texts.rows("train")[0] for word in row.split())


def _with_encoder(texts: Texts) -> bool:
    return texts.init_from is not None


def _frozen(texts: Texts, seed: int) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    assert texts.init_from is not None
    embed = _embedder(texts.init_from)
    (x, y), (x_test, y_test) = texts.rows("train"), texts.rows("test")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, C=0.01))
    return float(model.fit(embed(x), y).score(embed(x_test), y_test))


def _embedder(folder: Path) -> Callable[[list[str]], np.ndarray]:
    """Return the function from texts to a checkpoint's pooled vectors ``[N, D]``."""
    import jax
    from tokenizers import Tokenizer

    from resnorm_jax.interop.pretrained import from_pretrained

    model, variables = from_pretrained(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(128)
    apply = jax.jit(model.apply)

    def pooled(rows: list[list[int]]) -> np.ndarray:
        length = -(-max(map(len, rows)) // 16) * 16  # few lengths, hence few programs
        ids = np.zeros((BATCH, length), np.int32)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
        lengths = np.array([*map(len, rows), *[1] * (BATCH - len(rows))])
        return np.asarray(apply(variables, ids, np.arange(length) < lengths[:, None]))[: len(rows)]

    def embed(texts: list[str]) -> np.ndarray:
        ids = [found.ids for found in tokenizer.encode_batch(texts)]
        order = np.argsort([len(row) for row in ids], kind="stable")
        parts = [order[n : n + BATCH] for n in range(0, len(order), BATCH)]
        out = np.concatenate([pooled([ids[i] for i in part]) for part in parts])
        return out[np.argsort(order)]

    return embed


def _trained(config: str, texts: Texts, seed: int, settings: dict[str, Any]) -> float:
    """Train a config; the checkpoint that is best on the validation rows is scored."""
    given = {
        **{f"data.{split}": texts.file(split) for split in FILES},
        "seed": seed, "train.select": "best", **settings,
    }  # fmt: skip
    if texts.quick:
        given |= {"train.steps": 2, "train.evaluate_every": 2}
    with tempfile.TemporaryDirectory(prefix="resnorm_jax-") as folder:
        report = train(load_config(config, given), Path(folder) / "run")
    return float(report["seeds"][0]["accuracy"])


def _from_scratch(texts: Texts, seed: int, argument: str = "") -> float:
    return _trained(f"text:{argument}" if argument else "text", texts, seed, {})


def _fine_tuned(texts: Texts, seed: int) -> float:
    return _trained("finetune", texts, seed, {"init_from": str(texts.init_from)})


CONTENDERS = (
    Contender("majority class", _majority),
    Contender("TF-IDF of 1 and 2 words, logistic regression", _tf_idf, applies=_of_words),
    Contender(
        "TF-IDF of 1 and 2 characters, logistic regression", partial(_tf_idf, analyzer="char")
    ),
    Contender("words by their place, logistic regression", _by_place, applies=_one_length),
    Contender(
        "words by their place, support vector machine", partial(_by_place, machine=True),
        applies=_one_length,
    ),
    Contender("the encoder frozen, logistic regression", _frozen, applies=_with_encoder),
    Contender("configs/finetune.py", _fine_tuned, seeded=True, applies=_with_encoder),
    Contender("configs/text.py, from scratch", _from_scratch, seeded=True),
    Contender(
        "configs/text.py:subwords, from scratch", partial(_from_scratch, argument="subwords"), True
    ),
    Contender(
        "configs/text.py:places, from scratch", partial(_from_scratch, argument="places"), True,
        _one_length,
    ),
)  # fmt: skip


def cases(texts: Texts) -> Iterator[tuple[Contender, int]]:
    """Yield who is scored, with each seed."""
    for contender in (each for each in CONTENDERS if each.applies(texts)):
        for seed in range(texts.seeds if contender.seeded else 1):
            yield contender, seed


def score_row(texts: Texts, contender: Contender, seed: int) -> dict[str, Any]:
    """Return the accuracy on the test rows, which choose nothing, and the seconds that it took."""
    began = time.monotonic()
    return {
        "classifier": contender.name,
        "seed": seed,
        "accuracy": contender.score(texts, seed),
        "seconds": round(time.monotonic() - began, 1),
    }


def beside_torch(texts: Texts) -> dict[str, Any] | None:
    """Return the losses and speeds of configs/finetune.py here and in torch; None if it is no BERT."""
    import json

    from resnorm_jax.bench import torch_peer
    from resnorm_jax.bench.finetune_peer import SETTINGS, Sides, bare, beside

    assert texts.init_from is not None
    about = json.loads((texts.init_from / "config.json").read_text(encoding="utf-8"))
    if about.get("model_type") != "bert" or torch_peer.unavailable():
        return None
    with tempfile.TemporaryDirectory(prefix="resnorm_jax-") as folder:
        given = {
            **SETTINGS, **{f"data.{split}": texts.file(split) for split in FILES},
            "init_from": str(bare(texts.init_from, Path(folder) / "bare")),
        }  # fmt: skip
        sides = Sides(load_config("finetune", given), UPDATES)
        return beside(sides, 3 if texts.quick else UPDATES)
