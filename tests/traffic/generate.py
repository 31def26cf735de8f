#!/usr/bin/env python3
"""Writes the usage events that an Open Banking gateway would send, one delivery a line.

    generate.py EVENTS SEED OUT.jsonl [--start RFC3339] [--hours N] [--manifest FILE]

EVENTS counts the distinct regular events. Repeats, conflicts and defective lines come on
top, as README.md lists them. The same arguments give the same bytes on every Python from
3.11 on: chance comes from random() and getrandbits() alone, since what the other methods of
random.Random make of them differs between versions.

This is not the oracle. What the product must answer is worked out by oracle.py, from the
file alone; the manifest only says what was intended.
"""

import argparse
import heapq
import json
import math
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Generic, TypeVar

from defects import DEFECTS, Defect
from event import EPOCH, Event, quoted, respelled, time_text

T = TypeVar("T")

SECOND = 1_000_000  # instants and spans are whole microseconds
MINUTE = 60 * SECOND
DAY = 24 * 60 * MINUTE

# Per thousand of the distinct regular events.
REPEATED, CONFLICTING, LATE, DEFECTIVE, SAME_ID_OTHER_SOURCE = 50, 1, 20, 10, 1

# The disorder of a network: far below the five minutes from which the oracle calls an event late.
MAX_JITTER = 2 * SECOND
# Above those five minutes by more than the second that a time's text may drop.
MIN_LATENESS, MAX_LATENESS = 6 * MINUTE, 3 * DAY
MAX_DISTANCE = 5_000  # lines between an event and its repeat
MAX_REPEAT_DELAY = 20 * MINUTE  # enough to carry some repeats over a window's edge
INVALID_SENT_TWICE = 20  # every twentieth invalid event


class Weighted(Generic[T]):
    """A choice between items in proportion to their weights."""

    def __init__(self, pairs: Iterable[tuple[T, float]]) -> None:
        self.items: list[T] = []
        self.sums: list[float] = []
        total = 0.0
        for item, weight in pairs:
            total += weight
            self.items.append(item)
            self.sums.append(total)

    def pick(self, rng: Random) -> T:
        # The bound keeps a product that was rounded up to the total inside the list.
        return self.items[bisect(self.sums, rng.random() * self.sums[-1], 0, len(self.sums) - 1)]


@dataclass(frozen=True)
class Endpoint:
    """An operation of the interface, with how often it is called and how it behaves."""

    path: str
    method: str
    weight: int
    median_ms: int
    spread: float
    statuses: Weighted[int]


READ = Weighted([(200, 940), (401, 15), (403, 15), (404, 8), (429, 14), (500, 5), (503, 3)])
CREATE = Weighted([(201, 930), (400, 35), (401, 12), (403, 10), (429, 6), (500, 5), (503, 2)])
DELETE = Weighted([(204, 960), (401, 10), (403, 8), (404, 20), (500, 2)])
CONFIRM = Weighted([(200, 955), (400, 25), (401, 10), (429, 5), (500, 3), (504, 2)])

# Berlin Group paths carry /v1, the others are of the UK's kind.
ENDPOINTS = Weighted(
    (endpoint, endpoint.weight)
    for endpoint in (
        Endpoint("/v1/accounts", "GET", 120, 45, 0.45, READ),
        Endpoint("/v1/accounts/{account-id}/balances", "GET", 190, 38, 0.40, READ),
        Endpoint("/v1/accounts/{account-id}/transactions", "GET", 160, 120, 0.70, READ),
        Endpoint("/v1/consents", "POST", 25, 95, 0.50, CREATE),
        Endpoint("/v1/consents/{consentId}", "GET", 40, 30, 0.35, READ),
        Endpoint("/v1/consents/{consentId}", "DELETE", 8, 55, 0.40, DELETE),
        Endpoint("/v1/payments/sepa-credit-transfers", "POST", 35, 210, 0.60, CREATE),
        Endpoint("/v1/payments/sepa-credit-transfers/{paymentId}/status", "GET", 60, 40, 0.40, READ),
        Endpoint("/v1/funds-confirmations", "POST", 30, 35, 0.30, CONFIRM),
        Endpoint("/accounts", "GET", 100, 45, 0.45, READ),
        Endpoint("/accounts/{AccountId}/balances", "GET", 110, 42, 0.40, READ),
        Endpoint("/accounts/{AccountId}/transactions", "GET", 80, 135, 0.70, READ),
        Endpoint("/domestic-payment-consents", "POST", 22, 100, 0.50, CREATE),
        Endpoint("/domestic-payments", "POST", 20, 230, 0.60, CREATE),
    )
)

