"""The verb of a trained model: render."""

import argparse
import sys
from pathlib import Path

from omnihuman.cli.parsing import Adder, at_least, pixels
from omnihuman.cli.places import MODELS


def add_verbs(add: Adder) -> None:
    """Adds `omnihuman render`."""
    parser = add(
        "render",
        _render,
        "make a video of the person in a picture",
        "omnihuman render --image person.png --audio speech.wav -o talking.mp4",
        "omnihuman render --image person.png --audio song.mp3 --text 'a woman sings' --short-side 720 -o singing.mp4",
        "omnihuman render --image person.png --pose keypoints/ --pose-size 512x768 --pose-fps 30 -o dancing.mp4",
        "omnihuman render --image person.png --pose skeleton.mp4 --audio song.mp3 -o dancing_and_singing.mp4",
        "omnihuman render --image person.png --video actor.mp4 --video-sound --pose-weights dwpose/ -o acted.mp4",
    )
    parser.add_argument(
        "--image", type=Path, required=True, help="a picture of the person: PNG, JPEG, WebP, GIF, AVIF, TIFF or BMP"
    )
    parser.add_argument(
        "--audio", type=Path, help="the sound to speak, which also sets the length: WAV, MP3, FLAC, M4A, OGG or a video"
    )
    parser.add_argument(
        "--pose",
        type=Path,
        help="a track to follow: NAME.keypoints.npz, JSON of OpenPose, DWPose or MMPose (a file, or a folder with one a"
        " frame), a rendered skeleton video, or a video of a person",
    )
    parser.add_argument(
        "--image-pose",
        type=Path,
        help="the pose in the picture: a track of one moment; the driver takes its proportions",
    )
    parser.add_argument("--video", type=Path, help="a video whose pose drives, as by --pose")
    parser.add_argument("--video-sound", action="store_true", help="let the sound of --video drive, too")
    parser.add_argument("--pose-size", type=pixels, help="canvas of JSON keypoints that does not tell: WIDTHxHEIGHT")
    parser.add_argument("--pose-fps", type=float, default=0.0, help="of JSON keypoints (default: 25)")
    parser.add_argument(
        "--pose-weights", default="", help="folder with DWPose's two ONNX files (default: those of encode)"
    )
    parser.add_argument(
        "--keep-proportions", action="store_true", help="follow the driver's own proportions, not those of the picture"
    )
    for side, what in (("width", "width"), ("height", "height"), ("short-side", "shorter side")):
        told = f"{what} of what the model makes, in pixels (default: as trained, by the picture's aspect)"
        parser.add_argument(f"--{side}", type=at_least(1), default=0, help=told)
    parser.add_argument(
        "--conditions",
        type=lambda names: tuple(names.split(",")),
        help="those to activate of text,reference,audio,pose (default: the paper's rules: all that is given)",
    )
    parser.add_argument("--text", default="", help="a description of what happens, in any language")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    parser.add_argument("--model", type=Path, default=MODELS / "3_pose", help="a trained stage (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the MP4 to write")


def _render(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from omnihuman.config.load import load_params
    from omnihuman.inference.generator import load_generator
    from omnihuman.inference.pose_inputs import with_known_weights
    from omnihuman.inference.render import render
    from omnihuman.inference.request import InputOptions, RenderRequest

    params = load_params()
    pose_width, pose_height = args.pose_size or (0, 0)
    options = InputOptions(
        model_width=args.width,
        model_height=args.height,
        model_short_side=args.short_side,
        pose_width=pose_width,
        pose_height=pose_height,
        pose_fps=args.pose_fps,
        retarget=not args.keep_proportions,
        video_sound=args.video_sound,
        pose_weights=args.pose_weights or params.encode.pose_weights,
        pose_sha256="" if args.pose_weights else params.encode.pose_sha256,
    )
    request = RenderRequest(
        args.image,
        args.output,
        args.audio,
        args.pose,
        image_pose=args.image_pose,
        text=args.text,
        seed=args.seed,
        conditions=args.conditions,
        video=args.video,
        options=options,
    )
    request.check()
    request = with_known_weights(request)
    generator = load_generator(args.model, params.sampling)
    with tqdm(unit="segment", file=sys.stderr) as bar:

        def progress(finished: int, num_segments: int) -> None:
            bar.total = num_segments
            bar.update(finished - bar.n)

        render(request, generator, params.render, progress)
    return 0
