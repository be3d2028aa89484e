"""`python -m raptor` is `raptor`."""

from raptor.cli import main

if __name__ == "__main__":
    main()
