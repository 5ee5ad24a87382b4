"""`python -m personabench`: the command line, for an interpreter whose scripts are not on the path."""

from personabench.cli import main

if __name__ == "__main__":
    main()
