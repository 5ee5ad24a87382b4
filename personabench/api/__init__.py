"""The interface that methods and tasks are written against, and the registry that finds them."""
