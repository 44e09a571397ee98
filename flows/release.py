"""Register the trained model, hold it against the gate, make it champion."""

from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from omnihuman.pipeline.release import Candidate, Release
from omnihuman.pipeline.services import PROMOTION_LIMIT, server_address


@flow(name="release")
def release(override: str = "") -> Release:
    """Makes the trained model the champion if it passes the gate; if not, that is an answer, no error.

    Args:
        override: why a failed gate does not matter this time; recorded.
    """
    done = promote(register(), override)
    get_run_logger().info(done.said)
    return done


@task(cache_policy=NO_CACHE)
def register() -> Candidate:
    """The checkout's model as `candidate`."""
    from omnihuman.pipeline.release import register_checkout

    return register_checkout(Path.cwd())


@task(cache_policy=NO_CACHE)
def promote(candidate: Candidate, override: str) -> Release:
    """Gate, smoke test, alias; one promotion at a time on all workers of a server."""
    from prefect.concurrency.sync import concurrency

    from omnihuman.pipeline.bootstrap import limit_promotions
    from omnihuman.pipeline.release import promote_candidate

    if not server_address():
        return promote_candidate(candidate, override)
    limit_promotions()  # a server that `omnihuman up` did not start may lack it
    with concurrency(PROMOTION_LIMIT, strict=True):
        return promote_candidate(candidate, override)
