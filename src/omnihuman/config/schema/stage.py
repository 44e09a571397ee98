"""The training stages as data."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Activation:
    """Probability that a condition which the clip carries is on (OmniHuman-1, sec. 3.3)."""

    text: float = 0.9
    reference: float = 0.9
    audio: float = 0.0
    pose: float = 0.0


@dataclass(frozen=True)
class Mix:
    """Share of draws that come from clips eligible for a modality; None draws clips uniformly."""

    audio_eligible: float | None = None
    pose_eligible: float | None = None


@dataclass(frozen=True)
class GuidanceDropout:
    """Probabilities beside those of activation, so that guidance knows the model without conditions.

    Activation turns each condition off by itself; this turns them off together. Motion frames stay, as in guidance.
    """

    everything: float = 0.0
    """Share of samples without text, reference, sound and pose."""
    text: float = 0.0
    """Share of samples without text, whatever `activate.text` says."""


@dataclass(frozen=True)
class StageData:
    """What samples are made of clips."""

    text_only_fraction: float = 0.0
    """Share of draws that train text alone: no reference, motion frames, sound or pose. They come from all clips alike,
    and the mix holds for the others."""
    pictures_share: float = 0.0
    """Share of draws that train a single picture, the first latent frame of a window, on text and reference."""
    max_repeats_per_clip: float = 100.0
    """A clip that is drawn more often over the stage is worth a warning: its pool is small for its share of the mix."""


@dataclass(frozen=True)
class Phase:
    """A part of a stage, in which large or long samples may wait."""

    share: float = 1.0
    """Of the stage's steps; those of all phases add up to one."""
    area_pixels: int | None = None
    """A clip is drawn at the highest of its `encode.resolutions` up to this, and not at all where even its lowest is
    above; none: at its highest."""
    num_frames: int | None = None
    """Windows are cut to so many frames, 4k + 1; none: they stay whole."""


@dataclass(frozen=True)
class Batching:
    """How the draws of a step go through the network."""

    sizes: str = "one_size"
    """`one_size`: a step draws a size and then clips of it; `native`: clips of all sizes, packed without padding.

    Both draw each clip as often. But where a size has more eligible clips than another, few hundred steps of one size
    scatter around the mix by percents, those of native sizes do not.
    """


@dataclass(frozen=True)
class Stage:
    """One of the paper's training stages, or the pretraining before them."""

    active: bool = True
    """Whether it is trained. A stage that is not leaves params.yaml, and its parent becomes its children's."""
    parent: str | None = None
    """Stage whose weights this one starts from."""
    base: str = ""
    """Folder of an imported base (`omnihuman checkpoint import`) that a stage without a parent starts from; empty: it
    starts from random weights."""
    starts_from: str = ""
    """What DVC hashes before the stage: set by composition from `parent` and `base`."""
    introduces: tuple[str, ...] = ()
    """Modalities that become active here; without newly eligible clips the parent's weights pass on."""
    frozen: tuple[str, ...] = ()
    """Parameters that are not trained: `base`, `text`, `audio`, `pose`, or how names of parameters begin."""
    steps: int = 200
    learning_rate: float = 1e-3
    activate: Activation = field(default_factory=Activation)
    allow_stronger_more: bool = False
    """Accepts ratios that break the rule "the stronger a condition, the lower its ratio"."""
    guidance_dropout: GuidanceDropout = field(default_factory=GuidanceDropout)
    mix: Mix = field(default_factory=Mix)
    data: StageData = field(default_factory=StageData)
    phases: dict[str, Phase] = field(default_factory=dict)
    """By name, in their order; none: the whole stage is one."""
    batching: Batching = field(default_factory=Batching)


@dataclass(frozen=True)
class Training:
    """What all stages share."""

    seed: int | None = None
    """Of the first weights and of every draw of training; none: the seed of the whole run. Runs that differ in it alone
    share their data and are measured on the same items with the same noise."""
    global_batch_size: int = 8
    motion_frames_share: float = 0.5
    """Share of samples whose first two latents are given clean, as motion frames."""
    reference_pose_share: float = 0.9
    """Share of the samples with pose to which the pose in the reference picture is known."""
    optimizer: str = "adamw"
    """`adamw`, or `muon`, which learns more per step where steps are few."""
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    ema_decay: float = 0.0
    """Of the moving average of the weights, which a stage then publishes; 0 publishes the weights themselves."""
    warmup_steps: int = 20
    precision: str = "32-true"
    activation_checkpointing: str = "none"
    """`none`, `selective` (norms, modulation and GELU are computed again, products of matrices are kept) or `full`."""
    compile: bool = False
    """Compile each block at its first step: minutes once, then fewer and larger kernels."""
    midstream_share: float = 0.0
    """Share of the samples with motion frames that begin in the middle of a stream of latents, as the later segments of
    `render.chaining=latent_stream` do: their two motion latents cover four frames each."""
    checkpoint_every_steps: int = 50
    keep_checkpoints: int = 2
    """How many of the newest stay while a stage trains; the last but one serves where the last is damaged."""
    keep_every_steps: int = 0
    """A checkpoint whose step is a multiple stays until the stage is published; 0 for none."""
    on_loss_spike: str = "stop"
    """What follows a loss that is no number, or above `loss_spike_factor`: `stop`, or `skip` (go back to the last good
    checkpoint and leave the step's samples out)."""
    loss_spike_factor: float = 0.0
    """How many times the median of the last steps' losses is a spike; 0 for none."""
    log_every_steps: int = 10
    validate_every_steps: int = 200
    """How often, and after the last step, the losses of fixed held-out triples are measured; 0: never."""
    validation_clips: int = 8
    """Held-out clips, each at eight levels of noise under every subset of conditions that the stage knows."""
    probe_every_steps: int = 0
    """How often, and after the last step, held-out videos are made and measured; 0: never."""
