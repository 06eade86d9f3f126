"""Train an agent on a market, compare it with constants on the same shocks, and write what came of it.

    python train.py --algo ppo --env hmgym/Beliefs-v0

is `hmgym train` with the same options.
"""

from __future__ import annotations

import sys

from hmgym.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
