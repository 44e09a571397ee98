"""Verbs of the steps from raw videos to encoded clips."""

import argparse

from omnihuman.cli import takedown
from omnihuman.cli.parsing import Adder
from omnihuman.cli.places import (
    CLIPS,
    COPIES,
    DECISIONS,
    DUPLICATES,
    ENCODED,
    FUNNEL_METRICS,
    FUNNEL_PAGE,
    FUNNEL_PLOTS,
    SCORES,
    SOURCES,
    STRIPS,
    TRUTH,
)


def add_verbs(add: Adder) -> None:
    """Adds `omnihuman data ...`."""
    add("collect", _collect, "draw or take in the raw videos: hashes, what is in them, rights")
    add("split", _split, "cut sources into clips at shot boundaries")
    add("score", _score, "measure every clip: quality, aesthetics, motion, lip sync, visibility of the pose")
    add("duplicates", _duplicates, "find clips that are copies of one take, so that none is both trained and held out")
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

    split(load_params().split, SOURCES, CLIPS)
    return 0


def _score(_: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.data.scoring import score

    score(load_params().score, SOURCES, CLIPS, SCORES, STRIPS)
    return 0


def _duplicates(_: argparse.Namespace) -> int:
    from omnihuman.data.duplicates import duplicates

    duplicates(SOURCES, CLIPS, STRIPS, DUPLICATES, COPIES)
    return 0


def _decide(_: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.data.deciding import Tables, decide

    tables = Tables(SOURCES, CLIPS, SCORES, STRIPS, DUPLICATES)
    decide(load_params().decide, tables, DECISIONS, FUNNEL_PAGE, FUNNEL_METRICS, FUNNEL_PLOTS)
    return 0


def _encode(_: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.data.precompute import encode

    encode(load_params().encode, SOURCES, CLIPS, DECISIONS, ENCODED)
    return 0
