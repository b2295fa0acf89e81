"""The tables, the verbs that change them, and the files of checkpoints and samples.

The server, the worker and training meet here and nowhere else.
"""
