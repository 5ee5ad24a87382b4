"""`python -m personabench`: the command, where the scripts of an environment are not on the path."""

from personabench.cli import main

if __name__ == "__main__":
    main()
