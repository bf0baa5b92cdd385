"""Files as answers, with ranges of bytes; a range that does not fit gets one sentence."""

import os
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from looklisten.serving.refusals import unknown_id

BAD_RANGE = b'{"error":"the header Range cannot be read; send: Range: bytes=FIRST-LAST"}'
PAST_END = b'{"error":"the file ends before this range; Content-Range has its size"}'


class RangedFile(FileResponse):
    """A file of this machine, whole or in ranges.

    Raises RefusedError for a file that is gone or that cannot be read.
    """

    def __init__(self, path: Path, media_type: str, headers: dict[str, str] | None = None) -> None:
        # Before the answer begins: after its head there is no way to say that something is wrong.
        if not (path.is_file() and os.access(path, os.R_OK)):
            raise unknown_id("file", path.name)
        super().__init__(path, media_type=media_type, headers=headers, stat_result=path.stat())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal: bytes | None = None

        async def send_sentence(message: Message) -> None:
            """Send a message; the text of a bad range becomes a sentence."""
            nonlocal refusal
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refusal = PAST_END if message["status"] == 416 else BAD_RANGE
                headers = MutableHeaders(scope=message)
                headers["content-type"] = "application/json"
                headers["content-length"] = str(len(refusal))
            elif refusal is not None:
                is_head = scope["method"] == "HEAD"
                message = {"type": "http.response.body", "body": b"" if is_head else refusal}
            await send(message)

        await super().__call__(scope, receive, send_sentence)
