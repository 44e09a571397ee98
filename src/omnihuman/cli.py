"""The command line: only wiring. Everything heavy is imported inside the verb that needs it."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from omnihuman.errors import UserError

SOURCES = Path("data/sources")
TRUTH = Path("data/truth")
CLIPS = Path("data/clips.parquet")
SCORES = Path("data/scores.parquet")
DECISIONS = Path("data/decisions.parquet")
ENCODED = Path("data/encoded")
MODELS = Path("models")
FUNNEL_PAGE = Path("reports/funnel.html")
FUNNEL_METRICS = Path("reports/funnel.json")
FIGURES = Path("reports/evaluation.json")
PICTURES = Path("reports/evaluation")

Verb = Callable[[argparse.Namespace], int]
Adder = Callable[..., argparse.ArgumentParser]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit code: 0 good, 1 our defect, 2 the user's mistake, 3 partly done."""
    args = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("omnihuman").setLevel(logging.INFO)
    try:
        return args.verb(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _compose(args: argparse.Namespace) -> int:
    from omnihuman.config.compose import compose, dump, stale_keys
    from omnihuman.config.load import PARAMS
    from omnihuman.storage.files import publish

    if args.check:
        if args.overrides or args.profile:
            raise UserError("--check composes what params.yaml records; give it no profile and no key=value")
        stale = stale_keys()
        if stale:
            raise UserError("\n".join([f"{PARAMS} is stale; run `omnihuman config compose` again:", *stale]))
        return 0
    text = dump(compose(args.profile or "demo", args.overrides))
    with publish(PARAMS) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return 0


def _show(args: argparse.Namespace) -> int:
    from dataclasses import asdict, is_dataclass

    import yaml

    from omnihuman.config.load import PARAMS, load_params, load_section

    part = load_section(PARAMS, args.section) if args.section else load_params()
    if isinstance(part, dict):
        part = {name: asdict(entry) for name, entry in part.items()}
    tree = asdict(part) if is_dataclass(part) and not isinstance(part, type) else part
    print(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).removesuffix("...\n"), end="")
    return 0


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

    score(load_params().score, SOURCES, CLIPS, SCORES)
    return 0


def _decide(_: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.data.deciding import decide

    decide(load_params().decide, SOURCES, CLIPS, SCORES, DECISIONS, FUNNEL_PAGE, FUNNEL_METRICS)
    return 0


def _encode(_: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.data.precompute import encode

    encode(load_params().encode, SOURCES, CLIPS, DECISIONS, ENCODED)
    return 0


def _train(args: argparse.Namespace) -> int:
    from omnihuman.config.load import PARAMS, load_params, load_section
    from omnihuman.training.run import StageRun, train_stage

    params = load_params()
    stage = load_section(PARAMS, f"stages.{args.stage}")
    run = StageRun(args.stage, stage, params.training, params.model, params.diffusion, params.seed)
    try:
        train_stage(run, ENCODED, MODELS)
    except SystemExit as stop:  # Lightning makes one of Ctrl-C
        raise KeyboardInterrupt from stop
    return 0


def _evaluate(_: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.evaluation.run import evaluate

    params = load_params()
    model = MODELS / list(params.stages)[-1]
    evaluate(params.evaluate, params.sampling, params.seed, ENCODED, model, FIGURES, PICTURES)
    return 0


def _render(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from omnihuman.config.load import load_params
    from omnihuman.inference.render import RenderRequest, render

    params = load_params()
    request = RenderRequest(args.image, args.output, args.audio, args.pose, args.text, args.seed)
    with tqdm(unit="segment", file=sys.stderr) as bar:

        def progress(finished: int, num_segments: int) -> None:
            bar.total = num_segments
            bar.update(finished - bar.n)

        render(request, args.model, params.sampling, params.render, progress)
    return 0


def _demo(args: argparse.Namespace) -> int:
    from omnihuman.pipeline.demo import demo

    data = [f"collect.source={args.data}"] if args.data else []
    return demo(args.profile, [*data, *args.overrides])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="omnihuman",
        description="Train, compare, release and run your own OmniHuman.",
        epilog="Exit codes: 0 all good; 1 a defect of ours; 2 your input or configuration is wrong; 3 partly done.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_config(_group(verbs, "config", "compose and show params.yaml"))
    _add_data(_group(verbs, "data", "the steps from raw videos to encoded clips"))
    _add_model_verbs(_adder(verbs))
    return parser


def _group(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str) -> Adder:
    parser = verbs.add_parser(name, help=summary, description=summary)
    return _adder(parser.add_subparsers(metavar="VERB", required=True))


def _adder(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> Adder:
    def add(name: str, verb: Verb, summary: str, example: str = "") -> argparse.ArgumentParser:
        epilog = f"Example: {example}" if example else None
        parser = verbs.add_parser(name, help=summary, description=summary, epilog=epilog)
        parser.set_defaults(verb=verb)
        return parser

    return add


def _add_config(add: Adder) -> None:
    parser = add(
        "compose",
        _compose,
        "write params.yaml from conf/, a profile and overrides",
        "omnihuman config compose --profile demo groups.recipe=paper_last stages.2_audio.steps=600",
    )
    parser.add_argument("--profile", help="a file of conf/profile (default: demo)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when params.yaml is stale")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="a dotted key and its value as YAML")
    parser = add("show", _show, "print params.yaml with every default", "omnihuman config show stages.2_audio")
    parser.add_argument("section", nargs="?", help="a dotted part of it")


def _add_data(add: Adder) -> None:
    add("collect", _collect, "draw or take in the raw videos: hashes, what is in them, rights")
    add("split", _split, "cut sources into clips at shot boundaries")
    add("score", _score, "measure every clip: quality, aesthetics, motion, lip sync, visibility of the pose")
    add("decide", _decide, "decide which modalities each clip may train, and report why")
    add("encode", _encode, "write latents, speech, keypoints and text of the eligible clips into shards")


def _add_model_verbs(add: Adder) -> None:
    parser = add("train", _train, "train one stage from its parent's weights", "omnihuman train 2_audio")
    parser.add_argument("stage", help="a stage of params.yaml, e.g. 1_text_image")
    add("evaluate", _evaluate, "measure the model on people and sounds that it has not seen")
    parser = add(
        "render",
        _render,
        "make a video of the person in a picture",
        "omnihuman render --image person.png --audio speech.wav -o talking.mp4",
    )
    parser.add_argument("--image", type=Path, required=True, help="a picture of the person")
    parser.add_argument("--audio", type=Path, help="the sound to speak, which also sets the length")
    parser.add_argument("--pose", type=Path, help="a track to follow, NAME.keypoints.npz")
    parser.add_argument("--text", default="", help="a description of what happens")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    parser.add_argument("--model", type=Path, default=MODELS / "3_pose", help="a trained stage (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the MP4 to write")
    parser = add(
        "demo",
        _demo,
        "compose a profile and run the whole chain",
        "omnihuman demo --data ~/videos collect.licence=own collect.consent_basis=contract",
    )
    parser.add_argument("--data", help="a folder of own videos instead of the drawn corpus")
    parser.add_argument("--profile", default="demo", help="a file of conf/profile (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="a dotted key and its value as YAML")


if __name__ == "__main__":
    sys.exit(main())
