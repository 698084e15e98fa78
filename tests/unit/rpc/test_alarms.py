"""What cluster admins are told to look at."""

from __future__ import annotations

from dataclasses import replace

from coordinator.core.decision import Changed, Heard
from coordinator.core.reasons import Reason
from coordinator.core.records import Node, Offer
from coordinator.rpc.alarms import alarms
from coordinator.runtime.view import View


def a_view(*nodes: Node) -> View:
    view = View()
    put(view, *nodes)
    return view


def put(view: View, *nodes: Node) -> None:
    view.apply([Changed(record=x, cause=Reason.NODE_CHANGED, actor="", at_ms=0) for x in nodes])


def a_node(node_id: str) -> Node:
    return Node(node_id=node_id, generation=1, incarnation="a", offer=Offer(devices=()))


def heard(node_id: str, at_ms: int, *unknown: str, renewed: bool = False) -> list[Heard]:
    sequence = at_ms
    return [
        Heard(
            node_id=node_id,
            incarnation="a",
            sequence=sequence,
            at_ms=at_ms,
            unknown=unknown,
            renewed=renewed,
        )
    ]


def test_all_is_well() -> None:
    view = a_view(a_node("n1"))
    view.apply(heard("n1", 1000))
    assert alarms(view) == []


def test_leases_that_nobody_knows_are_told_by_node_until_they_have_ended() -> None:
    view = a_view(a_node("n1"), a_node("n2"))
    view.apply(heard("n2", 1000, "j1.1.0"))
    view.apply(heard("n2", 2000, "j1.1.0", "j2.1.0"))
    view.apply(heard("n2", 3000, renewed=True))
    (alarm,) = alarms(view)
    assert (alarm.code, alarm.node_id, alarm.since.seconds) == ("LEASES_UNKNOWN", "n2", 1)
    assert alarm.message.startswith("2 leases")
    assert alarm.message.endswith("j1.1.0, j2.1.0")
    (alarm,) = alarms(view, for_operator=False)
    assert "j1" not in alarm.message
    view.apply(heard("n2", 4000))
    assert alarms(view) == []


def test_a_restored_state_says_for_which_nodes_it_waits() -> None:
    nodes = [replace(a_node(f"n{number}"), restored=True) for number in range(12)]
    view = a_view(*nodes)
    for node in nodes:
        view.apply(heard(node.node_id, 5000, renewed=True))
    (alarm,) = alarms(view)
    assert (alarm.code, alarm.since.seconds) == ("NODES_AWAITED", 5)
    assert alarm.message.endswith("n0, n1, n10, n11, n2, n3, n4, n5, n6, n7 and 2 more")
    put(view, *(a_node(node.node_id) for node in nodes[1:]))
    put(view, replace(nodes[0], unreachable_since_ms=6000))
    assert alarms(view) == []


def test_many_nodes_that_fall_silent_at_once_are_one_alarm() -> None:
    silent = [replace(a_node(f"n{number}"), unreachable_since_ms=7000) for number in range(2)]
    (alarm,) = alarms(a_view(a_node("n9"), *silent))
    assert (alarm.code, alarm.node_id, alarm.since.seconds) == ("REPLACEMENT_FROZEN", "", 7)
