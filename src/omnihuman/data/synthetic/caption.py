"""Says in plain words what a planned clip shows."""

from omnihuman.data.synthetic.plan import ClipPlan
from omnihuman.data.synthetic.scene import describe_background

STYLE_PHRASES = {
    "sketch": "drawn as a pencil sketch",
    "night": "in blue night light",
    "sepia": "in sepia tones",
    "pastel": "painted in flat pastel colours",
}
MOVEMENT_PHRASES = {
    "dance": "dances",
    "walk": "walks through the picture",
    "jump": "jumps up and down",
    "turn": "turns away from the camera",
    "back": "stands with {possessive} back to the camera",
    "stand": "stands with {possessive} hands behind {possessive} back",
}
GESTURE_PHRASES = {
    "still": "",
    "wave": "waves {possessive} {side} hand",
    "raise": "raises {possessive} {side} hand",
    "spread": "moves both hands",
}


def describe_person(plan: ClipPlan) -> str:
    """`a woman with short red hair in a green shirt`."""
    looks = plan.person.looks
    if looks.hair_style == "bald":
        hair = "a bald man"
    else:
        nouns = {
            "bob": f"a bob of {looks.hair_name} hair",
            "bun": f"{looks.hair_name} hair in a bun",
            "ponytail": f"a {looks.hair_name} ponytail",
        }
        hair = f"a {looks.noun} with " + nouns.get(looks.hair_style, f"{looks.hair_style} {looks.hair_name} hair")
    article = "an" if looks.top_name[0] in "aeiou" else "a"
    worn = (["glasses"] if looks.glasses else []) + (["a beard"] if looks.beard else [])
    extras = f" with {' and '.join(worn)}" if worn else ""
    return f"{hair} in {article} {looks.top_name} {looks.top_style}{extras}"


def describe_clip(plan: ClipPlan) -> str:
    """One sentence without a full stop."""
    scene, looks = plan.scenes[0], plan.person.looks
    place = describe_background(scene.background, scene.wall)
    person = describe_person(plan)
    if plan.kind == "unfit":
        does = MOVEMENT_PHRASES[scene.movement].format(possessive=looks.possessive)
        masked = " wearing a mask" if plan.mouth == "covered" else ""
        style = f", {STYLE_PHRASES[scene.style]}" if scene.style else ""
        pan = ", the camera pans" if scene.pans else ""
        return f"{person}{masked} {does} {place}{style}{pan}"
    kind, _, side = scene.gesture.partition(" ")
    if plan.defect == "hands_out_of_frame":
        kind = "still"
    gesture = GESTURE_PHRASES[kind].format(possessive=looks.possessive, side=side)
    return f"{person} talks {place}" + (f" and {gesture}" if gesture else "")