SUBJECTS = Weighted((f"tpp-{rank:05d}", 1 / rank) for rank in range(1, 51))
SOURCES = Weighted(
    [("open-banking-api", 60)] + [(f"open-banking-api/gw-{n}", 10) for n in range(1, 5)]
)
TIME_STYLES = Weighted([("seconds", 60), ("millis", 22), ("micros", 10), ("nanos", 3), ("offset", 5)])
VALUE_STYLES = Weighted([("integer", 700), ("decimal", 275), ("text", 20), ("nineteen places", 5)])
REPEAT_STYLES = Weighted(
    [("bytes", 40), ("numbers", 20), ("order", 15), ("extensions", 15), ("escapes", 5), ("all", 5)]
)
CONFLICT_STYLES = Weighted([("subject", 35), ("endpoint", 30), ("value", 28), ("type", 7)])

# Calls in each UTC hour of the day: quiet nights, a peak at noon, a lesser one in the evening.
HOUR_WEIGHTS = (8, 5, 4, 3, 4, 9, 20, 38, 55, 66, 70, 74, 76, 70, 66, 64, 62, 60, 58, 52, 42, 30, 20, 12)


def share(events: int, per_thousand: int) -> int:
    """Returns the share, rounded half up."""
    return (events * per_thousand + 500) // 1000


def chosen(rng: Random, first: int, end: int, count: int) -> set[int]:
    """Returns that many distinct numbers of the range, fewer if it holds fewer."""
    count = min(count, max(end - first, 0))
    numbers: set[int] = set()
    while len(numbers) < count:
        numbers.add(first + int(rng.random() * (end - first)))
    return numbers


def small_rather_than_large(rng: Random, least: int, most: int) -> int:
    """Returns a number of the range, the small ones much more often."""
    part = rng.random()
    return least + int(part * part * part * (most - least))


def sending_order(rng: Random, count: int, start: int, hours: int) -> list[int]:
    """Returns the events' instants in the order in which they are sent."""
    first_hour = start // (60 * MINUTE)
    by_hour = Weighted((hour, HOUR_WEIGHTS[(first_hour + hour) % 24]) for hour in range(hours))
    sent = []
    for _ in range(count):
        instant = start + int((by_hour.pick(rng) + rng.random()) * 60 * MINUTE)
        sent.append((instant + int(rng.random() * MAX_JITTER), instant))
    sent.sort()
    return [instant for _, instant in sent]


def uuid(rng: Random) -> str:
    """Returns a random UUID, version 4."""
    bits = rng.getrandbits(128) & ~(0xF << 76) & ~(0x3 << 62) | 4 << 76 | 2 << 62
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def traceparent(rng: Random) -> str:
    return quoted(f"00-{rng.getrandbits(128):032x}-{rng.getrandbits(64):016x}-01")


def latency(rng: Random, endpoint: Endpoint) -> str:
    """Returns a log-normal latency in milliseconds as JSON text: always an exact decimal."""
    normal = math.sqrt(-2 * math.log(1 - rng.random())) * math.cos(2 * math.pi * rng.random())
    micros = max(1, round(endpoint.median_ms * 1000 * math.exp(endpoint.spread * normal)))
    whole, part = divmod(micros, 1000)
    match VALUE_STYLES.pick(rng):
        case "integer":
            return str(whole)
        case "decimal":
            return f"{whole}.{part:03d}"
        case "text":
            return quoted(f"{whole}.{part // 100}")
        case _:
            # The finest that is exact at scale 19: a float anywhere on the way shows in the sum.
            return f"{whole}.{part:03d}{rng.getrandbits(53) % 10**16:016d}"


