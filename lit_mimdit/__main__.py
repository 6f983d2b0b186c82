"""`python -m lit_mimdit`: see lit_mimdit.cli."""

import sys

from lit_mimdit.cli import main

if __name__ == "__main__":
    sys.exit(main())
