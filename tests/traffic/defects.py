"""What the generator spoils, one function a defect. README.md says what becomes of each."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, zip_longest
from random import Random

from event import Event, written

Spoil = Callable[[Random, Event], str]


@dataclass(frozen=True)
class Defect:
    """A kind of spoilt line: refused at the door, or accepted and kept as invalid."""

    kind: str
    refused: bool
    spoil: Spoil


def one_of(rng: Random, texts: tuple[str, ...]) -> str:
    return texts[int(rng.random() * len(texts))]


def attribute(name: str, *texts: str) -> Spoil:
    return lambda rng, event: Event(event.attributes | {name: one_of(rng, texts)}, event.data).line()


def no_attribute(name: str) -> Spoil:
    def spoil(_: Random, event: Event) -> str:
        del event.attributes[name]
        return event.line()

    return spoil


def latency(*texts: str) -> Spoil:
    return lambda rng, event: Event(event.attributes, event.data | {"response_time_ms": one_of(rng, texts)}).line()


def no_latency(_: Random, event: Event) -> str:
    del event.data["response_time_ms"]
    return event.line()


def whole_data(*texts: str) -> Spoil:
    return lambda rng, event: written(event.attributes | {"data": one_of(rng, texts)})


def no_data(_: Random, event: Event) -> str:
    return written(event.attributes)


def truncated(rng: Random, event: Event) -> str:
    """Cuts the line somewhere before its end: no prefix of an object is JSON."""
    line = event.line()
    return line[: 1 + int(rng.random() * (len(line) - 1))]


REFUSED = {
    "id missing": no_attribute("id"),
    "source empty": attribute("source", '""'),
    "type missing": no_attribute("type"),
    "specversion missing": no_attribute("specversion"),
    "specversion unknown": attribute("specversion", '"9.9"', '"0.3"'),
    "time malformed": attribute(
        "time",
        '"yesterday"',
        '"2024-01-15"',
        '"2024-01-15T10:30:00"',
        '"2024-02-30T10:30:00Z"',
        '"2024-01-15T25:00:00Z"',
        '"1705314600"',
    ),
    "truncated": truncated,
    "id a number": attribute("id", "12345"),
    "subject an object": attribute("subject", '{"tpp":"tpp-00001"}'),
    "data twice": attribute("data_base64", '"eyJlbmRwb2ludCI6Ii9hY2NvdW50cyJ9"'),
}

INVALID = {
    "type without meter": attribute("type", '"consent.revoked"', '"API.CALL"'),
    "subject missing": no_attribute("subject"),
    "value missing": no_latency,
    "value null": latency("null"),
    "value not numeric": latency('"fast"', '"45 ms"', '"4_5"', '""', "true", "[45]"),
    "value NaN": latency('"NaN"', '"nan"'),
    "value infinite": latency('"Inf"', '"-Infinity"', '"+inf"'),
    "value too fine": latency("45.12345678901234567891", "1e-20", '"0.00000000000000000001"'),
    "value too large": latency("10000000000000000000", "1e19", '"12345678901234567890.5"', "-1E+400"),
    "data a string": whole_data('"GET /accounts"'),
    "data an array": whole_data('["/accounts","GET",200,45]'),
    "data missing": no_data,
    "data null": whole_data("null"),
    # One of each has its year only in UTC, not in the text.
    "time before 1970": attribute("time", '"1969-12-31T23:59:59.999Z"', '"1970-01-01T00:30:00+01:00"'),
    "time from 2300 on": attribute("time", '"2300-01-01T00:00:00Z"', '"2299-12-31T23:30:00-01:00"'),
}

REFUSALS = (Defect(kind, True, spoil) for kind, spoil in REFUSED.items())
INVALIDITIES = (Defect(kind, False, spoil) for kind, spoil in INVALID.items())

# One of the one, one of the other, so that a file with few defects has both.
DEFECTS = [defect for defect in chain.from_iterable(zip_longest(REFUSALS, INVALIDITIES)) if defect]
