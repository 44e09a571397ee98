"""Where the steps keep what they make, from the root of a checkout."""

from pathlib import Path

SOURCES = Path("data/sources")
TRUTH = Path("data/truth")
CLIPS = Path("data/clips.parquet")
SCORES = Path("data/scores.parquet")
STRIPS = Path("data/strips.parquet")
CAPTIONS = Path("data/captions.parquet")
DUPLICATES = Path("data/duplicates.parquet")
DECISIONS = Path("data/decisions.parquet")
LIP_SYNC_WEIGHTS = Path("data/lip_sync.safetensors")
ENCODED = Path("data/encoded")
MODELS = Path("models")
FUNNEL_PAGE = Path("reports/funnel.html")
FUNNEL_METRICS = Path("reports/funnel.json")
FUNNEL_PLOTS = Path("reports/funnel")
COPIES = Path("reports/duplicates.csv")
FIGURES = Path("reports/evaluation.json")
PICTURES = Path("reports/evaluation")
