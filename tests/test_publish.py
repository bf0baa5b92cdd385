"""A network that leaves the house comes back the same, by every road, and its card says its own
numbers and no others.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import looklisten as ll
from conftest import small_config
from hub_server import HubServer
from looklisten.app.cli import main
from looklisten.interop.hub import _hub_client
from looklisten.model.checkpoint import open_checkpoint
from looklisten.model.networks import Run, hub_name
from looklisten.training.metrics_log import read_metrics

SOUND = torch.randint(
    -9000, 9000, (2, 48_000), dtype=torch.int16, generator=torch.Generator().manual_seed(5)
)


def heard(model):
    with torch.inference_mode():
        return model.listen(SOUND).vector


def equal(one, other):
    return all(
        torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items()
    ) and torch.equal(heard(one), heard(other))


@pytest.fixture(scope="module")
def published(run_path, tmp_path_factory):
    out = tmp_path_factory.mktemp("published") / "mine"
    assert main(["publish", str(run_path), str(out)]) == 0
    return out


def test_run_checkpoint_and_published_folder_are_one_network(run_path, published):
    by_run = ll.load(run_path)
    assert not by_run.training
    for where in (str(run_path), open_checkpoint(run_path).path, published, str(published)):
        assert equal(by_run, ll.load(where))
    assert equal(by_run, ll.from_pretrained(published))


def test_a_published_folder_is_published_again_with_the_same_facts(published, tmp_path):
    again = ll.save_pretrained(published, tmp_path / "mine")
    assert (again / "README.md").read_text() == (published / "README.md").read_text()
    assert equal(ll.load(published), ll.load(again))


def test_weights_have_plain_keys_and_no_pickle(published):
    from safetensors import safe_open

    assert sorted(path.name for path in published.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    with safe_open(published / "model.safetensors", "pt") as weights:
        assert set(weights.keys()) == set(ll.L3Net(small_config().model).state_dict())


def test_the_card_has_the_runs_own_numbers(run_path, published, shards):
    card = (published / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert (header["library_name"], header["license"]) == ("looklisten", "unknown")
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", card, re.M))
    held_out = shards.held_out_mask(0.1)
    hours = (
        sum(clip.duration_seconds for clip, out in zip(shards, held_out, strict=True) if not out)
        / 3600
    )
    assert (
        rows["trained on"] == f"{len(set(shards.video_ids[~held_out]))} videos, {hours:.4g} hours"
    )
    accuracy = [row for row in read_metrics(run_path) if "held_out_accuracy" in row][-1]
    assert rows["AVC accuracy on held-out videos"].startswith(
        f"{accuracy['held_out_accuracy']:.4g} at step 20 (at least 2,000 pairs"
    )
    assert (rows["steps"], rows["seed"]) == ("20, each of 8 videos", "0")
    assert rows["linear probe of sounds"] == rows["other benchmarks"] == "not measured"
    assert torch.__version__ in rows["begun on"]
    settings = json.loads((published / "config.json").read_text())["config"]
    assert ll.Config.of(settings, "the card") == open_checkpoint(run_path).config


def test_the_card_loads_what_it_lies_beside(published, capsys, monkeypatch):
    monkeypatch.chdir(published.parent)
    exec(re.search(r"```python\n(.*?)```", (published / "README.md").read_text(), re.S)[1], {})
    assert capsys.readouterr().out.split("\n")[:2] == ["torch.Size([1, 16])"] * 2


def test_a_bare_network_has_a_card_that_knows_nothing(tmp_path):
    model = ll.L3Net(small_config().model).eval()
    folder = ll.save_pretrained(model, tmp_path / "bare")
    card = (folder / "README.md").read_text()
    assert card.count("not measured |") == 4
    assert "| steps | not recorded |" in card
    assert equal(model, ll.load(folder))
    again = ll.save_pretrained(folder, tmp_path / "again", "bare")
    assert (again / "README.md").read_text() == card, "defaults are not what it was trained with"
    with pytest.raises(ll.LookListenError, match="nobody knows which videos were held out"):
        _ = ll.open(folder).split


def test_an_older_run_without_its_making_is_published_all_the_same(run_path, tmp_path):

    old = tmp_path / "old"
    shutil.copytree(run_path, old, symlinks=True)
    (old / "made.json").unlink()
    assert (
        "| trained on | not recorded |"
        in (ll.save_pretrained(old, tmp_path / "out") / "README.md").read_text()
    )


def test_saving_keeps_what_else_lies_in_the_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    ll.save_pretrained(ll.L3Net(small_config().model), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_verbs_take_a_published_folder(published, shards_path, capsys):
    assert (
        main(["evaluate", str(shards_path), "--checkpoint", str(published), "--pairs", "40"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["n_pairs"] >= 40


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json is damaged"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
            r"config\.json is of another library",
        ),
        (
            lambda folder: (folder / "model.safetensors").unlink(),
            r"holds no whole network .*README\.md says how to load a single tower",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99),
            r"its bytes are not those that were written",
        ),
    ],
)
def test_a_broken_folder_is_one_sentence(break_it, sentence, tmp_path):
    folder = ll.save_pretrained(ll.L3Net(small_config().model), tmp_path / "model")
    break_it(folder)
    with pytest.raises(ll.LookListenError, match=sentence):
        ll.load(folder)


def test_what_is_a_name_on_the_hub_and_what_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    names = {
        where: hub_name(where)
        for where in (
            "org/name",
            "here/name",
            "runs/tiny",
            "./a/b",
            "a/b/c",
            "/a/b",
            "name",
            "hf-hub:here/name",
        )
    }
    assert {where: name for where, name in names.items() if name} == {
        "org/name": "org/name",
        "hf-hub:here/name": "here/name",
    }
    assert hub_name(Path("org/name")) is None
    with pytest.raises(
        ll.LookListenError, match=r"runs/tiny is not there; give the folder of a run"
    ):
        ll.load("runs/tiny")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    model = ll.L3Net(small_config().model).eval()
    ll.save_pretrained(model, "org/name")
    assert equal(model, ll.load("org/name")), "a folder that is here needs no Hub"


def test_a_network_of_another_house_is_refused_where_it_cannot_do(capsys):
    with pytest.raises(ll.LookListenError, match="openl3:audio-mel256-env is a network of OpenL3"):
        _ = Run("openl3:audio-mel256-env", torch.nn.Identity()).l3net


def test_without_the_extra_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ll.LookListenError, match=r"org/name is not a folder here.*pip install 'looklisten\[hub\]'"
    ):
        ll.load("org/name")


def test_without_a_connection_the_sentence_says_so_in_plain_words():
    from huggingface_hub.errors import LocalEntryNotFoundError

    sentence = "cannot be reached; connect to the internet, or give the folder of a run"
    with pytest.raises(ll.LookListenError, match=sentence), _hub_client("org/name"):
        raise LocalEntryNotFoundError("cannot find the appropriate snapshot folder")


DOWN = """
try:
    ll.load("org/none")
