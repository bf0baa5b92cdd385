"""Synthetic videos with known truth: a drawn world, or a collage of a user's own files.

`shapes` and `voices` make the classes, `scenes` one video, `world` and `collage` a set of videos,
`folder` the files. `options` can be imported without NumPy.
"""
