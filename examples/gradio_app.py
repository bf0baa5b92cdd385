"""An app for a Hugging Face Space: a video -> the same video with its heat map, and its score.

    pip install 'looklisten' 'gradio>=6.16'      # older versions of gradio have known holes
    python examples/gradio_app.py

No test runs it: gradio is no dependency of the package, and `looklisten serve` has a page of its
own that needs none. It was run once, with gradio 6.31.
"""

import os
import tempfile
from pathlib import Path

# Before the import of gradio, which reads it there.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio

import looklisten as ll

model = ll.load(os.environ.get("LOOKLISTEN_CHECKPOINT", "start"))
folder = Path(tempfile.mkdtemp())


def show_map(video: str) -> tuple[str, str]:
    """The address of the overlay, and how likely sound and picture belong together."""
    try:
        moments = ll.localize(video, model, every_seconds=0.2)
        out = ll.overlay(video, moments, folder / f"{Path(video).stem}.mp4")
    except ll.LookListenError as error:
        # Visitors need no path of the server.
        raise gradio.Error(str(error).replace(video, Path(video).name)) from None
    probabilities = [moment.probability for moment in moments if not moment.is_silent]
    if not probabilities:
        return str(out), "The sound is silent."
    mean = sum(probabilities) / len(probabilities)
    return str(out), f"The sound belongs to the picture: {mean:.0%}"


page = gradio.Interface(
    show_map,
    gradio.Video(label="A video with sound, a minute at most"),
    [gradio.Video(label="Where the sound comes from"), gradio.Textbox(label="Score")],
    title="looklisten",
    flagging_mode="never",
)

if __name__ == "__main__":
    page.queue(max_size=16).launch(max_file_size="100mb", allowed_paths=[str(folder)])
