"""The documents do what they say: help pages are current, commands exist, and code blocks run."""

import importlib.util
import re
import shlex
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import looklisten as ll
from conftest import small_config, write_wav
from labeled_set_files import esc_rows, write_table
from looklisten.app.cli import main
from looklisten.app.verbs import VERBS

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]

TESTS_OF_PAGES = {
    "README.md": "test_docs.py",
    "docs/verbs.md": "test_docs.py",
    "docs/embeddings.md": "test_embeddings_page.py",
    "docs/interchange.md": "test_interchange.py",
    "docs/openl3.md": "test_openl3_files.py",
    "docs/public-sets.md": "test_public_sets.py",
    "docs/search.md": "test_search.py",
    "docs/serve.md": "test_serve.py",
}
"""The test file that runs the blocks of each page. Other pages must say why theirs are not run."""

CODE_LANGUAGES = ("sh", "python")
REASON = re.compile(r"<!-- not run: .+ -->\n\Z")


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str
    has_reason: bool
    """Whether a comment above the block says why no test runs it."""


def blocks_of(page):
    """The fenced blocks of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        before = text[: match.start()]
        yield Block(page, before.count("\n") + 1, match[1], match[2], bool(REASON.search(before)))


CODE_BLOCKS = [
    block for page in PAGES for block in blocks_of(page) if block.language in CODE_LANGUAGES
]


def commands_of(block):
    """The words of each `looklisten` command in a block, without the comment behind it."""
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if "looklisten" in words[:1]:
            yield words[1:]
        elif "-m" in words and words[words.index("-m") + 1] == "looklisten":
            yield words[words.index("-m") + 2 :]


def load_generator():
    """docs/generate.py, which is a script and no part of the package."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pinned_version(package):
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return re.search(rf"^{package}==(\S+)", text, re.MULTILINE)[1]


@pytest.mark.skipif(
    version("tyro") != pinned_version("tyro") or sys.version_info >= (3, 13),
    reason="other versions of tyro and argparse print help differently",
)
def test_verbs_page_has_the_help_of_every_verb():
    page = ROOT / "docs" / "verbs.md"
    text = page.read_text(encoding="utf-8")
    assert load_generator().with_help(text) == text, "run `python docs/generate.py`"


def test_readme_has_every_module_with_what_it_is():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    generator = load_generator()
    assert generator.with_tree(text) == text, "run `python docs/generate.py`"
    for line in generator.tree():
        name, _, sentence = line.strip().partition(" ")
        assert 10 <= len(sentence.strip()) <= 100, f"{name} needs a first sentence of one line"


def test_every_verb_has_a_section():
    text = (ROOT / "docs" / "verbs.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^## (\S+)$", text, re.MULTILINE)) == sorted(VERBS)


def test_every_code_block_is_run_or_says_why_not():
    unexplained = [
        f"{block.page}:{block.line}"
        for block in CODE_BLOCKS
        if block.page not in TESTS_OF_PAGES and not block.has_reason
    ]
    assert not unexplained, "add a test, or above the block: <!-- not run: REASON -->"
    for page, test in TESTS_OF_PAGES.items():
        text = (ROOT / "tests" / test).read_text(encoding="utf-8")
        assert Path(page).name in text, f"{test} does not run {page}"


def test_every_command_has_a_verb_and_options_that_exist(capsys):
    helps = {}
    for block in CODE_BLOCKS:
        for verb, *words in commands_of(block):
            if verb not in helps:
                with pytest.raises(SystemExit):
                    main([verb, "--help"])
                helps[verb] = capsys.readouterr().out
            for word in words:
                option = word.partition("=")[0]
                if option.startswith("-"):
                    pattern = rf"(^|[\s,]){re.escape(option)}[\s,]"
                    exists = re.search(pattern, helps[verb], re.MULTILINE)
                    assert exists, f"{block.page}:{block.line}: {verb} has no {option}"


# Half of the videos is held out, because an evaluation on a few videos needs many batches.
SMALL_TRAINING = (
    "--train.steps 2 --train.batch-size 4 --train.held-out-fraction 0.5 "
    "--model.widths 4 8 8 16 --model.resize-pixels 64 --model.crop-pixels 48"
)
SMALLER = {
    "train": shlex.split(SMALL_TRAINING),
    "evaluate": ["--pairs", "20"],
    "probe": ["--partial", "--compare", "none"],
}
"""Options that make a verb of a page fast. The set that it probes is a part of the real one."""


def run_page(page, capsys):
    """Run the blocks of a page in order, in the current folder and in one namespace."""
    names = {"ll": ll}
    for block in blocks_of(page):
        if block.has_reason:
            continue
        if block.language == "python":
            text = block.text.replace('ll.Config.load("tiny")', "small_config")
            names["small_config"] = small_config(steps=2, held_out_fraction=0.5)
            exec(text, names)
        elif block.language == "sh":
            for verb, *words in commands_of(block):
                code = main([verb, *words, *SMALLER.get(verb, [])])
                assert code == 0, (verb, words, capsys.readouterr().err)
    return names


@pytest.fixture
def user_folder(world, tmp_path, monkeypatch):
    """A current folder with the media that the pages name."""
    monkeypatch.chdir(tmp_path)
    Path("my_videos").mkdir()
    for number in range(16):
        shutil.copy(world / f"{number:06d}.mp4", "my_videos")
    shutil.copy(world / "000000.mp4", "clip.mp4")
    shutil.copy(world / "000001.mp4", "my_videos/clip.mp4")
    write_wav(Path("my_sounds/tone.wav"), sine(440, 2.0), 48_000)
    write_images(Path("my_images"))
    write_esc50(Path("ESC-50"))
    shutil.copytree("ESC-50", "ESC-50-master")
    return tmp_path


def sine(frequency_hz, seconds, sample_rate_hz=48_000):
    times = np.arange(int(seconds * sample_rate_hz)) / sample_rate_hz
    return np.sin(2 * np.pi * frequency_hz * times).astype(np.float32) / 2


def write_images(root):
    """A folder per class; the images of a class have one color and some noise."""
    noise = np.random.default_rng(0)
    for name, color in (("red", (200, 60, 60)), ("blue", (60, 60, 200))):
        (root / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.array(color) + noise.integers(-40, 40, (128, 128, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")


def write_esc50(root):
    """A few clips in the layout of ESC-50, each class a pitch."""
    rows = esc_rows(classes=3)
    write_table(root / "meta" / "esc50.csv", rows)
    for row in rows:
        pitch_hz = 200 * (2 + row["target"]) + row["fold"]
        write_wav(root / "audio" / row["filename"], sine(pitch_hz, 5.0), 48_000)


@pytest.mark.timeout(600)
def test_readme_runs(user_folder, capsys):
    run_page("README.md", capsys)
    for name in ("shards", "runs/tiny", "runs/mine", "maps/overlay.mp4", "units.html", "vectors"):
        assert (user_folder / name).exists()


@pytest.mark.timeout(600)
def test_verbs_page_runs(user_folder, shards_path, run_path, capsys):
    shutil.copytree(shards_path, "shards")
    for name in ("tiny", "mine", "general"):
        shutil.copytree(run_path, f"runs/{name}", symlinks=True)
    run_page("docs/verbs.md", capsys)
    assert (user_folder / "overlay.mp4").exists()
