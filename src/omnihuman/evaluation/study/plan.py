"""Which videos stand side by side, under names that tell nothing."""

import hashlib
import random
from collections.abc import Sequence
from itertools import combinations

from omnihuman.errors import UserError
from omnihuman.evaluation.study.description import Description
from omnihuman.evaluation.study.key import Trial, Video

_NAME_CHARACTERS = 20


def hidden(secret: str, *names: str) -> str:
    """A name that only who has the secret can compute."""
    return hashlib.sha256("\0".join((secret, *names)).encode()).hexdigest()[:_NAME_CHARACTERS]


def plan(description: Description, items: Sequence[str], secret: str) -> tuple[dict[str, Video], dict[str, Trial]]:
    """The videos and trials by hidden name, in the order of these names.

    An item is compared in every set of systems that stand side by side. An anchor trial is one of these with one video
    replaced by a damaged one of itself; systems take turns.

    Raises:
        UserError: the study has fewer trials than it asks anchors, repeats or trials per rater of.
    """
    sets = [(item, names) for item in items for names in combinations(description.systems, description.num_shown)]
    _check_counts(description, len(sets))
    videos, trials = {}, {}

    def add(item: str, names: Sequence[str], damaged: str = "") -> None:
        shown = []
        for name in names:
            video = Video(name, item, name == damaged)
            shown.append(hidden(secret, "video", name, item, str(video.is_damaged)))
            videos[shown[-1]] = video
        trial = hidden(secret, "trial", item, damaged, *names)
        trials[trial] = Trial(item, tuple(sorted(shown)), bool(damaged))

    for item, names in sets:
        add(item, names)
    for index, (item, names) in enumerate(random.Random(secret).sample(sets, description.anchors)):
        add(item, names, damaged=names[index % len(names)])
    return dict(sorted(videos.items())), dict(sorted(trials.items()))


def _check_counts(description: Description, num_trials: int) -> None:
    per_rater = description.trials_per_rater or num_trials
    problems = {
        f"anchors is {description.anchors}, but there are {num_trials} trials": description.anchors > num_trials,
        f"trials_per_rater is {per_rater}, but there are {num_trials}": per_rater > num_trials,
        f"repeats is {description.repeats}; at most half of a rater's {per_rater} trials can be repeated, so that some"
        " time lies in between": description.repeats > per_rater // 2,
    }
    for problem, is_there in problems.items():
        if is_there:
            raise UserError(f"study: {problem}; give more items or ask for fewer")
