"""The page docs/interchange.md does what it says: its blocks run, in order, as one program."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from hub_server import HubServer

PAGE = Path(__file__).parents[1] / "docs" / "interchange.md"
END = """
assert vectors.shape[:2] == milliseconds.shape and vectors.shape[::2] == scenes.shape
"""


def program(page):
    """The page's blocks as Python, lines of the shell as calls of `main`."""
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", page, re.M | re.S):
        if language == "sh":
            for line in block.splitlines():
                yield f"from looklisten.app.cli import main\nassert main({shlex.split(line)[1:]!r}) == 0\n"
        else:
            assert language == "python", language
            yield block


def test_every_block_of_the_page_runs(run_path, tmp_path):
    shutil.copytree(run_path, tmp_path / "runs" / "tiny", symlinks=True)
    text = "".join(program(PAGE.read_text(encoding="utf-8"))) + END
    assert text.count("main(") == 3
    hub = HubServer()
    asked = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": "hf_none",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    process = subprocess.run(
        [sys.executable, "-c", text],
        env=os.environ | asked,
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    hub.shutdown()
    hub.server_close()
    assert process.returncode == 0, process.stderr
    assert "org/name" in hub.models
