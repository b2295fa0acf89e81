"""Readers of the text that installed packages bring, and the one split into training and held-out.

Training and benchmarks both read through here, so a held-out document cannot be trained on.
This package imports nothing of ours.
"""
