"""The web server: pages, the JSON API and live event streams. It knows the registry, never a model library."""

import os

# Requests have threads of their own; linear algebra that spreads over all cores beside them waits for itself. Read when
# numpy is first imported, so it is said before anything of the server is.
os.environ.setdefault("OMP_NUM_THREADS", "1")
