#!/usr/bin/env python3
"""Works out from a file of deliveries, one a line, what the product must answer.

    oracle.py FILE.jsonl > expected.json

It reads nothing else and shares no code with the product or the generator, so that a mistake
made there is not made here. Numbers never pass through a float: a JSON number keeps its text,
a value is a whole number of units of 10^-19, and sums are sums of those.

The rules, in the order in which they apply to each line:
1. What is no valid CloudEvent 1.0 is refused.
2. (source, id) is an event's identity and the first delivery of it wins. A further one with equal
   type, subject and data, numbers compared by value, is a repeat, any other a conflict.
3. The winner adds to each meter of its type that can use it. If its type has no meter, or a
   meter cannot use it, it is invalid, which does not stop the meters that can.
4. What it adds to a meter with a price is charged to its subject: its value times the price,
   rounded half-even to the micro-credit. What would be more than 10^9 credits is left out.
"""

import hashlib
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

# Python refuses to read longer whole numbers otherwise; ours may be exponents of any length.
sys.set_int_max_str_digits(0)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
FIRST_INSTANT = 0
END_OF_TIME = (datetime(2300, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
LATE_FROM = 5 * 60 * 1_000_000

SCALE = 19  # places a value may have
WHOLE_DIGITS = 19  # digits it may have before the point

QUANTILES = {"p50": (50, 100), "p90": (90, 100), "p95": (95, 100), "p99": (99, 100)}
ZONES = ("Europe/Berlin",)


class Meter(NamedTuple):
    """One meter of the seed; paths are members of data."""

    slug: str
    event_type: str
    aggregation: str
    value: str | None
    group_by: tuple[str, ...]


METERS = (
    Meter("api_calls", "api.call", "COUNT", None, ("endpoint", "method")),
    Meter("api_latency", "api.call", "SUM", "response_time_ms", ("endpoint",)),
    Meter("api_latency_quantiles", "api.call", "QUANTILES", "response_time_ms", ("endpoint", "method")),
)


class Price(NamedTuple):
    """What one unit of a meter costs in credits: another price where the group has one."""

    meter: str
    credits_per_unit: str
    group_by: str | None = None
    by_value: dict[str, str] = {}


# quota-rules.yaml says the same to the product.
PRICES = (
    Price(
        "api_calls",
        "1",
        "endpoint",
        {
            "/v1/payments/sepa-credit-transfers": "5",
            "/v1/payments/sepa-credit-transfers/{paymentId}/status": "0",
            "/v1/funds-confirmations": "0.25",
            "/domestic-payments": "5",
        },
    ),
    Price("api_latency", "0.0001"),
)

CREDIT = 10**6  # micro-credits
DEAREST = 10**9 * CREDIT  # of one row; what costs more is left out


class Refused(Exception):
    """The line is no valid CloudEvent; its text is the reason."""


class Invalid(Exception):
    """No meter, or not this meter, can use the event; its text is the reason."""


class Number(str):
    """A JSON number as its text."""


class Event(NamedTuple):
    """A valid CloudEvent, as far as metering looks at it."""

    source: str
    id: str
    type: str
    subject: str
    instant: int | None  # microseconds since 1970, None when the event leaves it to its receiver
    data: Any
    is_binary: bool  # its data came as data_base64: bytes, which are no object


# Numbers


class Decimal19(NamedTuple):
    """digits x 10^exponent in its one normal form: no zero at the end of digits, 0 x 10^0 for zero."""

    digits: int
    exponent: int


# As strconv.ParseFloat reads plain numbers: digits may be missing on one side of the point.
NUMERIC = re.compile(r"([+-]?)(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?")


def decimal(text: str) -> Decimal19 | None:
    """Returns the number that the whole text is, if it is one."""
    match = NUMERIC.fullmatch(text)
    if match is None:
        return None
    sign, whole, fraction, exponent = match.group(1), match.group(2), match.group(3) or "", match.group(4) or "0"
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return Decimal19(0, 0)
    kept = digits.rstrip("0")
    dropped = len(digits) - len(kept)
    return Decimal19(int(sign + kept), int(exponent) - len(fraction) + dropped)


def units(value: Any) -> int:
    """Returns a value in units of 10^-19, or says why it is none."""
    if value is None:
        raise Invalid("value_missing")
    number = decimal(value) if isinstance(value, str) else None
    if number is None:
        raise Invalid("value_not_numeric")
    if number.digits and len(str(abs(number.digits))) + number.exponent > WHOLE_DIGITS:
        raise Invalid("value_too_large")
    if number.exponent < -SCALE:
        raise Invalid("value_too_fine")
    return number.digits * 10 ** (number.exponent + SCALE)


def decimal_text(amount: int, scale: int = SCALE) -> str:
    """Returns units of 10^-scale as plain decimal text without zeros at its end."""
    whole, fraction = divmod(abs(amount), 10**scale)
    text = f"{whole}.{fraction:0{scale}d}".rstrip("0").rstrip(".")
    return f"-{text}" if amount < 0 else text


def half_even(number: int, divisor: int) -> int:
    """Returns the whole number nearest to number / divisor, of two the even one."""
    quotient, rest = divmod(number, divisor)
    is_nearer_above = 2 * rest > divisor or (2 * rest == divisor and quotient % 2 == 1)
    return quotient + is_nearer_above


# Times

RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]((?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9])(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)


def instant(text: str) -> int:
    """Returns an RFC 3339 time in microseconds since 1970; finer digits are cut off."""
    match = RFC_3339.fullmatch(text)
    if match is None:
        raise Refused("time_malformed")
    date, clock, fraction, sign, hours, minutes = match.groups()
    try:
        local = datetime.fromisoformat(f"{date}T{clock}+00:00")
    except ValueError:
        raise Refused("time_malformed") from None
    offset = int(f"{sign}1") * (int(hours) * 60 + int(minutes)) * 60 if sign else 0
    # On whole numbers: the instant may lie outside the years that datetime knows.
    seconds = (local - EPOCH) // timedelta(seconds=1) - offset
    return seconds * 1_000_000 + int((fraction or "0")[:6].ljust(6, "0"))


def utc_text(micros: int) -> str:
    return (EPOCH + micros * MICROSECOND).strftime("%Y-%m-%dT%H:%M:%SZ")


def hour_start(micros: int) -> int:
    return micros - micros % 3_600_000_000


def day_start(micros: int, zone: ZoneInfo) -> int:
    """Returns the instant at which the day began in the zone."""
    local = (EPOCH + micros * MICROSECOND).astimezone(zone)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return (midnight.astimezone(UTC) - EPOCH) // MICROSECOND


# CloudEvents

REQUIRED = ("id", "source", "type", "specversion")
TEXTS = (*REQUIRED, "time", "subject", "dataschema", "datacontenttype", "data_base64")


def no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# Python would take NaN and Infinity, which JSON does not have.
JSON = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=no_constant)


