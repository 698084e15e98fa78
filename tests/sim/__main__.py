"""Runs simulated seeds: `python -m tests.sim --seed 7 [--count 20] [--trace]`.

A world that fails is first made as small as it can be and still fail, unless it is to be shown `--whole`.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a bug is planted before the core is imported
    from tests.sim.world import Less


def main() -> int:
    """Runs the seeds; answers 1 where one of them fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds")
    parser.add_argument("--trace", action="store_true", help="print everything that happened")
    parser.add_argument("--whole", action="store_true", help="make no failing world smaller")
    parser.add_argument(
        "--table",
        action="store_true",
        help="count faults and checks",
    )
    parser.add_argument("--plant", default="", help="plant a bug of tests/sim/planted.py")
    parser.add_argument("--without", default="", help="faults to leave out, between semicolons")
    parser.add_argument("--nodes", type=int, default=0, help="only the first nodes")
    parser.add_argument("--jobs", type=int, default=0, help="only the first jobs")
    parser.add_argument("--storm-s", type=int, default=0, help="length of the storm")
    parser.add_argument("--plain-clocks", action="store_true", help="every clock goes right")
    parser.add_argument("--silent", action="store_true", help="no rank prints anything")
    parser.add_argument("--bare", action="store_true", help="no batches, keys and images")
    options = parser.parse_args()
    if options.plant:
        from tests.sim.planted import plant

        plant(options.plant)
    from tests.sim.counted import tables
    from tests.sim.garbage import undisturbed
    from tests.sim.world import Less

    less = Less(
        without=tuple(filter(None, options.without.split(";"))),
        nodes=options.nodes,
        jobs=options.jobs,
        storm_s=options.storm_s,
        odd_clocks=not options.plain_clocks,
        prints=not options.silent,
        bare=options.bare,
    )
    seeds = range(options.seed, options.seed + options.count)
    if options.table:
        print("\n".join(tables(seeds)))
        return 0
    for seed in seeds:
        with undisturbed():
            held = run(
                seed,
                less,
                trace=options.trace,
                shrinks=not (options.trace or options.whole),
                planted=options.plant,
            )
        if not held:
            return 1
    return 0


def run(
    seed: int, less: Less, *, trace: bool = False, shrinks: bool = False, planted: str = ""
) -> bool:
    """Runs one seed and prints its digest, or what failed and the story of it."""
    from tests.sim.shrink import command, shrink
    from tests.sim.truth import SimFailure
    from tests.sim.world import World

    world = World(seed, less)
    try:
        world.run()
    except Exception as failure:
        if shrinks:
            less = shrink(seed, less)
            return run(seed, less, trace=trace, planted=planted)
        ids = failure.ids if isinstance(failure, SimFailure) else ()
        if not isinstance(failure, SimFailure):
            traceback.print_exc()
        print(f"seed {seed}: {failure}", file=sys.stderr)
        story = world.story_of(ids) if not trace else world.story_of(())
        print("\n".join(story), file=sys.stderr)
        print(f"again with: {command(seed, less, planted=planted)}", file=sys.stderr)
        return False
    if trace:
        print("\n".join(f"{at / 1000:9.3f}  {text}" for at, text in world.story))
    print(f"seed {seed}: {world.digest()[:16]} {len(world.story)} facts")
    return True


if __name__ == "__main__":
    sys.exit(main())
