"""Runs the `symphony` command as `python -m symphony`."""

from symphony.cli.main import main

if __name__ == "__main__":
    main()
