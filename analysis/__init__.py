"""Statistics over plain arrays. Imports nothing of ours: any number on the site can be derived again in a notebook."""
