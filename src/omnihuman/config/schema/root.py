"""The whole of params.yaml."""

from dataclasses import dataclass, field

from omnihuman.config.schema.caption import Caption
from omnihuman.config.schema.collect import Collect
from omnihuman.config.schema.compute import Compute
from omnihuman.config.schema.decide import Decide
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.encode import Encode
from omnihuman.config.schema.evaluate import Evaluate, Render, Sampling
from omnihuman.config.schema.model import Model
from omnihuman.config.schema.registry import Gate
from omnihuman.config.schema.score import Score
from omnihuman.config.schema.split import Split
from omnihuman.config.schema.stage import Stage, Training


@dataclass(frozen=True)
class Params:
    """Everything a run depends on but code, data and placement."""

    profile: str
    overrides: tuple[str, ...] = ()
    seed: int = 17
    collect: Collect = field(default_factory=Collect)
    split: Split = field(default_factory=Split)
    score: Score = field(default_factory=Score)
    caption: Caption = field(default_factory=Caption)
    decide: Decide = field(default_factory=Decide)
    encode: Encode = field(default_factory=Encode)
    model: Model = field(default_factory=Model)
    diffusion: Diffusion = field(default_factory=Diffusion)
    training: Training = field(default_factory=Training)
    stages: dict[str, Stage] = field(default_factory=dict)
    compute: Compute = field(default_factory=Compute)
    sampling: Sampling = field(default_factory=Sampling)
    evaluate: Evaluate = field(default_factory=Evaluate)
    render: Render = field(default_factory=Render)
    gate: Gate = field(default_factory=Gate)

    @property
    def training_seed(self) -> int:
        """The seed with which stages are trained."""
        return self.seed if self.training.seed is None else self.training.seed
