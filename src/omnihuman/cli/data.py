"""Verbs of the steps from raw videos to encoded clips."""

import argparse
from pathlib import Path

from omnihuman.cli import takedown
from omnihuman.cli.parsing import Adder
from omnihuman.cli.places import (
    CAPTIONS,
    CLIPS,
    DECISIONS,
    ENCODED,
    FUNNEL_METRICS,
    FUNNEL_PAGE,
    FUNNEL_PLOTS,
    LIP_SYNC_WEIGHTS,
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
    add("caption", _caption, "describe every clip in a sentence, where its sidecar does not")
    add("decide", _decide, "decide which modalities each clip may train, and report why")
    add("encode", _encode, "write latents, speech, keypoints and text of the eligible clips into shards")
    takedown.add_verbs(add)
    parser = add(
        "train-syncnet",
        _train_syncnet,
        "train a small SyncNet on the clips that may train sound, as a scorer of lip sync in place of a stand-in",
        "omnihuman data train-syncnet --steps 300",
    )
    parser.add_argument("--output", type=Path, default=LIP_SYNC_WEIGHTS, help=f"default: {LIP_SYNC_WEIGHTS}")
    parser.add_argument("--steps", type=int, default=300, help="of 192 windows each; default: 300")
    parser.add_argument("--clips", type=int, default=2000, help="at most so many of each split; default: 2000")


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


def _caption(_: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.data.captions import caption

    caption(load_params().caption, SOURCES, CLIPS, SCORES, CAPTIONS)
    return 0


def _decide(_: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.data.deciding import Tables, decide

    tables = Tables(SOURCES, CLIPS, SCORES, STRIPS)
    decide(load_params().decide, tables, DECISIONS, FUNNEL_PAGE, FUNNEL_METRICS, FUNNEL_PLOTS)
    return 0


def _train_syncnet(args: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.data.own_syncnet import train_syncnet
    from omnihuman.storage.files import file_sha256

    params = load_params()
    tables = SOURCES, CLIPS, DECISIONS
    train_syncnet(params.score, tables, args.output, steps=args.steps, seed=params.seed, max_clips=args.clips)
    print(
        f"to score with it, compose with score.lip_sync=trained score.lip_sync_weights={args.output.absolute()}"
        f" score.lip_sync_sha256={file_sha256(args.output)}, and set a threshold for it in conf/policy"
    )
    return 0


def _encode(_: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.data.precompute import encode

    encode(load_params().encode, SOURCES, CLIPS, CAPTIONS, DECISIONS, ENCODED)
    return 0
