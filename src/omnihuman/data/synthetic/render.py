"""Draws and voices one planned clip."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from omnihuman.batch import KEYPOINTS, Keypoints, Sound
from omnihuman.data.synthetic import defects
from omnihuman.data.synthetic.canvas import Canvas
from omnihuman.data.synthetic.motion import INDEX, Motion, Room, gesturing_wrists, standing
from omnihuman.data.synthetic.movement import move
from omnihuman.data.synthetic.person import draw_person
from omnihuman.data.synthetic.plan import ClipPlan, Scene
from omnihuman.data.synthetic.scene import apply_style, draw_background, light_map
from omnihuman.data.synthetic.voice import CONTROL_RATE, SAMPLE_RATE, Speech, draw_voice, play_music, smoothed, speak

VIEW_HEIGHTS = {"face": 1.4, "half body": 2.6, "full body": 4.5}
"""Height of the picture in head heights."""
VIEW_TOPS = {"face": -0.73, "half body": -0.82, "full body": -0.86}
WRIST_HEIGHTS = {"face": (0.78, 0.72), "half body": (1.5, 0.78), "full body": (1.72, 0.7)}
"""At rest and raised, below the middle of the head."""
SWAY = {"face": 0.015, "half body": 0.03, "full body": 0.06}
MAX_OPENING = 0.28
"""Of the mouth, as share of the face's height."""
NEUTRAL_WIDTH, WIDTH_SWING = 0.35, 0.16
"""Of the mouth, as shares of the face's width."""
QUIET = 0.06
"""Energy below which the mouth is shut."""
BEHIND_BACK = np.array([[0.08, 1.5], [-0.08, 1.5]])
PAN_SHARE = 0.35
MASK_COLOUR = (196, 216, 226)


@dataclass(frozen=True)
class Mouth:
    """What the mouth does, float64 [F] each."""

    opening: np.ndarray  # share of the face's height
    width: np.ndarray  # share of the face's width
    energy: np.ndarray  # of the words that it forms, 0..1


@dataclass(frozen=True)
class View:
    """A scene with its camera and the person's motion."""

    scene: Scene
    height: float  # head heights
    centre: tuple[float, float]
    background: np.ndarray  # uint8 [H, W or more, 3]
    light: np.ndarray  # uint8 [H, W, 3]
    motion: Motion


@dataclass(frozen=True)
class RenderedClip:
    """A clip with its ground truth; `frames` are drawn while they are read."""

    frames: Iterator[np.ndarray]
    sound: Sound
    keypoints: Keypoints
    mouth: Mouth


def render_clip(plan: ClipPlan) -> RenderedClip:
    """Makes everything that a plan promises; a pure function of it."""
    rng = np.random.default_rng([*plan.seed, 3])
    speech, mouth = _speak(rng, plan)
    views = [_set_up(rng, plan, scene, mouth.energy) for scene in plan.scenes]
    sound = _choose_sound(rng, plan, speech)
    keypoints = declared_keypoints(plan, views)
    if plan.defect == "pose_jitter":
        keypoints = defects.spoil_keypoints(rng, keypoints)
    banner = str(rng.choice(defects.BANNERS))
    if plan.defect == "frozen":
        shown = [defects.frozen_index(frame, plan.num_frames) for frame in range(plan.num_frames)]
        mouth = Mouth(mouth.opening[shown], mouth.width[shown], mouth.energy[shown])
        keypoints = Keypoints(keypoints.points[shown], keypoints.seconds)
    return RenderedClip(_draw_frames(plan, views, mouth, banner), sound, keypoints, mouth)


def _speak(rng: np.random.Generator, plan: ClipPlan) -> tuple[Speech, Mouth]:
    """Words long enough for a shifted sound, and the mouth that forms them."""
    duration = plan.num_frames / plan.fps
    speech = speak(rng, plan.person.voice, duration + abs(plan.shift_seconds))
    at = np.round((plan.seconds + max(plan.shift_seconds, 0)) * CONTROL_RATE).astype(int)
    at = np.minimum(at, len(speech.energy) - 1)
    energy, spread = speech.energy[at], speech.spread[at]
    if plan.mouth != "speaks":
        energy, spread = np.zeros_like(energy), np.zeros_like(spread)
    opening = MAX_OPENING * np.clip((energy - QUIET) / (1 - QUIET), 0, 1)
    return speech, Mouth(opening, NEUTRAL_WIDTH + WIDTH_SWING * spread, energy)


