"""Runs simulated seeds: `python -m tests.sim --seed 7 [--count 20] [--trace] [--plant BUG]`."""

from __future__ import annotations

import argparse
import sys
import traceback


def main() -> int:
    """Runs the seeds; answers 1 where one of them fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds")
    parser.add_argument("--trace", action="store_true", help="print everything that happened")
    parser.add_argument("--plant", default="", help="plant a bug of tests/sim/planted.py")
    options = parser.parse_args()
    if options.plant:
        from tests.sim.planted import plant

        plant(options.plant)
    for seed in range(options.seed, options.seed + options.count):
        if not run(seed, trace=options.trace):
            return 1
    return 0


def run(seed: int, *, trace: bool = False) -> bool:
    """Runs one seed and prints its digest, or what failed and the story of it."""
    from tests.sim.truth import SimFailure
    from tests.sim.world import World

    world = World(seed)
    try:
        digest = world.run()
    except SimFailure as failure:
        print(f"seed {seed}: {failure}", file=sys.stderr)
        print("\n".join(world.story_of(failure.ids)), file=sys.stderr)
    except Exception:
        traceback.print_exc()
        print("\n".join(world.story_of(())[-20:]), file=sys.stderr)
    else:
        if trace:
            print("\n".join(f"{at / 1000:9.3f}  {text}" for at, text in world.story))
        print(f"seed {seed}: {digest[:16]} {len(world.story)} facts")
        return True
    print(f"again with: python -m tests.sim --seed {seed} --trace", file=sys.stderr)
    return False


if __name__ == "__main__":
    sys.exit(main())
