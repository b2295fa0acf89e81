"""The training service: text in, checkpoints of a growing language model out.

`loop` trains and knows nothing of the site; `publish` alone speaks with the registry.
"""
