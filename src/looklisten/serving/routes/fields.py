"""The fields of forms that several routes have, so that their descriptions are written once."""

from typing import Annotated

from fastapi import File, Form, UploadFile

Upload = Annotated[UploadFile | None, File(description="A sound, a picture or a video.")]
MediaId = Annotated[
    str | None,
    Form(description="Instead of an upload: the id of a file of the index.", max_length=64),
]
RootPath = Annotated[
    str | None,
    Form(
        description="Instead of an upload: a path below the folder of --allow-root.",
        max_length=4096,
    ),
]
HopSeconds = Annotated[
    float,
    Form(description="Seconds from one window or frame to the next.", ge=0.02, le=600),
]
EverySeconds = Annotated[
    float, Form(description="Seconds from one moment to the next.", ge=0.05, le=600)
]
