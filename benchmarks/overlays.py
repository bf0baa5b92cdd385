"""A page of overlays to look at: every video of a folder under the maps of a network, with how sure
it was that the sound belongs.

    python benchmarks/overlays.py VIDEOS RUN OUT [--method similarity]

Writes OUT/index.html and a film for each video. Videos that cannot be read are named with the
reason. Nobody marked what sounds in them, so there is no figure but the network's own; look for
yourself.
"""

import argparse
import html
from pathlib import Path
from statistics import mean

import looklisten as ll

PAGE = """<!doctype html><meta charset="utf-8"><title>overlays</title>
<style>body {{ background: #16181c; color: #ddd; font: 15px sans-serif; margin: 2em }}
figure {{ display: inline-block; width: 30em; margin: 0 1em 1em 0; vertical-align: top }}
video {{ width: 100% }}</style>
<h1>{count} videos under the maps of {run}</h1>
{figures}
<p>{failures}</p>
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", type=Path)
    parser.add_argument("run")
    parser.add_argument("out", type=Path)
    parser.add_argument("--method", choices=["correspondence", "similarity", "unit"])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model = ll.load(options.run)
    figures, failures = [], []
    print("| video | belongs, mean | lowest | highest | highest value of the map, mean |")
    print("| --- | --- | --- | --- | --- |")
    for video in sorted(path for path in options.videos.iterdir() if path.is_file()):
        try:
            localizations = ll.localize(video, model, every_seconds=0.2, method=options.method)
            overlay = ll.overlay(video, localizations, options.out / f"{video.stem}.mp4")
        except ll.LookListenError as error:
            failures.append(html.escape(f"{video.name}: {error}"))
            continue
        probabilities = [item.probability for item in localizations]
        average, lowest, highest = mean(probabilities), min(probabilities), max(probabilities)
        peak = mean(float(item.frame_map.values.max()) for item in localizations)
        cells = [average, lowest, highest, peak]
        print(f"| {video.name} |", " | ".join(f"{cell:.2f}" for cell in cells), "|", flush=True)
        caption = html.escape(
            f"{video.name}, belongs: {average:.0%} ({lowest:.0%} to {highest:.0%})"
        )
        player = f'<video controls preload="metadata" src="{html.escape(overlay.name)}"></video>'
        figures.append(f"<figure>{player}<figcaption>{caption}</figcaption></figure>")
    (options.out / "index.html").write_text(
        PAGE.format(
            count=len(figures),
            run=html.escape(options.run),
            figures="\n".join(figures),
            failures="<br>".join(failures),
        ),
        encoding="utf-8",
    )
    print(f"open {options.out / 'index.html'}")


if __name__ == "__main__":
    main()
