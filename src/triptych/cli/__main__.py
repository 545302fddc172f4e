"""``python -m triptych.cli`` is the command ``triptych``."""

from triptych.cli.app import main

main()
