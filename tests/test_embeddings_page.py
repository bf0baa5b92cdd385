"""The code of docs/embeddings.md runs as it stands, in a folder that has what it names."""

import os
import re
import shutil
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "embeddings.md"


def test_the_code_of_the_page_runs(world, run_path, tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    shutil.copytree(run_path, tmp_path / "runs" / "tiny", symlinks=True)
    for name, number in (("clip.mp4", 0), ("other.mp4", 1)):
        shutil.copy(world / f"{number:06d}.mp4", tmp_path / name)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        exec("\n".join(blocks), {})
    finally:
        os.chdir(before)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("(4, 16) [0.  0.5 1. ] pool4")
    assert lines[1] == "(4, 16) (4, 16)"
    assert lines[-1] == "['bell' 'drum']"
