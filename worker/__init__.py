"""The GPU worker: answers chat turns, scores checkpoints and verifies their files."""
