"""The fields of a config: frozen dataclasses, each field with its meaning and its range."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from resnorm_jax.arrangements import DEFAULT
from resnorm_jax.ops.attention import IMPLEMENTATIONS
from resnorm_jax.ops.attention.relative import RELATIVE
from resnorm_jax.schema import (
    FRACTION,
    KEY_SEED,
    POSITIVE,
    SHARE,
    Rule,
    from_zero,
    option,
    over_zero,
)
from resnorm_jax.sizes import RATE, SIZES, STEPS


@dataclass(frozen=True)
class ModelConfig:
    """The model; fields as in `TransformerEncoder` and `SequenceClassifier`."""

    width: int = option(64, "of the stream", SIZES["width"])
    depth: int = option(3, "layers", SIZES["depth"])
    layer_groups: int | None = option(
        None, "layers with parameters of their own, each applied several times in a row; all",
        SIZES["layer_groups"],
    )  # fmt: skip
    heads: int = option(4, "of attention", SIZES["heads"])
    mlp_width: int | None = option(
        None, "inside the feed-forward layer; 4 * width", SIZES["mlp_width"]
    )
    arrangement: str = option(DEFAULT, "where norms stand and how branches are added")
    norm: str = option(
        "layer", "of every slot that is not given: a name, or one a layer: layer*2+rms"
    )
    norm_epsilon: float | None = option(None, "the norm's own if not given", SIZES["norm_epsilon"])
    embedding_norm: str | None = option(
        None, "slot: the embedding; a slot's norm stands in place of norm"
    )
    norm_before: str | None = option(None, "slot: the input of a branch")
    attention_norm_before: str | None = option(
        None, "slot: the input of attention alone; none*1+layer leaves the first layer without one"
    )
    norm_after: str | None = option(None, "slot: the output of a branch")
    norm_on_stream: str | None = option(None, "slot: the stream after the addition")
    final_norm: str | None = option(None, "slot: after the last layer")
    query_key_norm: str | None = option(
        None, "slot: queries and keys, head by head or all together"
    )
    value_norm: str | None = option(None, "slot: values, head by head")
    heads_norm: str | None = option(None, "slot: joined heads, before the output projection")
    mlp_norm: str | None = option(
        None, "slot: before the last projection of the feed-forward layer"
    )
    parallel_norm: str | None = option(
        None, "slot: the input of each of several branches in parallel"
    )
    stream: str | None = option(None, "how branches are added; the arrangement's")
    query_key: str | None = option(None, "how queries and keys are scaled; the arrangement's")
    activation: str = option("gelu", "of the feed-forward layer")
    dropout: float = option(0.1, "of embeddings and branches", SHARE)
    token_dropout: float = option(0.0, "of whole tokens, before positions are told", SHARE)
    attention: str = option(
        "auto",
        "how attention is computed: all queries at once (xla), few at a time (chunked), by NVIDIA's "
        "kernel (cudnn), or what suits the longest sequence (auto)",
        choices=("auto", *IMPLEMENTATIONS),
    )
    attention_dropout: float = option(0.0, "of attention weights", SHARE)
    kv_heads: int | None = option(
        None, "of keys and values; as many as heads if not given", SIZES["kv_heads"]
    )
    head_width: int | None = option(
        None, "features of a head; width / heads if not given", SIZES["head_width"]
    )
    attention_scale: float | None = option(
        None, "factor on scores; 1 / sqrt(head_width) if not given", SIZES["attention_scale"]
    )
    causal: bool = option(False, "whether a position sees no later ones")
    window: str = option(
        "all", "positions seen to either side: all, a number, or by layer, repeated: all+64*2"
    )
    rotary_base: str | None = option(
        None, "of rotary positions: a number, or by layer, repeated: 160000+10000*2; 10000"
    )
    relative: str = option(
        "none", "relative positions in the scores", choices=("none", *RELATIVE.names())
    )
    relative_buckets: int | None = option(
        None,
        "of relative positions; their own if not given; with grid, patches along a side of the images",
        SIZES["relative_buckets"],
    )
    relative_by_layer: bool = option(
        False, "whether each layer has a table of relative positions of its own"
    )
    relative_positions: int | None = option(
        None, "distance from which they are alike; their own if not given",
        SIZES["relative_positions"],
    )  # fmt: skip
    use_bias: str = option(
        "all", "projections with a bias: all, none, or some: query+key+value+out+fc1+fc2"
    )
    drop_path: float = option(
        0.0, "of a branch, in the last layer; in layer l, l / depth of it", SIZES["drop_path"]
    )
    positions: str = option("learned", "how positions are told")
    max_length: int | None = option(
        None, "positions of the stream; the longest sequence of the data", over_zero(10**7)
    )
    position_offset: int | None = option(
        None,
        "learned positions only: rows of their table before the first position",
        from_zero(1024),
    )
    vocabulary: int | None = option(
        None, "tokens only: rows of the embedding; as many as the data's tokens", over_zero(10**8)
    )
    token_types: int | None = option(
        None, "tokens only: types of tokens that a vector is added for", over_zero(1024)
    )
    separator: int | None = option(
        None, "tokens only: id that ends the first of two texts, for token_types", from_zero(10**8)
    )
    padding: int | None = option(
        None, "tokens only: id of padding, which some models that this one is written as look for",
        from_zero(10**8),
    )  # fmt: skip
    embedding_width: int | None = option(
        None, "of the embeddings, which are then projected to the stream", SIZES["width"]
    )
    embedding_multiplier: float | None = option(
        None, "tokens only: factor on the embeddings", over_zero(1e6)
    )
    embedding_std: float | None = option(
        None, "tokens only: of the embeddings at first; the arrangement's, mostly 1, if not given",
        over_zero(1e3),
    )  # fmt: skip
    pooling: str | None = option(
        None,
        "from positions to one vector; mean, or what the weights of init_from were trained with",
    )
    head_activation: str | None = option(
        None, "of a hidden layer before the last projection; no such layer"
    )
    head_norm: str | None = option(None, "norm after that layer; none")
    head_hidden_bias: bool = option(True, "whether that layer has a bias")
    head_bias: bool = option(True, "whether the last projection has a bias")
    patch: int | None = option(
        None, "images only: side of a patch, 2 if not given", over_zero(1024)
    )
    kernel: int | None = option(
        None,
        "features only: positions that a token sees; as many as stride if not given",
        over_zero(1024),
    )
    stride: int | None = option(
        None,
        "features only: positions from one token to the next; if neither it nor kernel is given, 1, or "
        "what leaves the longest row at most 512 tokens",
        over_zero(1024),
    )
    unroll: int | Literal["auto"] = option(
        "auto",
        "layers unrolled in each step of the scan, or what suits the backend and the depth (auto)",
        SIZES["depth"],
        choices=("auto",),
    )
    remat: str = option("none", "what the backward pass computes again")
    remat_every: int = option(1, "layers between carries that are kept, with remat", SIZES["depth"])


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer; None leaves an algorithm's own default, a value it does not read is an error."""

    algorithm: str = option("adamw", "of the update")
    learning_rate: float = option(1e-3, "largest", RATE)
    schedule: str = option("cosine", "of the learning rate")
    warmup: float = option(0.0, "share of all steps", SHARE)
    weight_decay: float | None = option(None, "the algorithm's own if not given", from_zero(1e6))
    decay: str = option("kernel", "roles that decay, by comma or +: see resnorm_jax.training.roles")
    b1: float | None = option(None, "decay of the mean gradient", SHARE)
    b2: float | None = option(None, "decay of the mean square", SHARE)
    epsilon: float | None = option(None, "added to the root of the mean square", from_zero(1e6))
    momentum: float | None = option(None, "decay of the velocity", SHARE)
    clip: float | None = option(1.0, "largest global norm of the gradient", over_zero(1e30))
    unit_weights: bool = option(False, "kernels of unit length after every update, as nGPT's")
    layer_decay: float = option(
        1.0,
        "d: the learning rate of layer l of N is times d^(N + 1 - l); embeddings are layer 0, the "
        "head N + 1",
        Rule(0, 1, ("low",)),
    )
    frozen: str | None = option(
        None,
        "what is not trained, by comma or +: embeddings, encoder, norms, head, layers:1-3, or roles as "
        "in decay",
    )
    lora_rank: int | None = option(
        None,
        "of matrices A B beside frozen kernels, trained, with the head, in place of the model",
        over_zero(65_536),
    )
    lora_alpha: float | None = option(
        None, "A B is times lora_alpha / lora_rank; the rank if not given", over_zero(1e6)
    )
    lora_on: str = option(
        "query,value", "kernels, by comma or +: query, key, value, out, fc1, gate, fc2"
    )


