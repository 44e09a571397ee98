"""The verb `train`: in this process, or as a job of many that it launches and follows."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omnihuman.cli.parsing import Adder
from omnihuman.cli.places import ENCODED, MODELS

if TYPE_CHECKING:
    from omnihuman.config.schema.root import Params
    from omnihuman.training.fit import StageRun
    from omnihuman.training.launch.placement import Placement
    from omnihuman.training.progress import Report


def add_verbs(add: Adder) -> None:
    """Adds `omnihuman train`."""
    from omnihuman.training.launch.placement import VARIABLES

    parser = add("train", _train, "train one stage from its parent's weights")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    widest = max(map(len, VARIABLES))
    parser.epilog = "\n".join(
        [
            "What is trained stands in params.yaml, where it runs in the environment (docs/howto/launch.md):",
            *(f"  {name:{widest}}  {told}" for name, told in VARIABLES.items()),
            "",
            "Example: OMNIHUMAN_LAUNCHER=slurm OMNIHUMAN_NODES=2 omnihuman train 2_audio",
        ]
    )
    parser.add_argument("stage", help="a stage of params.yaml, e.g. 1_text_image")
    parser.add_argument("--plan", action="store_true", help="say memory, speed, hours and cost, and train nothing")


def _train(args: argparse.Namespace) -> int:
    from omnihuman.config.load import PARAMS, load_params, load_section
    from omnihuman.training.fit import StageRun
    from omnihuman.training.launch.attach import JobFailed
    from omnihuman.training.launch.placement import placement

    params = load_params()
    stage = load_section(PARAMS, f"stages.{args.stage}")
    run = StageRun(args.stage, stage, params.training, params.model, params.diffusion, params.training_seed)
    placed = placement(params.compute)
    if args.plan:
        from omnihuman.training.plan import plan

        print(plan(run, params.compute, placed, ENCODED))
        return 0
    try:
        _train_tracked(run, params, placed)
    except JobFailed as error:
        print(error, file=sys.stderr)  # what a rank had to say stands above it
        return error.exit_code
    return 0


def _train_tracked(run: "StageRun", params: "Params", placed: "Placement") -> None:
    from dataclasses import asdict

    from omnihuman.cli.probes import ProbeFiles
    from omnihuman.tracking.runs import TrackedStep, step_run
    from omnihuman.tracking.values import folder_md5
    from omnihuman.training.profile import FOLDER
    from omnihuman.training.run import stage_key, training_clips

    weights = MODELS / run.name / "model.safetensors"
    key = stage_key(run, ENCODED, MODELS)
    with step_run(TrackedStep(run.name, key, asdict(run), ENCODED, folder_md5(ENCODED), weights)) as tracked:
        tracked.log_parameters({"profile": params.profile, "num_clips": training_clips(ENCODED)})
        for name in ("launcher", "nodes", "processes"):  # tags: they may change when the run goes on
            tracked.tag(name, str(getattr(placed, name)))
        files = ProbeFiles(tracked)
        _train_where_placed(run, params, placed, tracked.work, files.report)
        files.send()
        tracked.log_file(weights.with_name("model.json"))
        if (traces := tracked.work / FOLDER).is_dir():
            tracked.log_folder(traces)


def _train_where_placed(run: "StageRun", params: "Params", placed: "Placement", work: Path, report: "Report") -> None:
    from omnihuman.cli.probes import held_out_probe
    from omnihuman.training.device import noted_device
    from omnihuman.training.launch.attach import run_job
    from omnihuman.training.launch.job import Job
    from omnihuman.training.launch.placement import trains_here
    from omnihuman.training.measured import Recorder, work_of
    from omnihuman.training.plan import tokens_per_sample
    from omnihuman.training.run import train_stage

    recorder = Recorder(report)
    if trains_here(placed, params.compute):
        try:
            probe = held_out_probe(run.stage, params, ENCODED)
            train_stage(run, ENCODED, MODELS, work, recorder.report, params.compute, probe=probe)
        except SystemExit as stop:  # Lightning makes one of Ctrl-C, and a stage that has saved of TERM
            raise KeyboardInterrupt from stop
    else:
        encoded, models, kept = (path.absolute() for path in (ENCODED, MODELS, work))
        job = Job(run.name, encoded, models, kept, Path.cwd(), placed, params.compute.accelerator)
        run_job(job, recorder.report)
    device = noted_device(work)
    recorder.save(work_of(run, params.compute, placed, device), tokens_per_sample(run, ENCODED))
