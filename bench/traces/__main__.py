"""`python -m bench.traces JOBS.csv.gz NODES.csv.gz`: a recorded workload through the real core.

Prints the figures by which schedulers are compared; with --json as one JSON object. How far it is, and notes
on rows that were left out or changed, go to the error stream. With --pack it does the packing test instead:
jobs in random order, nothing ever leaves.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.traces import pack
from bench.traces.eta import ForetoldReplay
from bench.traces.figures import figures
from bench.traces.replay import Costs, Tally
from bench.traces.rows import MOST
from bench.traces.workload import Workload, read
from coordinator.core.records import Order, Queue

POLICIES = {
    "priority_fifo": Queue(name="default"),
    "shortest": Queue(name="default", order=Order.SHORTEST),
    "shortest_preempting": Queue(name="default", order=Order.SHORTEST, preempts=True),
}
RECOMMENDED = "shortest_preempting"


def main() -> int:
    """Replays or packs, prints, and answers the exit code."""
    args = _arguments()
    try:
        run = _packing(args) if args.pack else _replaying(args)
    except (OSError, ValueError) as error:
        print(f"cannot be read: {error}", file=sys.stderr)
        return 2
    found = run()
    if args.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name:28} {value}" for name, value in found.items()))
    return 0


def _packing(args: argparse.Namespace) -> Callable[[], dict[str, object]]:
    jobs, rooms = pack.read(args.jobs, args.nodes_file, node_count=args.nodes, typed=args.gpu_type)
    return partial(pack.figures, jobs, rooms, typed=args.gpu_type, seeds=args.seeds)


def _replaying(args: argparse.Namespace) -> Callable[[], dict[str, object]]:
    workload = read(args.jobs, args.nodes_file, node_count=args.nodes)
    if args.nodes > len(workload.nodes):
        print(f"there are {len(workload.nodes)} nodes only", file=sys.stderr)
    return partial(_replayed, args, workload)


def _replayed(args: argparse.Namespace, workload: Workload) -> dict[str, object]:
    costs = Costs(
        checkpoint_ms=round(args.checkpoint_s * 1000), restart_ms=round(args.restart_s * 1000)
    )
    given = args.expected_durations == "given"
    gc.disable()  # nothing here is a cycle, and there is much of it
    replay = ForetoldReplay(
        workload, queue=POLICIES[args.policy], costs=costs, given=given, samples=args.eta_samples
    )
    tally = replay.run()
    for note in _notes(workload, tally):
        print(note, file=sys.stderr)
    return {
        "policy": args.policy,
        "expected_durations": args.expected_durations,
        "nodes": len(workload.nodes),
        "checkpoint_s": args.checkpoint_s,
        "restart_s": args.restart_s,
        **figures(tally, workload, coverage_pct=replay.coverage.percent),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.traces", description=__doc__)
    parser.add_argument("jobs", type=Path, metavar="JOBS.csv.gz")
    parser.add_argument("nodes_file", type=Path, metavar="NODES.csv.gz")
    parser.add_argument("--nodes", type=_count, default=0, help="use the first so many; 0 is all")
    parser.add_argument(
        "--policy",
        choices=POLICIES,
        default=RECOMMENDED,
        help=f"how jobs are ordered; recommended and the default is {RECOMMENDED}",
    )
    parser.add_argument(
        "--expected-durations",
        choices=("given", "learnt"),
        default="learnt",
        help="whether jobs say how long they run, or it is learnt from those that ended",
    )
    parser.add_argument(
        "--checkpoint-s",
        type=_seconds,
        default=30.0,
        help="from asking for a checkpoint until it is proven; the training stands still (30)",
    )
    parser.add_argument(
        "--restart-s",
        type=_seconds,
        default=30.0,
        help="from the start of an attempt after the first until it gets on (30)",
    )
    parser.add_argument(
        "--eta-samples",
        type=_count,
        default=500,
        help="about so many waiting jobs are told when they will start (500)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--pack", action="store_true", help="the packing test instead")
    parser.add_argument("--gpu-type", action="store_true", help="with --pack: heed device types")
    parser.add_argument("--seeds", type=_positive, default=10, help="with --pack: mean of so many")
    return parser.parse_args()


def _count(text: str) -> int:
    found = int(text)
    if found < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return found


def _positive(text: str) -> int:
    if _count(text) == 0:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def _seconds(text: str) -> float:
    found = float(text)
    if not 0 <= found <= MOST:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to {MOST:g}")
    return found


def _notes(workload: Workload, tally: Tally) -> list[str]:
    notes = {
        "asked for a part of a device and got a whole one": workload.rounded_up,
        "were left out: they ask for no device, or do not say": workload.no_devices,
        "were left out: they have no duration": workload.no_duration,
        "were left out: they do not say when they came": workload.no_submit,
        "may use any device: there are none of the types that they accept": workload.no_such_type,
        "were refused: they can never fit": tally.refused,
        "never ended": sum(not work.done_at_ms for work in tally.work.values()),
    }
    return [f"{count} rows {what}" for what, count in notes.items() if count]


if __name__ == "__main__":
    sys.exit(main())
