"""Verbs of a trained model: evaluate, render."""

import argparse
import sys
from pathlib import Path

from omnihuman.cli.parsing import Adder
from omnihuman.cli.places import ENCODED, FIGURES, MODELS, PICTURES


def add_verbs(add: Adder) -> None:
    """Adds `omnihuman evaluate` and `render`."""
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
    parser.add_argument("--image-pose", type=Path, help="the pose in the picture: a track of one moment, for --pose")
    parser.add_argument("--text", default="", help="a description of what happens")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    parser.add_argument("--model", type=Path, default=MODELS / "3_pose", help="a trained stage (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the MP4 to write")


def _evaluate(_: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from omnihuman.config.load import load_params
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
        tracked.log_file(FIGURES)
        tracked.log_folder(PICTURES)
    return 0


def _render(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from omnihuman.config.load import load_params
    from omnihuman.inference.generator import load_generator
    from omnihuman.inference.render import render
    from omnihuman.inference.request import RenderRequest

    params = load_params()
    request = RenderRequest(
        args.image, args.output, args.audio, args.pose, image_pose=args.image_pose, text=args.text, seed=args.seed
    )
    request.check()
    generator = load_generator(args.model, params.sampling)
    with tqdm(unit="segment", file=sys.stderr) as bar:

        def progress(finished: int, num_segments: int) -> None:
            bar.total = num_segments
            bar.update(finished - bar.n)

        render(request, generator, params.render, progress)
    return 0
