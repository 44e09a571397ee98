"""Verbs of the steps from raw videos to encoded clips."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from omnihuman.cli import takedown
from omnihuman.cli.parsing import Adder, at_least, share
from omnihuman.cli.places import (
    CAPTIONS,
    CLIPS,
    COPIES,
    DECISIONS,
    DUPLICATES,
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
from omnihuman.errors import UserError

if TYPE_CHECKING:
    from omnihuman.config.schema.compute import Compute
    from omnihuman.media.worker import RunGuarded


def add_verbs(add: Adder) -> None:
    """Adds `omnihuman data ...`."""
    add("collect", _collect, "draw or take in the raw videos: hashes, what is in them, rights")
    add("split", _split, "cut sources into clips at shot boundaries")
    add("score", _score, "measure every clip: quality, aesthetics, motion, lip sync, visibility of the pose")
    add("caption", _caption, "describe every clip in a sentence, where its sidecar does not")
    add("duplicates", _duplicates, "find clips that are copies of one take, so that none is both trained and held out")
    add("decide", _decide, "decide which modalities each clip may train, and report why")
    report = add(
        "report",
        _report,
        "say what may train what, also under another policy: from the scores that are there, nothing is decoded",
        "omnihuman data report decide.rules.sharp.at_least=0.4 --page reports/what_if.html",
    )
    report.add_argument("overrides", nargs="*", metavar="key=value", help="as of `config compose`; changes no file")
    report.add_argument("--page", type=Path, metavar="FILE", help="write the whole report there")
    encode = add(
        "encode",
        _encode,
        "write latents, speech, keypoints and text of the eligible clips into shards",
        "omnihuman data encode --estimate",
    )
    whole = encode.add_mutually_exclusive_group()
    whole.add_argument(
        "--estimate", action="store_true", help="time a few clips and say the hours of work and the bytes"
    )
    whole.add_argument(
        "--part",
        type=share,
        metavar="N/M",
        help="encode every Mth shard from the Nth on, as one of M machines; a call without it then writes the table",
    )
    takedown.add_verbs(add)
    parser = add(
        "train-syncnet",
        _train_syncnet,
        "train a small SyncNet on the clips that may train sound, as a scorer of lip sync in place of a stand-in",
        "omnihuman data train-syncnet --steps 300",
    )
    parser.add_argument("--output", type=Path, default=LIP_SYNC_WEIGHTS, help=f"default: {LIP_SYNC_WEIGHTS}")
    parser.add_argument("--steps", type=at_least(20), default=300, help="of 192 windows each; default: 300")
    parser.add_argument("--clips", type=at_least(1), default=2000, help="at most so many of each split; default: 2000")


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


def _caption(_: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.data.captions import caption

    caption(load_params().caption, SOURCES, CLIPS, SCORES, CAPTIONS)
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


def _report(args: argparse.Namespace) -> int:
    from omnihuman.config.compose import compose
    from omnihuman.config.load import load_params
    from omnihuman.data.deciding import Tables, contents_of, write_page
    from omnihuman.data.funnel_text import describe_funnel

    params, tables = load_params(), Tables(SOURCES, CLIPS, SCORES, STRIPS, DUPLICATES)
    contents = contents_of(params.decide, tables)
    before = contents.funnel
    for override in args.overrides:
        if not override.startswith(("decide.", "groups.policy=")):
            raise UserError(f"{override} changes what is measured, not what is decided: give decide.* or groups.policy")
    if args.overrides:
        other = compose(params.profile, [*params.overrides, *args.overrides])
        contents = contents_of(other.decide, tables)
    print(describe_funnel(before, contents.funnel if args.overrides else None))
    if args.page:
        write_page(contents, args.page)
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


def _encode(args: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.data.encode_estimate import estimate
    from omnihuman.data.encoding_plan import Inputs, plan_encoding
    from omnihuman.data.precompute import encode, encode_part

    params, inputs = load_params(), Inputs(SOURCES, CLIPS, CAPTIONS, DECISIONS)
    plan = plan_encoding(params.encode, inputs, params.compute.accelerator)
    if args.estimate:
        print(estimate(plan))
    elif args.part:
        number, count = args.part
        good, bad = encode_part(plan, number, count, _pool(params.compute))
        print(f"part {number} of {count}: {good} clips are encoded, {bad} could not be")
        return 3 if bad else 0
    else:
        encode(plan, ENCODED, _pool(params.compute))
    return 0


def _pool(compute: "Compute") -> "RunGuarded":
    """Where clips are worked on."""
    if compute.pool == "ray":
        from omnihuman.media.ray_pool import run_on_ray

        return run_on_ray
    from omnihuman.media.worker import run_guarded

    return run_guarded
