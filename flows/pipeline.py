"""The whole chain: data, training and evaluation, release, a rendered sample; `omnihuman demo` runs it."""

import sys
from pathlib import Path

from prefect import flow, runtime, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.prepare_data import prepare_data
from flows.release import release
from flows.train import train
from omnihuman.errors import UserError
from omnihuman.pipeline.flow_process import as_command
from omnihuman.pipeline.release import Candidate, NotPromoted, Release
from omnihuman.pipeline.summary import summary
from omnihuman.pipeline.workplace import workplace


@flow(name="pipeline")
def pipeline() -> None:
    """Runs what is stale, and closes with a table of what was made and where to look.

    All of it is one run in MLflow. A model that cannot be registered or fails its gate is said so plainly, and the
    sample is rendered from it.
    """
    from omnihuman.pipeline.parent_run import flow_run

    tags = {"prefect_run": runtime.flow_run.id}
    with workplace(Path.cwd()) as place, flow_run("pipeline", place, tags) as run:
        prepare_data()
        train()
        run.take_results(place.folder)
        released = release_or_reason()
        video = render_sample(released.candidate)
        table = summary(Path("reports"), Path("models"), video, released)
        create_markdown_artifact(f"```\n{table}\n```", key="summary")
        print(table, flush=True)
        run.take_release(released)


def release_or_reason() -> Release:
    """The release, or in its place why there is none, such as code that no commit holds."""
    try:
        return release()
    except NotPromoted as stopped:
        return Release(stopped.candidate, False, f"not promoted: {stopped}")
    except UserError as error:
        return Release(None, False, f"not released: {error}")


@task(cache_policy=NO_CACHE)
def render_sample(version: Candidate | None) -> Path | None:
    """A held-out person speaks with the sound of a held-out clip."""
    from omnihuman.pipeline import sample

    return sample.render_sample(version)


if __name__ == "__main__":
    sys.exit(as_command(pipeline))
