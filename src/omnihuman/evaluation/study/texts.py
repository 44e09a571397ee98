"""Every text of the page, in one place: a language is one more entry, and a study may word any of them otherwise."""

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "intro": "You will see short videos side by side, which may have been made by a computer. For each question "
        "choose the one that answers it best. Look and listen as often as you like; if you cannot say, say so.",
        "keys": "Keys: 1, 2, ... choose; 0 cannot say; space plays and stops; left and right arrow scrub; S moves the "
        "sound to the next video; Backspace goes back.",
        "sound_on": "Please wear headphones, or turn the sound on.",
        "rater": "Your code or name",
        "unknown_rater": "This code is not on the list of this study.",
        "start": "Start",
        "going_on": "Go on where you were",
        "not_saved": "This browser keeps nothing: do not close the page before the end.",
        "progress": "{done} of {all}",
        "picture": "The person",
        "video": "Video {number}",
        "play": "Play",
        "stop": "Stop",
        "time": "Time",
        "cannot_say": "Cannot say",
        "back": "Back",
        "video_failed": "A video cannot be loaded. Reload the page; if that does not help, choose “cannot say”.",
        "thanks": "Thank you! Download your answers and send the file to whoever asked you.",
        "so_far": "Download the answers so far",
        "download": "Download the answers",
        "identity": "In which is the person most like one and the same person throughout?",
        "identity_picture": "Which person is most like the one in the picture?",
        "lip_sync": "In which do the lips follow the sound best?",
        "quality": "Which looks cleanest: sharp, without distortions?",
        "motion": "Which moves most naturally?",
        "overall": "Which is best overall?",
    }
}
QUESTIONS = ("identity", "lip_sync", "quality", "motion", "overall")
"""The dimensions that a study may ask for; the text of each has the same name."""
