"""How much worse the cluster gets for others when a job takes a place: the measure of best fit.

Theory of operation. Three things are counted, in thousandths of a device times the weight of those whom they
concern, over what jobs ask for.

Fragments: what is left on a node is of no use to a job that cannot use it, all of it where the job does not
fit there, else the parts of devices that are too small for it. The expectation of that over what jobs ask
for is to grow as little as possible (fragmentation gradient descent: Weng et al., "Beware of
Fragmentation", USENIX ATC 2023). So a job that needs few CPUs goes where CPUs are scarce, a small one into
a small hole, and a share of a device fills up one that is shared already.

Strain: devices are stranded when CPUs, memory or disk run out beside them. If a node were filled with jobs
of one want, part of its devices would stay unused; the expectation of that is to stay small as well. It sees
farther than the next job, but less surely, and counts less.

Pressure: jobs that accept several classes of devices spread over all that they accept, so each class bears
so much demand for each of its devices. A job takes devices of the class that bears least, and what only few
nodes have stays for those who can use nothing else. (Fragmentation alone, which counts a device as lost to
whoever does not accept it, sends everybody to the rarest class first.)

What jobs ask for is a weighted list of wants. All is counted in integers, so that equal states decide
equally everywhere. Forms are in steps, so they are judged by the least that they can be, or by what the job
needs where that is more. What was found out is remembered by form and need, for as long as the wants stay.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from coordinator.core.records import WHOLE
from coordinator.core.room import PART_STEP, DeviceClass, Form, Look, least_of

MOST_NEEDS = 1_000  # of which it is remembered what was found out
FINE = 1 << 30  # parts of one, for ratios
FORESIGHT = 2  # what may be stranded later counts so many times less than what is a fragment now
AVERAGE = 1_000_000  # the unit of pressure


class Need(NamedTuple):
    """What a job takes of one node."""

    device_count: int
    thousandths: int  # of each device
    cpu_count: int
    memory_bytes: int
    disk_bytes: int

    @property
    def taken(self) -> int:
        """Thousandths of devices."""
        return self.device_count * self.thousandths


class Want(NamedTuple):
    """What a job typically takes of one node, and of which nodes."""

    need: Need
    device_types: tuple[str, ...] = ()
    device_memory_bytes: int = 0

    def accepts(self, device_class: DeviceClass) -> bool:
        """Whether the job may use devices of that class."""
        if self.device_types and device_class.type not in self.device_types:
            return False
        return self.device_memory_bytes <= device_class.memory_bytes


class Growth(NamedTuple):
    """By how much the cluster gets worse for others, and from what the device should be taken.

    `left` are thousandths of devices that are free on the node before, whoever can use them. `part` is the
    step of a shared device's free thousandths, WHOLE for one that nobody uses.
    """

    amount: int
    left: int
    part: int


NEVER = Growth(0, 0, -1)  # nothing of that form can hold it
NO_DISTINCTION: tuple[tuple[Want, int], ...] = tuple(
    (Want(Need(count, WHOLE, 0, 0, 0)), 1) for count in (1, 2, 4, 8)
)


class _Mass:
    """How much weight asks for how much, among the wants that a machine with so much left can serve."""

    __slots__ = ("counts", "counts_upto", "misfit", "shares", "shares_upto")

    def __init__(self, wants: Iterable[tuple[Need, int]], misfit: int) -> None:
        counts: dict[int, int] = {}
        shares: dict[int, int] = {}
        for need, weight in wants:
            table, key = (
                (counts, need.device_count)
                if need.thousandths == WHOLE
                else (shares, need.thousandths)
            )
            table[key] = table.get(key, 0) + weight
        self.misfit = misfit
        self.counts = sorted(counts)
        self.counts_upto = [0, *accumulate(counts[key] for key in self.counts)]
        self.shares = sorted(shares)
        self.shares_upto = [0, *accumulate(shares[key] for key in self.shares)]

    def waste(self, whole_count: int, parts: tuple[int, ...]) -> int:
        """Thousandths that are of no use, times the weight to which they are not."""
        in_parts = sum(parts)
        whole = self.counts_upto[bisect_right(self.counts, whole_count)]
        largest = WHOLE if whole_count else parts[-1] if parts else 0
        fitting = self._upto(largest)
        lost = self.misfit + self.counts_upto[-1] - whole + self.shares_upto[-1] - fitting
        wasted = (WHOLE * whole_count + in_parts) * lost + in_parts * whole
        for part in parts:
            wasted += part * (fitting - self._upto(part))
        return wasted

    def _upto(self, thousandths: int) -> int:
        return self.shares_upto[bisect_right(self.shares, thousandths)]


class _Strain:
    """How much weight needs more of a machine beside each device than is left beside each."""

    __slots__ = ("ratios", "usable_from", "weights_from")

    def __init__(self, wants: Iterable[tuple[int, int, int]]) -> None:
        """`wants`: (thousandths of devices, amount beside them, weight)."""
        beside = sorted(
            (amount * FINE // taken, weight, weight * taken * FINE // amount)
            for taken, amount, weight in wants
            if amount
        )
        self.ratios = [ratio for ratio, *_ in beside]
        beside.reverse()
        self.weights_from = [0, *accumulate(weight for _, weight, _ in beside)]
        self.usable_from = [0, *accumulate(usable for *_, usable in beside)]  # of each one beside

    def stranded(self, free: int, amount: int) -> int:
        """Thousandths of `free` ones that stay unused if one want fills the node, times its weight."""
        if not free:
            return 0
        count = len(self.ratios) - bisect_right(self.ratios, amount * FINE // free)
        return free * self.weights_from[count] - amount * self.usable_from[count] // FINE


class Fragments:
    """Scores of forms, for one list of wants."""

    def __init__(
        self,
        wants: Iterable[tuple[Want, int]] = NO_DISTINCTION,
        supply: Mapping[DeviceClass, int] | None = None,
    ) -> None:
        """`supply`: devices that there are of each class, free or not."""
        self._wants = tuple(wants)
        self._weight = sum(weight for _, weight in self._wants)
        self._pressures = _pressures(self._wants, supply or {})
        needs = [want.need for want, _ in self._wants]
        self._cpus = sorted({need.cpu_count for need in needs})
        self._memories = sorted({need.memory_bytes for need in needs})
        self._disks = sorted({need.disk_bytes for need in needs})
        self._strains: dict[DeviceClass, tuple[_Strain, _Strain, _Strain]] = {}
        self._masses: dict[tuple[DeviceClass, int, int, int], _Mass] = {}
        self._growths: dict[tuple[DeviceClass, Need], dict[Form, Growth]] = {}

    def growths(self, device_class: DeviceClass, need: Need) -> dict[Form, Growth]:
        """What is known for a need, by form; `growth` adds to it."""
        key = (device_class, need)
        found = self._growths.get(key)
        if found is None:
            if len(self._growths) >= MOST_NEEDS:
                self._growths.clear()
            found = self._growths[key] = {}
        return found

    def growth(self, device_class: DeviceClass, form: Form, *, need: Need) -> Growth:
        """What it costs others to take the need there; NEVER where no node of that form can hold it."""
        if not _may_serve(form, need):
            return NEVER
        needed = need[2:]
        least = tuple(map(max, _least_machine(form), needed))
        machine = tuple(a - b for a, b in zip(least, needed, strict=True))
        best: tuple[int, int] | None = None
        for before, after, part in _options(form.look, need):
            grown = self._waste(
                device_class, after, machine=machine, others=form.others
            ) - self._waste(device_class, before, machine=least, others=form.others)
            best = min(best or (grown, part), (grown, part))
        if best is None:
            return NEVER
        pressure = self._pressures.get(device_class, 0) * self._weight * need.taken // AVERAGE
        left = _free(form.look) + sum(_free(look) for _, look in form.others)
        return Growth(best[0] + pressure, left, best[1])

    def _waste(
        self,
        device_class: DeviceClass,
        look: Look,
        *,
        machine: tuple[int, ...],
        others: tuple[tuple[DeviceClass, Look], ...],
    ) -> int:
        steps = (
            bisect_right(self._cpus, machine[0]),
            bisect_right(self._memories, machine[1]),
            bisect_right(self._disks, machine[2]),
        )
        wasted = 0
        for one, its_look in ((device_class, look), *others):
            wasted += self._mass(one, steps).waste(*its_look)
            free = _free(its_look)
            strains = zip(self._strains_of(one), machine, strict=True)
            stranded = sum(strain.stranded(free, amount) for strain, amount in strains)
            wasted += stranded // FORESIGHT
        return wasted

    def _strains_of(self, device_class: DeviceClass) -> tuple[_Strain, _Strain, _Strain]:
        """Of CPUs, memory and disk beside devices of that class."""
        found = self._strains.get(device_class)
        if found is None:
            accepting = [one for one in self._wants if one[0].accepts(device_class)]
            cpus = _Strain((need.taken, need.cpu_count, w) for (need, *_), w in accepting)
            memories = _Strain((need.taken, need.memory_bytes, w) for (need, *_), w in accepting)
            disks = _Strain((need.taken, need.disk_bytes, w) for (need, *_), w in accepting)
            found = self._strains[device_class] = (cpus, memories, disks)
        return found

    def _mass(self, device_class: DeviceClass, steps: tuple[int, int, int]) -> _Mass:
        key = (device_class, *steps)
        found = self._masses.get(key)
        if found is None:
            found = self._masses[key] = self._weigh(device_class, steps)
        return found

    def _weigh(self, device_class: DeviceClass, steps: tuple[int, int, int]) -> _Mass:
        cpus, memories, disks = steps
        cpu_count = self._cpus[cpus - 1] if cpus else -1
        memory_bytes = self._memories[memories - 1] if memories else -1
        disk_bytes = self._disks[disks - 1] if disks else -1
        served: list[tuple[Need, int]] = []
        misfit = 0
        for want, weight in self._wants:
            need = want.need
            if not want.accepts(device_class):
                continue
            if (
                need.cpu_count <= cpu_count
                and need.memory_bytes <= memory_bytes
                and need.disk_bytes <= disk_bytes
            ):
                served.append((need, weight))
            else:
                misfit += weight
        return _Mass(served, misfit)


def _pressures(
    wants: Iterable[tuple[Want, int]], supply: Mapping[DeviceClass, int]
) -> dict[DeviceClass, int]:
    """Demand for each device of a class; AVERAGE is as much as for all devices on average."""
    demand = dict.fromkeys(supply, 0)
    whole = 0
    for want, weight in wants:
        asked = weight * want.need.taken
        accepted = [one for one in supply if want.accepts(one)]
        among = sum(supply[one] for one in accepted)
        whole += asked
        for one in accepted:
            demand[one] += asked * AVERAGE // among
    devices = sum(supply.values())
    return {one: asked * devices // whole for one, asked in demand.items()} if whole else {}


def _free(look: Look) -> int:
    return WHOLE * look.whole_count + sum(look.parts)


def _may_serve(form: Form, need: Need) -> bool:
    """Whether a machine of that form might have enough of everything beside devices."""
    return (
        need.cpu_count < max(1, least_of(form.cpu_level + 1))
        and need.memory_bytes < max(1, least_of((form.memory_level + 1) << 1))
        and need.disk_bytes < max(1, least_of((form.disk_level + 1) << 2))
    )


def _least_machine(form: Form) -> tuple[int, int, int]:
    return (
        least_of(form.cpu_level),
        least_of(form.memory_level << 1),
        least_of(form.disk_level << 2),
    )


def _options(look: Look, need: Need) -> Iterator[tuple[Look, Look, int]]:
    """A pool before and after the need is taken from it, and from what step of part that is."""
    whole, parts = look
    if need.thousandths == WHOLE:
        if whole >= need.device_count:
            yield look, Look(whole - need.device_count, parts), WHOLE
        return
    for number, part in enumerate(parts):
        if part + PART_STEP > need.thousandths and (not number or parts[number - 1] != part):
            others = parts[:number] + parts[number + 1 :]
            had = max(part, need.thousandths)
            left = had - need.thousandths
            yield Look(whole, _with(others, had)), Look(whole, _with(others, left)), part
    if whole:
        yield look, Look(whole - 1, _with(parts, WHOLE - need.thousandths)), WHOLE


def _with(parts: tuple[int, ...], part: int) -> tuple[int, ...]:
    return tuple(sorted((*parts, part))) if part else parts
