"""`python -m symphony` is `symphony`."""

from symphony.cli.main import main

if __name__ == "__main__":
    main()
