"""Runs the `symphony` command, also as `python -m symphony`."""

__all__ = ("main",)


def main() -> None:
    """Run the command."""
    # Each worker imports this module as its main one, and needs no command line.
    from symphony.cli.main import main

    main()


if __name__ == "__main__":
    main()
