"""What is measured: norms by shape and dtype, and models by size, on an accelerator and on a CPU."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from resnorm_jax.bench.model import Size

LAYER, RMS = "layer", "rms"
ADDED = "add+"  # before the name of a norm: the skip addition and the norm, both results wanted
# How often the array is read or written if nothing is read twice. A norm reads x and writes y; going
# backward it reads x and dy and writes dx. With the addition it reads the stream and the branch and
# writes the sum and y; going backward it reads the sum and both gradients and writes one.
PASSES = {
    LAYER: {"forward": 2, "backward": 3, "both": 5},
    ADDED: {"forward": 4, "backward": 4, "both": 8},
}


@dataclass(frozen=True)
class NormCase:
    """One norm on one array.

    Attributes:
      norm: ``"layer"``, ``"rms"``, ``"add+layer"`` or ``"add+rms"``.
      shape: rows and width.
      dtype: of the input and of the result.
    """

    norm: str
    shape: tuple[int, int]
    dtype: str = "float32"

    @property
    def key(self) -> str:
        """The name of this case in a results file."""
        return f"{self.norm} {self.shape[0]}x{self.shape[1]} {self.dtype}"

    @property
    def added(self) -> bool:
        """Whether the skip addition is part of it."""
        return self.norm.startswith(ADDED)

    @property
    def kind(self) -> str:
        """``"layer"`` or ``"rms"``."""
        return self.norm.removeprefix(ADDED)

    def moved(self, direction: str) -> int:
        """Bytes that this direction has to move; the parameters and the statistics are left out."""
        passes = PASSES[ADDED if self.added else LAYER][direction]
        itemsize = {"float32": 4, "bfloat16": 2, "float16": 2}[self.dtype]
        return passes * itemsize * self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class Model:
    """A classifier whose training step is measured.

    Attributes:
      name: of the results' row.
      size: of the model and its batch.
      dtype: of the computation; parameters are float32.
      accelerator: whether it takes too long on a CPU, and is left out there.
      variants: whether the layers are measured scanned and unrolled, whichever is not the default.
    """

    name: str
    size: Size
    dtype: str = "float32"
    accelerator: bool = False
    variants: bool = True

    @property
    def key(self) -> str:
        """The name of this model in a results file."""
        return f"{self.name} {self.dtype}"


# Some 67 million elements each, too many for any cache, but for 16384x768, a training batch.
WIDE = (
    (16384, 4096), (65536, 1024), (87381, 768), (131072, 512), (8192, 8192), (4096, 16384),
    (61681, 1088), (66000, 1017), (262144, 256), (32768, 2048), (16387, 4095), (16384, 768),
)  # fmt: skip
SMALL = ((4096, 256), (4096, 512), (2048, 1024), (1024, 4096), (256, 16384), (2047, 1017))
TINY = ((7, 33),)
FIRST = 16
BERT = Model("bert_base", Size(12, 768, 12, 3072, 32, 512), "bfloat16", accelerator=True)
MODELS = (
    BERT,
    Model("4x256", Size()),
    Model("16x1344", Size(3, 64, 8, 256, 16, 1344, channels=1), variants=False),
)


def norm_cases(accelerator: bool) -> list[NormCase]:
    """Return the norms to measure, the `FIRST` most telling first: there may be no time for all."""
    if not accelerator:
        return list(_few(SMALL, ((4096, 512), (1024, 4096))))
    telling = [
        *(NormCase(LAYER, shape, "bfloat16") for shape in WIDE[:9]),
        *(NormCase(RMS, shape, "bfloat16") for shape in WIDE[:2]),
        NormCase(LAYER, WIDE[0], "float32"),
        *(NormCase(ADDED + kind, WIDE[i], "bfloat16") for kind in (LAYER, RMS) for i in (0, 2)),
    ]
    return list(dict.fromkeys([*telling, *_every(WIDE)]))


def quick_norm_cases() -> list[NormCase]:
    """Return tiny cases, at least one of each kind and dtype."""
    return list(_few(TINY, TINY))


def quick_models() -> tuple[Model, ...]:
    """Return two models in tiny sizes; only the first has variants, each of which is compiled."""
    tiny = replace(BERT, size=Size(2, 16, 2, 32, 4, 8, channels=3), accelerator=False)
    return tiny, replace(tiny, name="4x256", dtype="float32", variants=False)


def _every(shapes: Sequence[tuple[int, int]]) -> Iterator[NormCase]:
    for dtype in ("bfloat16", "float32"):
        for kind in (LAYER, RMS):
            yield from (NormCase(kind, shape, dtype) for shape in shapes)


def _few(shapes: Sequence[tuple[int, int]], again: Sequence[tuple[int, int]]) -> Iterator[NormCase]:
    """Yield both norms in float32; some shapes in bfloat16 and with the addition too."""
    for kind in (LAYER, RMS):
        yield from (NormCase(kind, shape) for shape in shapes)
    for kind in (LAYER, RMS):
        yield from (NormCase(kind, shape, "bfloat16") for shape in again)
        yield NormCase(ADDED + kind, again[0])
