"""An event as the generator writes it: JSON text all along, so that it decides every byte."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Event:
    """Attributes and members of data, each name with its value's JSON text."""

    attributes: dict[str, str]
    data: dict[str, str]

    def line(self) -> str:
        return written(self.attributes | {"data": written(self.data)})


def written(members: dict[str, str]) -> str:
    return "{" + ",".join(f'"{name}":{text}' for name, text in members.items()) + "}"


def quoted(text: str) -> str:
    return json.dumps(text)


def time_text(instant: int, style: str) -> str:
    """Returns the instant (microseconds) as RFC 3339; what the style has no digits for is cut off."""
    seconds, micros = divmod(instant, 1_000_000)
    moment = EPOCH + timedelta(seconds=seconds, hours=style == "offset")
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    match style:
        case "offset":
            return f"{text}+01:00"
        case "millis":
            return f"{text}.{micros // 1000:03d}Z"
        case "micros":
            return f"{text}.{micros:06d}Z"
        case "nanos":
            return f"{text}.{micros:06d}{micros % 997:03d}Z"
        case _:
            return f"{text}Z"


def respelled(text: str, way: int) -> str:
    """Returns a plain JSON number written another way; a string stays as it is."""
    if text.startswith('"'):
        return text
    whole, _, part = text.partition(".")
    digits = (whole + part).lstrip("0") or "0"
    match way:
        case 0:
            return f"{whole}.{part}0"
        case 1:
            return f"{whole[0]}.{whole[1:] + part or '0'}e{len(whole) - 1}"
        case 2:
            return f"{digits}E-{len(part)}"
        case _:
            return f"{digits}000e-{len(part) + 3}"
