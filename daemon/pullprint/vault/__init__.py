"""The sealed job: how it is encrypted, who can open it, and how it lies on disk.

`parts` is what any party to a job needs (the cloud too); `opening` is what only a releaser may import.
"""
