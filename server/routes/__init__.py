"""One module a noun; each has a `router`. A route module never imports another."""