def parse(line: bytes) -> dict[str, Any]:
    try:
        event = JSON.decode(line.decode("utf-8"))
    except ValueError:
        raise Refused("not_json") from None
    if not isinstance(event, dict):
        raise Refused("not_an_object")
    # The JSON event format takes null for absent.
    return {name: value for name, value in event.items() if value is not None}


def check_attributes(event: dict[str, Any]) -> None:
    for name, value in event.items():
        if name == "data":
            continue
        # An extension may also be a number or a boolean.
        if isinstance(value, (dict, list)) or (name in TEXTS and type(value) is not str):
            raise Refused("attribute_type")
    for name in REQUIRED:
        if not event.get(name):
            raise Refused(f"{name}_missing")
    if event["specversion"] != "1.0":
        raise Refused("specversion_unsupported")
    if "data" in event and "data_base64" in event:
        raise Refused("data_twice")


def cloud_event(line: bytes) -> Event:
    """Returns the line's event, or says why it is none."""
    event = parse(line)
    check_attributes(event)
    return Event(
        source=event["source"],
        id=event["id"],
        type=event["type"],
        subject=event.get("subject", ""),
        instant=instant(event["time"]) if "time" in event else None,
        data=event.get("data", event.get("data_base64")),
        is_binary="data_base64" in event,
    )


