"""The Hugging Face Hub protocol: what its routes share. The protocol is written down in docs/pushing.md."""
