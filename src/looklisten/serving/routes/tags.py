"""The routes `/v1/tags`: own classes that are learned from moments of the index."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path

from looklisten.search.indexing.own_classes import read_own_classes
from looklisten.search.moments import IndexedMoment
from looklisten.serving.jobs import RunningJob
from looklisten.serving.records import Job, RemovedTags, TagRequest, TagSet, TagsReply
from looklisten.serving.refusals import RefusedError
from looklisten.serving.service import Service
from looklisten.training.own_classes import remove_tags, tag_index_by_moments

MOST_EXAMPLES = 10_000


def tag_routes(service: Service) -> APIRouter:
    """The routes of tags."""
    router = APIRouter(tags=["index"])

    @router.get("/v1/tags")
    def list_tags() -> TagsReply:
        """The sets of own classes, and all names that some moment has as a tag."""
        catalog = service.index_catalog()
        sets = [
            TagSet(
                name=layer.name,
                # The last class is `NONE_OF_THESE`, which is no tag.
                classes=list(layer.classes[:-1]),
                accuracy=layer.figures["accuracy"],
            )
            for layer in read_own_classes(catalog.db).values()
        ]
        return TagsReply(sets=sets, tags=catalog.index.tags())

    @router.post("/v1/tags", status_code=202)
    async def learn_tags(request: TagRequest) -> Job:
        """Learn classes from moments of the index, and tag all its moments, as a job.

        Each class needs two examples or more. A set of the same name is replaced.
        """
        catalog = service.index_catalog()
        count = sum(map(len, request.classes.values()))
        if count > MOST_EXAMPLES:
            raise RefusedError(
                422, f"there are {count} examples; at most {MOST_EXAMPLES} are allowed"
            )

        def work(job: RunningJob) -> dict[str, Any]:
            # Found in the job, because the index is read once for each example.
            examples: dict[str, list[IndexedMoment]] = {}
            done = 0
            for name, moments in request.classes.items():
                examples[name] = []
                for marked in moments:
                    examples[name].append(catalog.moment(marked.media, marked.seconds))
                    done += 1
                    job.progress(done, count)
            result = tag_index_by_moments(catalog.db, examples, request.name, service.run)
            return result.as_dict()

        return service.jobs.start("tags", work)

    @router.delete("/v1/tags/{name}")
    async def delete_tags(name: Annotated[str, Path(max_length=64)]) -> RemovedTags:
        """Remove a set of own classes, and its tags."""
        catalog = service.index_catalog()
        moments = await asyncio.to_thread(remove_tags, catalog.db, name)
        return RemovedTags(name=name, moments=moments)

    return router