except ll.LookListenError as error:
    print(error)
model = ll.from_pretrained("org/small", map_location="cpu")
assert all(torch.equal(value, model.state_dict()[key]) for key, value in ll.load(sys.argv[1]).state_dict().items())
"""
IMPORTS = """
import sys, torch
import looklisten as ll
"""
UP = """
print(ll.push_to_hub(sys.argv[1], "org/small", private=True))
"""


def test_up_to_a_hub_and_down_again_and_then_without_one(published, tmp_path):
    """The real client against a server on this machine, which has no LFS: what is uploaded is the
    folder, byte for byte.
    """
    hub = HubServer()
    asked = os.environ | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path),
        "HF_TOKEN": "hf_none",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }

    def python(program, **more):
        return subprocess.run(
            [sys.executable, "-c", program, published],
            env=asked | more,
            check=False,
            capture_output=True,
            text=True,
        )

    trip = python(IMPORTS + UP + DOWN)
    assert trip.returncode == 0, trip.stderr
    address, missing = trip.stdout.splitlines()
    assert address == f"{hub.endpoint}/org/small"
    assert missing.startswith(
        "org/none is not a folder here, and the Hugging Face Hub did not give it: it has no model of this name"
    )
    made = hub.created["org/small"]  # the client says it in one word or the other, by its version
    assert made.get("visibility") == "private" or made.get("private") is True
    uploaded = hub.models["org/small"]
    assert set(uploaded) - {".gitattributes"} == {"README.md", "config.json", "model.safetensors"}
    for name in ("config.json", "model.safetensors"):
        assert uploaded[name] == (published / name).read_bytes()
    assert b'model = ll.load("org/small")' in uploaded["README.md"]
    requests = len(hub.asked)
    offline = python(IMPORTS + DOWN, LOOKLISTEN_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert (
        "the model is not in the cache, and downloads are off (LOOKLISTEN_OFFLINE" in offline.stdout
    )
    assert len(hub.asked) == requests, "offline nothing is asked"
    hub.shutdown()
    hub.server_close()