def canonical(value: Any) -> str:
    """Returns text that is the same for equal JSON values only."""
    match value:
        case Number():
            number = decimal(value)
            return f"{number.digits}e{number.exponent}"
        case dict():
            return "{" + ",".join(f"{json.dumps(name)}:{canonical(value[name])}" for name in sorted(value)) + "}"
        case list():
            return "[" + ",".join(map(canonical, value)) + "]"
        case _:
            return json.dumps(value)


def content(event: Event) -> bytes:
    """Returns a fingerprint of what a repeat must share with the first delivery."""
    text = canonical([event.type, event.subject, event.is_binary, event.data])
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


# Metering


class Row(NamedTuple):
    """What an event adds to a meter."""

    meter: Meter
    key: tuple[str, ...]
    value: int | None


def check_event(event: Event) -> None:
    """Raises for what no meter can use."""
    if all(meter.event_type != event.type for meter in METERS):
        raise Invalid("type_without_meter")
    if not event.subject:
        raise Invalid("subject_missing")
    if event.instant is not None and not FIRST_INSTANT <= event.instant < END_OF_TIME:
        raise Invalid("time_out_of_range")
    if event.is_binary or not isinstance(event.data, (dict, type(None))):
        raise Invalid("data_not_an_object")


def group_text(data: dict[str, Any], name: str) -> str:
    """Returns a group's text: "" where there is no member, or one that is no scalar."""
    value = data.get(name, "")
    if isinstance(value, str):
        return str(value)
    return "" if isinstance(value, (dict, list)) else json.dumps(value)


def row(meter: Meter, event: Event) -> Row:
    data = event.data or {}
    groups = (group_text(data, name) for name in meter.group_by)
    value = units(data.get(meter.value)) if meter.value else None
    return Row(meter, (event.subject, *groups), value)


def rows(event: Event) -> tuple[list[Row], str | None]:
    """Returns what the event adds, and the first reason for which a meter cannot use it."""
    try:
        check_event(event)
    except Invalid as reason:
        return [], str(reason)
    usable, problem = [], None
    for meter in METERS:
        if meter.event_type == event.type:
            try:
                usable.append(row(meter, event))
            except Invalid as reason:
                problem = problem or str(reason)
    return usable, problem


def micro_credits(price: Price, row: Row) -> int:
    """Returns what a row costs."""
    groups = dict(zip(row.meter.group_by, row.key[1:], strict=True))
    group = groups[price.group_by] if price.group_by else ""
    unit_price = price.by_value.get(group, price.credits_per_unit)
    value = 10**SCALE if row.value is None else row.value
    return half_even(value * units(unit_price) * CREDIT, 10 ** (2 * SCALE))


@dataclass
class Charges:
    """What each subject's rows cost, in micro-credits."""

    sums: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        for price in PRICES:
            if price.meter == row.meter.slug:
                cost = micro_credits(price, row)
                self.sums[row.key[0]] += cost if abs(cost) <= DEAREST else 0

    def answer(self) -> dict[str, str]:
        return {subject: decimal_text(self.sums[subject], 6) for subject in sorted(self.sums)}


