"""`python -m lib`: the trained models on a user's samples, see lib/cli.py."""

import sys

from lib.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
