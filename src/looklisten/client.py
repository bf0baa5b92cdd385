"""A client of `looklisten serve`: the same records, without torch and numpy.

    client = Client("http://127.0.0.1:8080")
    print(client.score("clip.mp4").probability)

Needs httpx (extra `serve`).
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from looklisten.errors import ConfigError, LookListenError
from looklisten.serving.records import (
    EmbedReply,
    IndexReply,
    Job,
    LocalizeReply,
    MarkedMoment,
    ModelReply,
    ScoreReply,
    SearchReply,
    TagRequest,
    TagsReply,
)

try:
    import httpx
except ImportError:
    raise ConfigError(
        "the client needs the package httpx; run: pip install 'looklisten[serve]'"
    ) from None

Reply = TypeVar("Reply", bound=BaseModel)
FilePath = str | Path


class ServerError(LookListenError):
    """A request that the server refused, with its sentence; `status` is that of HTTP."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


class Client:
    """Asks a server. `choices` of the methods are the fields of the forms, such as `layer`."""

    def __init__(
        self, address: str, token: str | None = None, timeout_seconds: float = 120.0
    ) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout_seconds)

    def model(self) -> ModelReply:
        """The network and the limits of the server."""
        return self._ask(ModelReply, "GET", "/v1/model")

    def embed(self, file: FilePath, **choices: Any) -> EmbedReply:
        """Vectors of a file."""
        return self._upload(EmbedReply, "/v1/embed", {"file": file}, choices)

    def score(self, file: FilePath, **choices: Any) -> ScoreReply:
        """Whether the sound of a video belongs to its picture."""
        return self._upload(ScoreReply, "/v1/score", {"file": file}, choices)

    def score_pair(self, picture: FilePath, sound: FilePath, **choices: Any) -> ScoreReply:
        """Whether a sound belongs to a picture."""
        files = {"picture": picture, "sound": sound}
        return self._upload(ScoreReply, "/v1/score", files, choices)

    def localize(self, file: FilePath, **choices: Any) -> LocalizeReply:
        """Heat maps of a video."""
        return self._upload(LocalizeReply, "/v1/localize", {"file": file}, choices)

    def overlay(self, file: FilePath, **choices: Any) -> Job:
        """Begin to draw a video with its heat maps."""
        return self._upload(Job, "/v1/localize", {"file": file}, choices | {"format": "video"})

    def search(self, file: FilePath | None = None, **choices: Any) -> SearchReply:
        """Scenes of the index that are like a file, or have a tag (`tag="Dog"`)."""
        files = {} if file is None else {"file": file}
        return self._upload(SearchReply, "/v1/search", files, choices)

    def index(self) -> IndexReply:
        """What the index holds."""
        return self._ask(IndexReply, "GET", "/v1/index")

    def add(self, file: FilePath) -> Job:
        """Begin to add a file to the index."""
        return self._upload(Job, "/v1/index", {"file": file}, {})

    def units(self) -> Job:
        """Begin to look for what units respond to; the result is that of `UnitsReply`."""
        return self._ask(Job, "POST", "/v1/units")

    def tags(self) -> TagsReply:
        """The tags of the index."""
        return self._ask(TagsReply, "GET", "/v1/tags")

    def learn_tags(
        self,
        classes: Mapping[str, Sequence[MarkedMoment | Mapping[str, Any]]],
        name: str = "own",
    ) -> Job:
        """Begin to learn classes from moments of the index."""
        request = TagRequest.model_validate({"name": name, "classes": dict(classes)})
        return self._ask(Job, "POST", "/v1/tags", json=request.model_dump())

    def job(self, job_id: str) -> Job:
        """How far a job is."""
        return self._ask(Job, "GET", f"/v1/jobs/{job_id}")

    def cancel(self, job: Job) -> Job:
        """Cancel a job, or forget one that is over."""
        return self._ask(Job, "DELETE", f"/v1/jobs/{job.id}")

    def wait(self, job: Job, every_seconds: float = 0.5) -> Job:
        """Wait until a job is over. Raises ServerError for a job that failed."""
        while job.state in ("queued", "running"):
            time.sleep(every_seconds)
            job = self.job(job.id)
        if job.state == "failed":
            raise ServerError(job.error, 200)
        return job

    def download(self, address: str, out: FilePath) -> None:
        """Save what is at an address of the server, such as the file of a job."""
        with self._http.stream("GET", address) as response:
            # The body of a streamed answer must be read first: an error has its sentence there.
            if response.is_error:
                response.read()
            self._check(response)
            with Path(out).open("wb") as file:
                for data in response.iter_bytes():
                    file.write(data)

    def _upload(
        self, record: type[Reply], route: str, files: dict[str, FilePath], choices: dict[str, Any]
    ) -> Reply:
        with ExitStack() as stack:
            opened = {
                name: stack.enter_context(Path(path).open("rb")) for name, path in files.items()
            }
            return self._ask(record, "POST", route, files=opened or None, data=choices)

    def _ask(self, record: type[Reply], method: str, route: str, **request: Any) -> Reply:
        response = self._http.request(method, route, **request)
        self._check(response)
        return record.model_validate_json(response.content)

    @staticmethod
    def _check(response: httpx.Response) -> None:
        if not response.is_error:
            return
        try:
            sentence = str(response.json()["error"])
        except (ValueError, KeyError, TypeError):
            sentence = f"the server answered {response.status_code}"
        raise ServerError(sentence, response.status_code)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
