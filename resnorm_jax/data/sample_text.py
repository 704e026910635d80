"""Made-up sentiment sentences for smoke runs: no claim about language can be drawn from them."""

import random
from dataclasses import dataclass

from resnorm_jax.data.dataset import Dataset
from resnorm_jax.data.rows import Rows
from resnorm_jax.data.source import Source
from resnorm_jax.data.text import text_dataset
from resnorm_jax.schema import SEED, between, option

LABELS = ("negative", "positive")
SUBJECTS = ("the film", "this book", "the plot", "her performance", "the second act", "the music")
OPENERS = ("honestly", "in the end", "to my surprise", "as expected", "for once", "on the whole")
ADVERBS = ("really", "quite", "simply", "rather", "often", "truly")
WORDS = {
    "negative": ("dull", "clumsy", "tedious", "lifeless", "careless", "a waste of time"),
    "positive": ("moving", "graceful", "gripping", "lively", "clever", "a pleasure to follow"),
}


@dataclass(frozen=True)
class SampleTextOptions:
    """Options of the ``sample_text`` source."""

    train: int = option(512, "rows to learn from", between(2, 10**7))
    test: int = option(128, "rows to score on", between(2, 10**7))
    seed: int = option(0, "of the sentences", SEED)


def sentence(rand: random.Random, label: str) -> str:
    """Return one sentence; a third of them negate a word of the other class."""
    subject, opener, adverb = (
        words[int(rand.random() * len(words))] for words in (SUBJECTS, OPENERS, ADVERBS)
    )
    negated = rand.random() < 1 / 3
    words = WORDS[LABELS[(label == LABELS[1]) != negated]]
    verdict = words[int(rand.random() * len(words))]
    middle = f"{subject} was {'not ' if negated else ''}{adverb} {verdict}"
    return f"{opener} , {middle}" if rand.random() < 0.5 else middle


def _texts(rand: random.Random, count: int) -> Rows:
    labels = [LABELS[int(rand.random() * 2)] for _ in range(count)]
    labels[:2] = LABELS
    texts = [sentence(rand, label) for label in labels]
    return Rows(texts, labels, [f"sample_text:{i + 1}" for i in range(count)])


def load_sample_text(options: SampleTextOptions) -> Dataset:
    """Make the sentences, the same for the same options on every machine."""
    rand = random.Random(options.seed)
    train, test = _texts(rand, options.train), _texts(rand, options.test)
    encoding: dict[str, object] = {
        "tokenizer": "spaces",
        "max_length": 64,
        "text_column": "text",
        "label_column": "label",
    }
    return text_dataset("sample sentences", train, test, encoding, 1000)


SOURCE = Source(
    "sample_text",
    "made-up sentiment sentences, for smoke runs only",
    SampleTextOptions,
    load_sample_text,
)
