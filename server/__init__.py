"""The web server: pages, the JSON API and live event streams. It knows the registry, never a model library."""
