"""The built-in tasks, one file or folder each; importable as `personabench.tasks`."""
