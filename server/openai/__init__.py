"""The OpenAI-compatible interface: what may be asked, how answers and errors look, and following a call."""