def api_call(rng: Random, instant: int) -> Event:
    """Returns a regular event in the shape that the gateways send."""
    endpoint = ENDPOINTS.pick(rng)
    style = TIME_STYLES.pick(rng)
    attributes = {
        "specversion": quoted("1.0"),
        "type": quoted("api.call"),
        "source": quoted(SOURCES.pick(rng)),
        "id": quoted(uuid(rng)),
        "time": quoted(time_text(instant, style)),
        "subject": quoted(SUBJECTS.pick(rng)),
    }
    if rng.random() < 0.10:
        attributes["dataschema"] = quoted("https://schemas.openova.io/open-banking/api-call/1.json")
    if rng.random() < 0.25:
        attributes["traceparent"] = traceparent(rng)
    data = {
        "endpoint": quoted(endpoint.path),
        "method": quoted(endpoint.method),
        "status_code": str(endpoint.statuses.pick(rng)),
        "response_time_ms": latency(rng, endpoint),
    }
    return Event(attributes, data)


def shuffled(rng: Random, members: dict[str, str]) -> dict[str, str]:
    keyed = sorted((rng.random(), name) for name in members)
    return {name: members[name] for _, name in keyed}


def written_anew(rng: Random, event: Event) -> Event:
    """Returns the event as a sender that repeats it may write it: equal content, other bytes."""
    style = REPEAT_STYLES.pick(rng)
    attributes, data = dict(event.attributes), dict(event.data)
    if style in ("numbers", "all"):
        data = {name: respelled(text, rng.getrandbits(2)) for name, text in data.items()}
    if style in ("extensions", "all"):
        attributes["traceparent"] = traceparent(rng)
        attributes["gatewayattempt"] = "2"
    if style in ("escapes", "all"):
        data["endpoint"] = data["endpoint"].replace("/", "\\/").replace("a", "\\u0061")
    if style in ("order", "all"):
        attributes, data = shuffled(rng, attributes), shuffled(rng, data)
    return Event(attributes, data)


def contradicted(rng: Random, event: Event) -> tuple[str, Event]:
    """Returns an event of the same identity with other content, and what differs."""
    style = CONFLICT_STYLES.pick(rng)
    attributes, data = dict(event.attributes), dict(event.data)
    match style:
        case "subject":
            attributes["subject"] = another(rng, SUBJECTS, attributes["subject"])
        case "endpoint":
            paths = Weighted((endpoint.path, 1) for endpoint in ENDPOINTS.items)
            data["endpoint"] = another(rng, paths, data["endpoint"])
        case "value":
            whole = data["response_time_ms"].strip('"').partition(".")[0]
            data["response_time_ms"] = str(int(whole) + 1)
        case _:
            attributes["type"] = quoted("api.call.retried")
    return style, Event(attributes, data)


def another(rng: Random, choice: Weighted[str], taken: str) -> str:
    while (text := quoted(choice.pick(rng))) == taken:
        pass
    return text


@dataclass
class Manifest:
    """What was intended, by kind."""

    events: int
    lines: int = 0
    sent_twice: int = 0
    sent_twice_with_later_time: int = 0
    sent_twice_invalid: int = 0
    late: int = 0
    same_id_other_source: int = 0
    conflicts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    invalid: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        kinds = ("conflicts", "refused", "invalid")
        return vars(self) | {name: dict(sorted(getattr(self, name).items())) for name in kinds}


