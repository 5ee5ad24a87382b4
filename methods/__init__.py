"""The built-in methods, one file or folder each; importable as `personabench.methods`."""
