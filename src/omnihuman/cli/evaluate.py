"""Verbs of evaluation: the step, protocols, videos of other systems, comparisons."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from omnihuman.cli.parsing import Adder, adder
from omnihuman.cli.places import ENCODED, FIGURES, MODELS, PICTURES

if TYPE_CHECKING:
    from omnihuman.config.schema.root import Params
    from omnihuman.evaluation.protocol_run import Named
    from omnihuman.evaluation.results import SystemReport

_REPORTS = Path("reports/protocols")


def add_verbs(add: Adder) -> None:
    """Adds `omnihuman evaluate` and what stands below it."""
    parser = add(
        "evaluate",
        _evaluate,
        "measure the model on people and sounds that it has not seen; with --protocol on a test set of one's own",
        "omnihuman evaluate",
        "omnihuman evaluate --protocol portrait_ravdess --items ~/RAVDESS --model models/3_pose",
        "omnihuman evaluate --protocol portrait_ravdess --items ~/RAVDESS --videos ~/sadtalker --name SadTalker",
        "omnihuman evaluate compare reports/protocols/portrait_ravdess/* -o reports/compared",
    )
    _add_items(parser, required=False)
    parser.add_argument("--metrics", help="instead of the protocol's, as name,name; this makes it another protocol")
    parser.add_argument("--videos", type=Path, help="score these videos, ITEM.mp4 each, instead of rendering any")
    parser.add_argument("--model", type=Path, help="folder of a trained stage (default: the last)")
    parser.add_argument("--name", help="of the system (default: the name of the folder)")
    parser.add_argument("-o", "--output", type=Path, help=f"folder of the report (default: {_REPORTS}/PROTOCOL/NAME)")
    verbs = adder(parser.add_subparsers(metavar="VERB", required=False))
    parser = verbs(
        "items",
        _items,
        "write the picture, sound and pose of each item of a protocol, for other systems to start from",
        "omnihuman evaluate items --protocol half_body --items list.jsonl -o items/",
    )
    _add_items(parser, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write into")
    parser = verbs(
        "compare",
        _compare,
        "join several reports into one table and one page",
        "omnihuman evaluate compare reports/protocols/portrait_ravdess/* -o reports/compared",
    )
    parser.add_argument("reports", type=Path, nargs="+", help="folders that `omnihuman evaluate` wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the comparison")


def _add_items(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument("--protocol", required=required, help="a file of conf/protocol")
    parser.add_argument(
        "--items",
        type=Path,
        required=required,
        help="folder of videos laid out as the protocol says, or a list (.jsonl, .csv) with item, person, picture,"
        " sound, pose, video, picture_pose, text",
    )


def _evaluate(args: argparse.Namespace) -> int:
    from omnihuman.errors import UserError

    if args.protocol:
        return _on_protocol(args)
    given = [name for name in ("items", "videos", "model", "name", "metrics", "output") if getattr(args, name)]
    if given:
        raise UserError(f"--{given[0]} goes with --protocol: name a file of conf/protocol")
    return _step()


def _on_protocol(args: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.errors import UserError
    from omnihuman.evaluation.item_videos import Rendering
    from omnihuman.evaluation.protocol_run import evaluate_model, evaluate_videos

    params = load_params()
    named = _named(args, params)
    if args.videos is not None:
        if args.model:
            raise UserError("--videos scores videos that are there, --model renders new ones: leave one out")
        name = args.name or args.videos.absolute().name
        report = evaluate_videos(named, args.videos, args.items, name, args.output or _REPORTS / args.protocol / name)
    else:
        if args.items is None:
            raise UserError("--items is missing: name a folder of videos or a list")
        model = args.model or MODELS / list(params.stages)[-1]
        name = args.name or model.absolute().name
        rendering = Rendering(model, params.sampling, params.render, params.evaluate.batch_size)
        report = evaluate_model(named, args.items, rendering, name, args.output or _REPORTS / args.protocol / name)
    _print([report], args.output or _REPORTS / args.protocol / name)
    return 0


def _named(args: argparse.Namespace, params: "Params") -> "Named":
    from dataclasses import replace

    from omnihuman.config.protocols import load_protocol
    from omnihuman.evaluation.metrics.registry import make_metrics
    from omnihuman.evaluation.protocol_run import Named
    from omnihuman.inference.placement import Placement

    protocol = load_protocol(args.protocol)
    if args.metrics:
        protocol = replace(protocol, metrics=tuple(args.metrics.split(",")))
    device = Placement.from_environment().codec_device
    return Named(args.protocol, protocol, tuple(make_metrics(protocol.metrics, params.evaluate.extractors, device)))


def _items(args: argparse.Namespace) -> int:
    from omnihuman.config.protocols import load_protocol
    from omnihuman.evaluation.protocol_run import export_items

    count = export_items(load_protocol(args.protocol), args.items, args.output)
    print(f"{count} items in {args.output}; name the videos that are made of them ITEM.mp4")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from omnihuman.evaluation.protocol_run import compare

    _print(compare(args.reports, args.output), args.output)
    return 0


def _print(reports: "list[SystemReport]", output: Path) -> None:
    from omnihuman.evaluation.report import PAGE
    from omnihuman.evaluation.tables import as_text, tables

    print("\n\n".join(map(as_text, tables(reports))))
    print(f"\n{output / PAGE}")


def _step() -> int:
    """The step of the graph, as a run in MLflow."""
    import json
    from dataclasses import asdict

    from omnihuman.config.load import load_params
    from omnihuman.evaluation.held_out_scores import METRICS, values
    from omnihuman.evaluation.run import evaluate
    from omnihuman.storage.files import file_sha256
    from omnihuman.storage.work import code_key, content_key
    from omnihuman.tracking.runs import TrackedStep, step_run
    from omnihuman.tracking.values import folder_md5

    params = load_params()
    model = MODELS / list(params.stages)[-1]
    weights = model / "model.safetensors"
    settings = {"seed": params.seed, "evaluate": asdict(params.evaluate), "sampling": asdict(params.sampling)}
    data_md5 = folder_md5(ENCODED)
    key = content_key(
        **settings,
        data=data_md5,
        weights=file_sha256(weights) if weights.is_file() else "",
        code=code_key("evaluation", "inference", "model", "conditions", "diffusion", "encoders", "packed.py"),
    )
    with step_run(TrackedStep("evaluate", key, settings, ENCODED, data_md5, weights)) as tracked:
        tracked.log_parameters({"profile": params.profile, "evaluated": model.name})
        evaluate(params.evaluate, params.sampling, params.seed, ENCODED, model, FIGURES, PICTURES)
        tracked.log_figures(json.loads(FIGURES.read_text(encoding="utf-8")))
        tracked.log_figures(values(PICTURES / METRICS))
        tracked.log_file(FIGURES)
        tracked.log_folder(PICTURES)
    return 0
