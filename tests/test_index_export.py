"""Exports of an index: what other software reads is what the store holds."""

import json
import uuid

import numpy as np
import pyarrow.parquet as pq
import pytest

from looklisten.app.cli import main
from looklisten.config import SIDES
from looklisten.errors import ConfigError, StoreError
from looklisten.search.moment_tables import table_moments
from looklisten.search.moments import row_id
from looklisten.search.opening import open_store
from store_moments import (
    SPACE,
    VECTORS,
    WIDTH,
    all_facts,
    facts,
    make_moment,
    make_source,
    unit_vectors,
)


@pytest.fixture(params=["arrow", "lance"])
def store(request, tmp_path):
    with open_store(tmp_path / "db", SPACE, WIDTH, request.param, create=True) as opened:
        opened.add(make_source("a.mp4", 700))
        rich = {"label": "dog", "marks": ("silent", "still"), "tags": {"Dog": 0.5, "Zug": 0.25}}
        opened.add([make_moment("b.mp4", 0, audio=None, **rich)])
        opened.add([make_moment("black.mp4", 0, vision=None)])
        yield opened


def test_parquet_holds_all_moments(store, tmp_path):
    path = tmp_path / "moments.parquet"
    store.export(path, "parquet")
    table = pq.read_table(path)
    moments = sorted(map(facts, table_moments(table)), key=lambda row: row[:2])
    assert moments == all_facts(store)
    assert table.schema.metadata[b"space_id"].decode() == SPACE
    assert table["vision"].null_count == 1


def test_qdrant_gets_a_collection_and_points_with_named_vectors(store, tmp_path):
    folder = tmp_path / "upload"
    store.export(folder, "qdrant")
    collection = json.loads((folder / "collection.json").read_text())
    assert collection == {
        "vectors": {side: {"size": WIDTH, "distance": "Cosine"} for side in ("vision", "audio")}
    }
    files = sorted(folder.glob("points-*.json"))
    assert len(files) == 2
    points = [point for file in files for point in json.loads(file.read_text())["points"]]
    assert len(points) == 702
    assert len({uuid.UUID(point["id"]) for point in points}) == 702
    of_source = {point["payload"]["source"]: point for point in points}
    assert list(of_source["b.mp4"]["vector"]) == ["vision"]
    assert list(of_source["black.mp4"]["vector"]) == ["audio"]
    vector = of_source["b.mp4"]["vector"]["vision"]
    np.testing.assert_allclose(vector, VECTORS[0], atol=6e-9)
    payload = of_source["b.mp4"]["payload"]
    assert (payload["label"], payload["tags"]) == ("dog", ["Dog", "Zug"])


def test_qdrant_answers_as_the_store_does(store, tmp_path):
    """Qdrant's own engine, in this process, takes the bodies and finds the same moments."""
    qdrant_client = pytest.importorskip("qdrant_client")
    models = qdrant_client.models
    folder = tmp_path / "upload"
    store.export(folder, "qdrant")
    collection = models.CreateCollection.model_validate_json(
        (folder / "collection.json").read_bytes()
    )
    client = qdrant_client.QdrantClient(":memory:")
    client.create_collection("moments", vectors_config=collection.vectors)
    # Twice: sending again adds none.
    for file in [*folder.glob("points-*.json")] * 2:
        points = models.PointsList.model_validate_json(file.read_bytes())
        client.upsert("moments", points=points.points)
    assert client.count("moments").count == 702
    assert client.count("moments", count_filter=_has_label(models, "dog")).count == 1
    query = unit_vectors(1, seed=7)[0]
    for side in SIDES:
        answer = client.query_points("moments", query=query.tolist(), using=side, limit=800)
        found = store.search(query, side, 800)
        assert len(found) == len(answer.points) == 701, "one moment lacks this side"
        similarities = {point.id: point.score for point in answer.points}
        for each in found:
            assert similarities[row_id(each.moment)] == pytest.approx(each.similarity, abs=1e-6)
    client.close()


def _has_label(models, label):
    match = models.FieldCondition(key="label", match=models.MatchValue(value=label))
    return models.Filter(must=[match])


def test_an_export_that_fails_leaves_nothing(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="could not be written"):
        store.export(tmp_path / "file" / "out", "parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "file"]


def test_the_verb_writes_an_export(store, tmp_path, capsys):
    assert main(["export-index", str(tmp_path / "db"), str(tmp_path / "out.parquet")]) == 0
    assert json.loads(capsys.readouterr().out)["moments"] == 702
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 702
    assert main(["export-index", str(tmp_path), str(tmp_path / "out")]) == 1
    assert "holds no index; make one with `looklisten index`" in capsys.readouterr().err


def test_an_export_never_replaces_a_folder_that_holds_other_files(store, tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match=r"holds letter\.txt, which would be lost"):
        store.export(folder, "qdrant")
    assert [file.name for file in folder.iterdir()] == ["letter.txt"]
    (folder / "letter.txt").unlink()
    store.export(folder, "qdrant")
    # A folder of an earlier export has nothing to lose.
    store.export(folder, "qdrant")
    assert (folder / "collection.json").is_file()
