"""Tasks over a user's own tables, declared in a small file instead of a class."""