@dataclass(frozen=True)
class TrainConfig:
    """The run."""

    batch_size: int = option(
        32, "rows of a global batch, over all devices and micro-batches", over_zero(2**20)
    )
    epochs: int = option(50, "passes over the training rows", over_zero(10**7))
    steps: int | None = option(None, "in place of epochs", STEPS)
    accumulate: int = option(1, "micro-batches per step", over_zero(2**20))
    updates_per_call: int = option(
        1,
        "updates that one call of the compiled step does, where nothing is logged, scored or saved "
        "between them; for models so small that the call itself takes long",
        over_zero(1000),
    )
    label_smoothing: float = option(0.0, "share of the target spread over all classes", SHARE)
    precision: str = option("float32", "of the computation", choices=("float32", "bfloat16"))
    ema: float | None = option(
        None, "decay of the averaged parameters, which are then evaluated", SHARE
    )
    validation: float = option(0.0, "share of the training rows held out, by class", SHARE)
    patience: int | None = option(
        None,
        "evaluations of the validation rows, one after the other and none better than the best, after "
        "which training stops",
        POSITIVE,
    )
    class_weights: str = option(
        "none",
        "of the rows in the loss: all alike, or such that every class has the same sum (balanced)",
        choices=("none", "balanced"),
    )
    threshold: float | Literal["validation", "validation_micro"] = option(
        0.5,
        "where rows have any number of labels: probability from which a row has one; or found on the "
        "validation rows, for each label that with most F1 (validation), or for all labels the one "
        "with most micro F1 (validation_micro)",
        Rule(0, 1, ("low", "high")),
        choices=("validation", "validation_micro"),
    )
    select: str = option(
        "last",
        "which checkpoint is scored: the last, or the best on the validation rows: by accuracy, or by "
        "micro F1 at 0.5 where rows have any number of labels; then by loss",
        choices=("last", "best"),
    )
    score: str = option(
        "test",
        "rows scored at the end: test, or validation while choosing",
        choices=("test", "validation"),
    )
    log_every: int = option(10, "steps", POSITIVE)
    evaluate_every: int | None = option(
        None, "steps; once an epoch, but at most 50 times a run", POSITIVE
    )
    checkpoint_every: int = option(200, "steps", POSITIVE)
    keep: int = option(2, "newest checkpoints that stay", POSITIVE)
    keep_every: int | None = option(
        None, "steps; checkpoints at multiples of it stay for good", POSITIVE
    )
    keep_best: int = option(1, "best checkpoints that stay, with select=best", POSITIVE)
    buckets: int = option(
        8,
        "most padded lengths; fewer where a length saves less than the time to compile for it",
        over_zero(1000),
    )
    scale: bool = option(
        True, "features: zero mean and unit variance by channel, from training rows"
    )
    deterministic: bool = option(
        True,
        "on a GPU: only operations, and a choice of kernels, that give the same bits each time",
    )
    any_devices: bool = option(
        False, "go on with another number of devices also where that changes the numbers"
    )
    nonfinite: str = option(
        "abort",
        "what a step that is not finite does: abort; skip it; or rollback to the last checkpoint and "
        "pass over the batches from there to it",
        choices=("abort", "skip", "rollback"),
    )
    max_rollbacks: int = option(3, "of a seed's run, with nonfinite=rollback", from_zero(1000))
    watchdog: float = option(
        3600.0,
        "seconds without a step, a batch of an evaluation or a save, after which the process ends; "
        "0 for never",
        from_zero(1e9),
    )


