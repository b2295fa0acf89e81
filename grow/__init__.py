"""The command line: it starts and stops the services and imports none of them."""
