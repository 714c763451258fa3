"""The verbs of the command line.

Importing the package sets the environment variables that torch and its thread pools read when they start, so it must come
before them: ``python -m lichen.scripts.train`` imports it first, as does ``lichen train``.
"""

from lichen.core.environment import prepare_process

prepare_process()