@dataclass(frozen=True)
class PretrainConfig:
    """Pretraining on the inputs of the training rows, without their labels, before classification."""

    updates: int | None = option(
        None,
        "steps in which the model learns to tell what was masked; none if not given",
        STEPS,
    )
    rate: float = option(0.15, "share of the valid positions that is masked", FRACTION)
    masking: str = option(
        "bert",
        "tokens only: of those chosen 80 % are masked, 10 % random, 10 % kept (bert); or all masked "
        "(plain)",
        choices=("bert", "plain"),
    )
    mean_length: float = option(
        3.0, "features only: of a masked stretch of a channel, in positions", Rule(1, 1e6)
    )
    peak_rate: float | None = option(
        None, "largest learning rate; the optimizer's if not given", RATE
    )


@dataclass(frozen=True)
class MeshConfig:
    """How devices are arranged where ``parallel`` is ``sharded``; see `training.partition`."""

    fsdp: int | None = option(
        None,
        "devices that share out each parameter and its optimizer state; all that tensor leaves",
        over_zero(10**5),
    )
    tensor: int = option(
        1, "devices that share out heads and the feed-forward layer, on the same rows",
        over_zero(10**5),
    )  # fmt: skip
    sequence: int = option(
        1, "devices that share out the positions of the same rows, for long ones", over_zero(10**5)
    )


@dataclass(frozen=True)
class Config:
    """Everything that decides a run's numbers; ``data`` holds a source's name and its options."""

    data: Mapping[str, Any]
    init_from: str | None = option(
        None,
        "folder of a Hugging Face checkpoint whose weights the run starts from, and whose config.json "
        "the model is made by",
    )
    init_sha256: str | None = option(
        None, "digest of that folder's weights: a run notes it; one that is given is checked"
    )
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    seed: int = option(
        0, "the first: initialization, order of rows, dropout, validation split", KEY_SEED
    )
    seeds: int = option(1, "how many runs, with seeds seed, seed + 1, ...", over_zero(10**5))
    devices: int = option(0, "how many local devices; 0 for all", from_zero(10**5))
    parallel: str = option(
        "pmap",
        "how devices work together: each has all parameters (pmap), or its share of them (sharded)",
        choices=("pmap", "sharded"),
    )
    mesh: MeshConfig = field(default_factory=MeshConfig)
    profile: str = option(
        "none",
        "steps: a trace of ten steps is written into the run directory, once they compile nothing",
        choices=("none", "steps"),
    )

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain dictionaries, as written to ``config.json``."""
        return asdict(self)