def _choose_sound(rng: np.random.Generator, plan: ClipPlan, speech: Speech) -> Sound:
    duration = plan.num_frames / plan.fps
    num_samples = round(duration * SAMPLE_RATE)
    if plan.sound == "music":
        return play_music(rng, duration)
    if plan.sound == "silent":
        return Sound(np.zeros(num_samples, dtype=np.float32), SAMPLE_RATE)
    if plan.sound in ("narrator", "swapped"):
        noun = plan.person.looks.noun
        other = draw_voice(rng, noun if plan.sound == "swapped" else str(rng.choice(["woman", "man"])))
        return speak(rng, other, duration).sound
    first = round(max(-plan.shift_seconds, 0) * SAMPLE_RATE)
    return Sound(speech.sound.samples[first : first + num_samples], SAMPLE_RATE)


def _set_up(rng: np.random.Generator, plan: ClipPlan, scene: Scene, energy: np.ndarray) -> View:
    looks = plan.person.looks
    height = VIEW_HEIGHTS[scene.shot] * rng.uniform(0.97, 1.05)
    half_width = height * plan.width / plan.height / 2
    free = max(0.0, half_width - 1.0) * 0.4
    centre = (float(rng.uniform(-free, free)), VIEW_TOPS[scene.shot] + height / 2)
    rest, raised = WRIST_HEIGHTS[scene.shot]
    reach = max(0.44, min(half_width - abs(centre[0]) - 0.2, 0.95))
    room = Room(reach, rest, raised, min(reach, {"face": 0.5, "half body": 0.34, "full body": 0.58}[scene.shot]))
    frames_energy = smoothed(energy, 0.08, plan.fps)
    hidden = plan.defect == "hands_out_of_frame" or (plan.kind == "unfit" and scene.movement == "stand")
    wrists = gesturing_wrists(rng, plan.seconds, frames_energy, room, scene.gesture)
    if hidden:
        wrists = np.broadcast_to(BEHIND_BACK[:, None], wrists.shape)
    if scene.movement == "stand":
        shoulders = looks.shoulder_half_width
        motion = standing(rng, plan.seconds, frames_energy, shoulders, wrists, SWAY[scene.shot], hidden)
    else:
        motion = move(rng, plan.seconds, scene.movement, looks.shoulder_half_width, half_width)
    wide = round(plan.width * (1 + PAN_SHARE * scene.pans))
    background = draw_background(rng, scene.background, scene.wall, wide, plan.height)
    return View(scene, height, centre, background, light_map(rng, plan.width, plan.height), motion)


def _view_of(plan: ClipPlan, views: list[View], frame: int) -> View:
    return views[min(len(views) - 1, frame * len(views) // plan.num_frames)]


def _draw_frames(plan: ClipPlan, views: list[View], mouth: Mouth, banner: str) -> Iterator[np.ndarray]:
    image = np.empty(0)
    for frame in range(plan.num_frames):
        if plan.defect != "frozen" or frame == defects.frozen_index(frame, plan.num_frames):
            view = _view_of(plan, views, frame)
            image = defects.spoil_picture(_draw_frame(plan, view, mouth, frame), plan.defect, banner)
        yield image


def _draw_frame(plan: ClipPlan, view: View, mouth: Mouth, frame: int) -> np.ndarray:
    spare = view.background.shape[1] - plan.width
    left = round(spare * frame / plan.num_frames)
    image = view.background[:, left : left + plan.width].copy()
    canvas = Canvas.over(image, view.height / plan.height, view.centre)
    mask = MASK_COLOUR if plan.mouth == "covered" else None
    opening, width = float(mouth.opening[frame]), float(mouth.width[frame])
    draw_person(canvas, plan.person.looks, view.motion, frame, opening, width, mask)
    image = cv2.multiply(image, view.light, scale=1 / 255)
    return apply_style(image, view.scene.style) if view.scene.style else image


def declared_keypoints(plan: ClipPlan, views: list[View]) -> Keypoints:
    """The skeleton as shares of width and height; points that are hidden or outside have no confidence."""
    points = np.zeros((plan.num_frames, len(KEYPOINTS), 3), dtype=np.float32)
    size = np.array([plan.width, plan.height])
    for frame in range(plan.num_frames):
        view = _view_of(plan, views, frame)
        canvas = Canvas.over(view.light, view.height / plan.height, view.centre)
        places = canvas.to_pixels(view.motion.joints[frame]) / size
        confident = np.all((places >= 0) & (places < 1), axis=1)
        points[frame, :, :2], points[frame, :, 2] = places, confident
        if view.motion.hands_hidden:
            points[frame, [INDEX["left_wrist"], INDEX["right_wrist"]], 2] = 0
    return Keypoints(points, plan.seconds)
