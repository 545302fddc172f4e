"""``python -m triptych``, which torchrun can start: ``torchrun --nproc-per-node 8 -m triptych train …``."""

from triptych.cli.app import main

if __name__ == "__main__":
    main()
