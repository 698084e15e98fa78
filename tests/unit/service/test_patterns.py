"""Callers are told in words what a pattern of the protos asks for."""

from __future__ import annotations

import re
from pathlib import Path

import protovalidate

from scaimind.service.patterns import WORDS, told
from scaimind.v1 import mind_coordinator_pb2 as api

PROTOS = Path(__file__).parents[3] / "proto" / "scaimind" / "v1"


def test_each_pattern_of_the_protos_has_its_words() -> None:
    text = "".join(path.read_text() for path in PROTOS.glob("*.proto"))
    found = {one.replace("\\\\", "\\") for one in re.findall(r'pattern\s*[:=]\s*"([^"]*)"', text)}
    assert found == WORDS.keys()


def test_what_is_told_names_what_is_allowed() -> None:
    (order,) = protovalidate.collect_violations(api.GetUsageRequest(order_by="foo"))
    assert told(order).endswith("checkpointing, redone, idle, paused")
    (label,) = protovalidate.collect_violations(api.ListJobsRequest(label=["team"]))
    assert told(label).startswith("must be key=value")
    (size,) = protovalidate.collect_violations(api.ListJobsRequest(page_size=-1))
    assert told(size) == size.proto.message
