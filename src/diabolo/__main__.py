"""Lets ``python -m diabolo`` do what ``diabolo`` does."""

from diabolo.cli import main

if __name__ == "__main__":
    main()
