"""``python -m lichen`` is the ``lichen`` command.

>>> callable(main)
True
"""

from lichen.scripts.command_line import main

if __name__ == "__main__":
    raise SystemExit(main())
