"""Where the raw videos come from."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SyntheticCorpus:
    """Size and composition of the drawn corpus.

    Every clip belongs to one drawn person; the defective ones are labelled in the ground truth only.
    """

    num_identities: int = 96
    clips_per_identity: int = 4
    clip_seconds: float = 2.4
    """Mean length; each clip varies by a fifth around it."""
    defective_share: float = 0.2
    """Share of clips that carry one defect of `data.synthetic.defects`."""
    unfit_share: float = 0.2
    """Share of clean clips unfit for audio and pose, with motions, styles and backgrounds that the fit ones lack."""
    short_side_pixels: int = 160


@dataclass(frozen=True)
class Collect:
    """Source of the raw videos and the rights under which they are used."""

    source: str = "synthetic"
    """`synthetic`; a folder of videos, a list (.txt) or a table (.parquet, .csv), each as absolute path; s3://bucket/prefix."""
    depends_on: str = "src/omnihuman/data/synthetic"
    """What DVC hashes for this step: folder, list, table or S3 prefix, or the generator's code. Set by composition."""
    layout: str = "plain"
    """How files of a folder or prefix lie and are named, see `data.adapters`: plain, celebv_hq, ravdess or hdtf."""
    licence: str = "unknown"
    """Licence of every video for which no sidecar or table states one. For people's videos it has to be written, also
    where it is `unknown`; so do the next two."""
    consent_basis: str = "unknown"
    """Basis on which the persons shown agreed, e.g. `contract`, `public-release`, `synthetic`."""
    rights_holder: str = "unknown"
    """Who may be asked, e.g. a company or the person shown."""
    test_share: float = 0.2
    """Share of identities (not of clips) that is held out for evaluation."""
    max_file_bytes: int = 4_000_000_000
    max_duration_seconds: float = 4 * 3600.0
    deadline_seconds: float = 30.0
    """Time allowed for probing one file before it becomes a row with status `timeout`."""
    synthetic: SyntheticCorpus = field(default_factory=SyntheticCorpus)