class Traffic:
    """The deliveries of one run, in the order in which a gateway sends them."""

    def __init__(self, events: int, seed: int, start: int, hours: int) -> None:
        rng = Random(seed)
        defects = share(events, DEFECTIVE)
        self.rng = rng
        self.manifest = Manifest(events)
        self.instants = sending_order(rng, events + defects, start, hours)
        self.defective = chosen(rng, 0, events + defects, defects)
        self.repeated = chosen(rng, 0, events, share(events, REPEATED))
        self.conflicting = chosen(rng, 0, events, share(events, CONFLICTING))
        # The first event has nothing before it that it could be late against.
        self.late = chosen(rng, 1, events, share(events, LATE))
        self.twins = chosen(rng, 1, events, share(events, SAME_ID_OTHER_SOURCE))
        self.newest = start
        self.pending: list[tuple[int, int, str]] = []

    def lines(self) -> Iterator[str]:
        for line in self.firsts():
            yield from self.due()
            self.manifest.lines += 1
            yield line
        while self.pending:
            self.manifest.lines += 1
            yield heapq.heappop(self.pending)[2]

    def due(self) -> Iterator[str]:
        """Yields the second deliveries whose line has come."""
        while self.pending and self.pending[0][0] <= self.manifest.lines:
            self.manifest.lines += 1
            yield heapq.heappop(self.pending)[2]

    def firsts(self) -> Iterator[str]:
        """Yields each event's first delivery and schedules the further ones."""
        broken = regular = 0
        twin_of: Event | None = None
        for position, instant in enumerate(self.instants):
            if position in self.defective:
                # In turn, not by chance: each kind occurs in any file of some size.
                defect = DEFECTS[broken % len(DEFECTS)]
                line = defect.spoil(self.rng, api_call(self.rng, instant))
                yield line
                self.count_defect(defect, line)
                broken += 1
                continue
            event = api_call(self.rng, self.on_time_or_late(regular, instant))
            twin = twin_of is not None and regular in self.twins
            if twin:
                self.share_id(event, twin_of)
            # Never of a twin: a third event of that id might meet the first one's source.
            twin_of = None if twin else event
            yield event.line()
            self.schedule_more(regular, event, instant)
            regular += 1

    def on_time_or_late(self, regular: int, instant: int) -> int:
        """Returns the event's own time, which a late event has long before its neighbours'."""
        if regular not in self.late:
            self.newest = max(self.newest, instant)
            return instant
        self.manifest.late += 1
        return min(self.newest, instant) - small_rather_than_large(self.rng, MIN_LATENESS, MAX_LATENESS)

    def share_id(self, event: Event, other: Event) -> None:
        """Gives two sources' events one id: still two identities."""
        self.manifest.same_id_other_source += 1
        event.attributes["id"] = other.attributes["id"]
        event.attributes["source"] = quoted("open-banking-api/gw-5")

    def schedule_more(self, regular: int, event: Event, instant: int) -> None:
        if regular in self.repeated:
            again = written_anew(self.rng, event)
            if self.rng.getrandbits(1):
                self.manifest.sent_twice_with_later_time += 1
                delay = small_rather_than_large(self.rng, SECOND, MAX_REPEAT_DELAY)
                style = TIME_STYLES.pick(self.rng)
                again.attributes["time"] = quoted(time_text(instant + SECOND + delay, style))
            self.manifest.sent_twice += 1
            self.schedule(again.line())
        if regular in self.conflicting:
            style, other = contradicted(self.rng, event)
            self.manifest.conflicts[style] += 1
            self.schedule(other.line())

    def count_defect(self, defect: Defect, line: str) -> None:
        if defect.refused:
            self.manifest.refused[defect.kind] += 1
            return
        self.manifest.invalid[defect.kind] += 1
        if self.manifest.invalid.total() % INVALID_SENT_TWICE == 1:
            self.manifest.sent_twice_invalid += 1
            self.schedule(line)

    def schedule(self, line: str) -> None:
        """Sends the line some lines after the one that was sent last."""
        due = self.manifest.lines - 1 + small_rather_than_large(self.rng, 1, MAX_DISTANCE)
        heapq.heappush(self.pending, (due, self.rng.getrandbits(64), line))


def instant_of(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError("needs an offset, as in 2024-01-15T00:00:00Z")
    return (moment.astimezone(UTC) - EPOCH) // timedelta(microseconds=1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Writes Open Banking usage events, one delivery a line.")
    parser.add_argument("events", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=instant_of, default="2024-01-15T00:00:00Z")
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--manifest", type=Path)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    traffic = Traffic(args.events, args.seed, args.start, args.hours)
    with args.out.open("w", encoding="utf-8", newline="\n") as out:
        out.writelines(line + "\n" for line in traffic.lines())
    if args.manifest:
        args.manifest.write_text(json.dumps(traffic.manifest.to_json(), indent=2) + "\n")


if __name__ == "__main__":
    main()
