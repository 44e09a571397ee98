"""Verbs of the steps from raw videos to encoded clips."""

import argparse
from typing import TYPE_CHECKING

from omnihuman.cli import takedown
from omnihuman.cli.parsing import Adder
from omnihuman.cli.places import (
    CLIPS,
    DECISIONS,
    ENCODED,
    FUNNEL_METRICS,
    FUNNEL_PAGE,
    FUNNEL_PLOTS,
    SCORES,
    SOURCES,
    STRIPS,
    TRUTH,
)

if TYPE_CHECKING:
    from omnihuman.config.schema.compute import Compute
    from omnihuman.media.worker import RunGuarded


def add_verbs(add: Adder) -> None:
    """Adds `omnihuman data ...`."""
    add("collect", _collect, "draw or take in the raw videos: hashes, what is in them, rights")
    add("split", _split, "cut sources into clips at shot boundaries")
    add("score", _score, "measure every clip: quality, aesthetics, motion, lip sync, visibility of the pose")
    add("decide", _decide, "decide which modalities each clip may train, and report why")
    add("encode", _encode, "write latents, speech, keypoints and text of the eligible clips into shards")
    takedown.add_verbs(add)


def _collect(_: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.data.sources import collect

    params = load_params()
    collect(params.collect, params.seed, SOURCES, TRUTH)
    return 0


def _split(_: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.data.shots import split

    params = load_params()
    split(params.split, SOURCES, CLIPS, _pool(params.compute))
    return 0


def _score(_: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.data.scoring import score

    params = load_params()
    score(params.score, SOURCES, CLIPS, SCORES, STRIPS, _pool(params.compute))
    return 0


def _decide(_: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.data.deciding import Tables, decide

    tables = Tables(SOURCES, CLIPS, SCORES, STRIPS)
    decide(load_params().decide, tables, DECISIONS, FUNNEL_PAGE, FUNNEL_METRICS, FUNNEL_PLOTS)
    return 0


def _encode(_: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.data.precompute import encode

    params = load_params()
    encode(params.encode, SOURCES, CLIPS, DECISIONS, ENCODED, _pool(params.compute))
    return 0


def _pool(compute: "Compute") -> "RunGuarded":
    """Where clips are worked on."""
    if compute.pool == "ray":
        from omnihuman.media.ray_pool import run_on_ray

        return run_on_ray
    from omnihuman.media.worker import run_guarded

    return run_guarded
