"""`python -m personabench`: the command, where an environment's scripts are not on the path."""

from personabench.cli import main

if __name__ == "__main__":
    main()