@dataclass
class Usage:
    """One meter's rows: each group's count, sum and, for quantiles, values."""

    meter: Meter
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    sums: Counter[tuple[str, ...]] = field(default_factory=Counter)
    values: defaultdict[tuple[str, ...], list[int]] = field(default_factory=lambda: defaultdict(list))
    hours: Counter[int] = field(default_factory=Counter)
    days: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, row: Row, at: int | None) -> None:
        amount = 10**SCALE if row.value is None else row.value
        self.counts[row.key] += 1
        self.sums[row.key] += amount
        if self.meter.aggregation == "QUANTILES":
            self.values[row.key].append(amount)
        elif at is not None:
            self.hours[hour_start(at)] += amount
            for zone in ZONES:
                self.days[zone][day_start(at, ZoneInfo(zone))] += amount

    def usage(self) -> list[dict[str, Any]]:
        names = ("subject", *self.meter.group_by)
        return [dict(zip(names, key)) | self.answer(key) for key in sorted(self.counts)]

    def answer(self, key: tuple[str, ...]) -> dict[str, Any]:
        if self.meter.aggregation != "QUANTILES":
            return {"value": decimal_text(self.sums[key])}
        ordered = sorted(self.values[key])
        return {"count": len(ordered)} | {name: quantile(ordered, *level) for name, level in QUANTILES.items()}

    def total(self) -> dict[str, Any]:
        return {"count": self.counts.total(), "sum": decimal_text(self.sums.total())}


def quantile(ordered: list[int], part: int, whole: int) -> str:
    """Returns the element at floor(level x n), the last one at most, as quantileExact does."""
    return decimal_text(ordered[min(part * len(ordered) // whole, len(ordered) - 1)])


def windows(values: Counter[int]) -> list[dict[str, str]]:
    return [{"windowStart": utc_text(start), "value": decimal_text(values[start])} for start in sorted(values)]


@dataclass
class Oracle:
    """Takes the lines in order and knows the answer so far."""

    refused: Counter[str] = field(default_factory=Counter)
    invalid: Counter[str] = field(default_factory=Counter)
    contents: dict[tuple[str, str], bytes] = field(default_factory=dict)
    repeats: int = 0
    conflicts: int = 0
    late: int = 0
    newest: int = FIRST_INSTANT
    usage: dict[str, Usage] = field(default_factory=lambda: {meter.slug: Usage(meter) for meter in METERS})
    charges: Charges = field(default_factory=Charges)

    def take(self, line: bytes) -> None:
        try:
            event = cloud_event(line)
        except Refused as reason:
            self.refused[str(reason)] += 1
            return
        if self.is_first(event):
            self.meter(event)

    def is_first(self, event: Event) -> bool:
        identity, found = (event.source, event.id), content(event)
        first = self.contents.get(identity)
        if first is None:
            self.contents[identity] = found
        elif first == found:
            self.repeats += 1
        else:
            self.conflicts += 1
        return first is None

    def meter(self, event: Event) -> None:
        usable, problem = rows(event)
        if problem:
            self.invalid[problem] += 1
        for row in usable:
            self.usage[row.meter.slug].add(row, event.instant)
            self.charges.add(row)
        if usable and event.instant is not None:
            self.late += event.instant < self.newest - LATE_FROM
            self.newest = max(self.newest, event.instant)

    def answer(self) -> dict[str, Any]:
        windowed = {slug: usage for slug, usage in self.usage.items() if usage.meter.aggregation != "QUANTILES"}
        return {
            "refused": dict(sorted(self.refused.items())),
            "accepted": len(self.contents) + self.repeats + self.conflicts,
            "distinct": len(self.contents),
            "repeats": self.repeats,
            "conflicts": self.conflicts,
            "invalid": self.invalid.total(),
            "invalid_by_reason": dict(sorted(self.invalid.items())),
            "late": self.late,
            "charges": self.charges.answer(),
            "usage": {slug: usage.usage() for slug, usage in self.usage.items()},
            "totals": {slug: usage.total() for slug, usage in self.usage.items()},
            "hourly": {slug: windows(usage.hours) for slug, usage in windowed.items()},
            "daily_by_zone": {
                slug: {zone: windows(usage.days[zone]) for zone in ZONES} for slug, usage in windowed.items()
            },
        }


def expected(lines: Iterable[bytes]) -> dict[str, Any]:
    """Returns the answer to a file's lines; blank ones are no deliveries."""
    oracle = Oracle()
    for line in lines:
        if line.strip():
            oracle.take(line)
    return oracle.answer()


def lines_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} FILE.jsonl > expected.json")
    json.dump(expected(lines_of(Path(sys.argv[1]))), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
