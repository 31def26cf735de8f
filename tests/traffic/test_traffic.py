"""Tests of the generator, and of the oracle against answers worked out by hand.

    python3 -m unittest tests/traffic/test_traffic.py
"""

import json
import subprocess
import sys
import unittest
from collections import Counter, defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402
import oracle  # noqa: E402

START = generate.instant_of("2024-01-15T00:00:00Z")

# What the oracle calls the generator's defects.
REFUSED_AS = {
    "id missing": "id_missing",
    "source empty": "source_missing",
    "type missing": "type_missing",
    "specversion missing": "specversion_missing",
    "specversion unknown": "specversion_unsupported",
    "time malformed": "time_malformed",
    "truncated": "not_json",
    "id a number": "attribute_type",
    "subject an object": "attribute_type",
    "data twice": "data_twice",
}
INVALID_AS = {
    "type without meter": "type_without_meter",
    "subject missing": "subject_missing",
    "value missing": "value_missing",
    "value null": "value_missing",
    "value not numeric": "value_not_numeric",
    "value NaN": "value_not_numeric",
    "value infinite": "value_not_numeric",
    "value too fine": "value_too_fine",
    "value too large": "value_too_large",
    "data a string": "data_not_an_object",
    "data an array": "data_not_an_object",
    "data missing": "value_missing",
    "data null": "value_missing",
    "time before 1970": "time_out_of_range",
    "time from 2300 on": "time_out_of_range",
}
STILL_COUNTED = [kind for kind in INVALID_AS if kind.startswith("value") or kind in ("data missing", "data null")]


def traffic(events: int, seed: int) -> tuple[list[str], dict[str, Any]]:
    run = generate.Traffic(events, seed, START, hours=24)
    return list(run.lines()), run.manifest.to_json()


def expected(lines: list[str]) -> dict[str, Any]:
    return oracle.expected(line.encode() + b"\n" for line in lines)


def renamed(kinds: dict[str, int], names: dict[str, str]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for kind, count in kinds.items():
        counts[names[kind]] += count
    return dict(counts)


def by_identity(lines: list[str]) -> dict[tuple[str, str], list[tuple[int, dict[str, Any]]]]:
    """Returns the deliveries of each identity with their line numbers."""
    found = defaultdict(list)
    for number, line in enumerate(lines):
        try:
            event = json.loads(line)
            found[event["source"], event["id"]].append((number, event))
        except (ValueError, KeyError):
            continue
    return found


def counted_times(lines: list[str]) -> list[int]:
    """Returns the instants of the events that a meter counts, in the order of their first deliveries."""
    times: dict[tuple[str, str], int] = {}
    for line in lines:
        try:
            event = oracle.cloud_event(line.encode())
        except oracle.Refused:
            continue
        if oracle.rows(event)[0]:
            times.setdefault((event.source, event.id), event.instant)
    return list(times.values())


class TheGenerator(unittest.TestCase):
    events = 20_000

    @classmethod
    def setUpClass(cls) -> None:
        cls.lines, cls.manifest = traffic(cls.events, seed=1)
        cls.answer = expected(cls.lines)
        cls.deliveries = by_identity(cls.lines)

    def test_the_same_arguments_give_the_same_bytes(self) -> None:
        self.assertEqual(self.lines, traffic(self.events, seed=1)[0])

    def test_another_seed_gives_other_events(self) -> None:
        self.assertFalse(set(traffic(1000, seed=2)[0]) & set(traffic(1000, seed=3)[0]))

    def test_the_shares_are_as_stated(self) -> None:
        manifest = self.manifest
        self.assertEqual(manifest["sent_twice"], 1000)
        self.assertAlmostEqual(manifest["sent_twice_with_later_time"], 500, delta=60)
        self.assertEqual(sum(manifest["conflicts"].values()), 20)
        self.assertEqual(manifest["late"], 400)
        self.assertEqual(sum(manifest["refused"].values()) + sum(manifest["invalid"].values()), 200)
        self.assertEqual(manifest["lines"], len(self.lines))
        self.assertEqual(len(self.lines), 20_000 + 1000 + 20 + 200 + manifest["sent_twice_invalid"])

    def test_the_file_holds_the_regular_events_and_their_further_deliveries(self) -> None:
        again = sum(len(sent) - 1 for (_, id), sent in self.deliveries.items() if isinstance(id, str))
        extra = 1000 + 20 + self.manifest["sent_twice_invalid"]
        self.assertEqual(again, extra)

    def test_a_further_delivery_comes_a_line_to_some_thousand_lines_later(self) -> None:
        sent_again = [sent for (_, id), sent in self.deliveries.items() if isinstance(id, str) and len(sent) > 1]
        distances = [later[0] - sent[0][0] for sent in sent_again for later in sent[1:]]
        self.assertEqual(min(distances), 1)
        self.assertGreater(max(distances), 3000)
        # Those that are due in one place push each other on.
        self.assertLess(max(distances), generate.MAX_DISTANCE + 100)

    def test_every_kind_of_defect_occurs(self) -> None:
        self.assertEqual(set(self.manifest["refused"]), set(REFUSED_AS))
        self.assertEqual(set(self.manifest["invalid"]), set(INVALID_AS))

    def test_fourteen_operations_and_fifty_subjects_occur(self) -> None:
        usage = self.answer["usage"]["api_calls"]
        self.assertEqual(len({(row["endpoint"], row["method"]) for row in usage if row["endpoint"]}), 14)
        self.assertEqual({row["subject"] for row in usage}, {f"tpp-{n:05d}" for n in range(1, 51)})

    def test_some_subjects_and_hours_are_far_busier_than_others(self) -> None:
        by_subject: Counter[str] = Counter()
        for row in self.answer["usage"]["api_calls"]:
            by_subject[row["subject"]] += int(row["value"])
        self.assertGreater(by_subject["tpp-00001"], 20 * by_subject["tpp-00050"])
        by_hour = {row["windowStart"]: int(row["value"]) for row in self.answer["hourly"]["api_calls"]}
        self.assertGreater(by_hour["2024-01-15T12:00:00Z"], 8 * by_hour["2024-01-15T03:00:00Z"])

    def test_values_are_whole_numbers_decimals_and_texts(self) -> None:
        values = Counter(
            type(sent[0][1]["data"]["response_time_ms"])
            for sent in self.deliveries.values()
            if isinstance(sent[0][1].get("data"), dict) and "response_time_ms" in sent[0][1]["data"]
        )
        self.assertGreater(values[int], values[float])
        self.assertGreater(values[float], values[str])
        self.assertGreater(values[str], 200)

    def test_late_events_are_minutes_to_three_days_late(self) -> None:
        newest, lateness = START, []
        for time in counted_times(self.lines):
            lateness.append(newest - time)
            newest = max(newest, time)
        late = [span for span in lateness if span > 5 * generate.MINUTE]
        self.assertEqual(len(late), 400)
        self.assertLess(max(late), 3 * generate.DAY + generate.MINUTE)
        self.assertGreater(max(late), 2 * generate.DAY)


class TheManifestAndTheOracle(unittest.TestCase):
    def test_they_agree_whatever_the_size_and_seed(self) -> None:
        for events, seed in [(0, 1), (1, 1), (9, 1), (1000, 1), (1000, 2), (5000, 3), (20_000, 4)]:
            with self.subTest(events=events, seed=seed):
                self.compare(*traffic(events, seed))

    def compare(self, lines: list[str], manifest: dict[str, Any]) -> None:
        answer = expected(lines)
        invalid = sum(manifest["invalid"].values())
        counted = manifest["events"] + sum(manifest["invalid"].get(kind, 0) for kind in STILL_COUNTED)
        self.assertEqual(answer["refused"], renamed(manifest["refused"], REFUSED_AS))
        self.assertEqual(answer["invalid_by_reason"], renamed(manifest["invalid"], INVALID_AS))
        self.assertEqual(answer["invalid"], invalid)
        self.assertEqual(answer["distinct"], manifest["events"] + invalid)
        self.assertEqual(answer["repeats"], manifest["sent_twice"] + manifest["sent_twice_invalid"])
        self.assertEqual(answer["conflicts"], sum(manifest["conflicts"].values()))
        self.assertEqual(answer["late"], manifest["late"])
        self.assertEqual(answer["accepted"], manifest["lines"] - sum(manifest["refused"].values()))
        self.assertEqual(answer["totals"]["api_calls"]["count"], counted)
        self.assertEqual(answer["totals"]["api_latency"]["count"], manifest["events"])


def event(data: Any = ..., **changes: Any) -> str:
    """Returns the seed's event as a line, with changes; ... takes an attribute away."""
    attributes = {
        "specversion": "1.0",
        "type": "api.call",
        "source": "open-banking-api",
        "id": "1",
        "time": "2024-01-15T10:30:00Z",
        "subject": "tpp-12345",
        "data": {"endpoint": "/accounts", "method": "GET", "status_code": 200, "response_time_ms": 45},
    }
    if data is not ...:
        attributes["data"] = data
    attributes |= changes
    return json.dumps({name: value for name, value in attributes.items() if value is not ...})


def valued(number: str, id: str = "1", **changes: Any) -> str:
    """Returns the event with the value written as given."""
    return event(id=id, **changes).replace('"response_time_ms": 45', f'"response_time_ms": {number}')


class TheOracle(unittest.TestCase):
    def total(self, *lines: str, meter: str = "api_latency") -> str:
        return expected(list(lines))["totals"][meter]["sum"]

    def assert_refused(self, reason: str, *lines: str) -> None:
        answer = expected(list(lines))
        self.assertEqual(answer["refused"], {reason: len(lines)})
        self.assertEqual((answer["accepted"], answer["distinct"]), (0, 0))

    def assert_invalid(self, reason: str, line: str, calls: str, latency: str = "0") -> None:
        """Checks an event that is kept as invalid and adds to the meters no more than this."""
        answer = expected([line])
        self.assertEqual(answer["refused"], {})
        self.assertEqual(answer["invalid_by_reason"], {reason: 1})
        self.assertEqual((answer["accepted"], answer["distinct"], answer["invalid"]), (1, 1, 1))
        self.assertEqual(answer["totals"]["api_calls"]["sum"], calls)
        self.assertEqual(answer["totals"]["api_latency"]["sum"], latency)

    # What is counted

    def test_the_seeds_event_is_counted(self) -> None:
        group = {"subject": "tpp-12345", "endpoint": "/accounts"}
        quantiles = {"count": 1, "p50": "45", "p90": "45", "p95": "45", "p99": "45"}
        self.assertEqual(
            expected([event()]),
            {
                "refused": {},
                "accepted": 1,
                "distinct": 1,
                "repeats": 0,
                "conflicts": 0,
                "invalid": 0,
                "invalid_by_reason": {},
                "late": 0,
                "charges": {"tpp-12345": "1.0045"},
                "usage": {
                    "api_calls": [group | {"method": "GET", "value": "1"}],
                    "api_latency": [group | {"value": "45"}],
                    "api_latency_quantiles": [group | {"method": "GET"} | quantiles],
                },
                "totals": {
                    "api_calls": {"count": 1, "sum": "1"},
                    "api_latency": {"count": 1, "sum": "45"},
                    "api_latency_quantiles": {"count": 1, "sum": "45"},
                },
                "hourly": {
                    "api_calls": [{"windowStart": "2024-01-15T10:00:00Z", "value": "1"}],
                    "api_latency": [{"windowStart": "2024-01-15T10:00:00Z", "value": "45"}],
                },
                "daily_by_zone": {
                    "api_calls": {"Europe/Berlin": [{"windowStart": "2024-01-14T23:00:00Z", "value": "1"}]},
                    "api_latency": {"Europe/Berlin": [{"windowStart": "2024-01-14T23:00:00Z", "value": "45"}]},
                },
            },
        )

    def test_groups_are_the_meters_own(self) -> None:
        lines = [
            event(id="1", data={"endpoint": "/a", "method": "GET", "response_time_ms": 1}),
            event(id="2", data={"endpoint": "/a", "method": "PUT", "response_time_ms": 2}),
            event(id="3", data={"endpoint": "/a", "method": "PUT", "response_time_ms": 4}, subject="tpp-0"),
        ]
        usage = expected(lines)["usage"]
        self.assertEqual([row["value"] for row in usage["api_calls"]], ["1", "1", "1"])
        self.assertEqual(
            usage["api_latency"],
            [
                {"subject": "tpp-0", "endpoint": "/a", "value": "4"},
                {"subject": "tpp-12345", "endpoint": "/a", "value": "3"},
            ],
        )

    def test_a_group_is_a_scalars_text(self) -> None:
        for value, text in [(None, "null"), (True, "true"), (7, "7"), ("", ""), ("x", "x"), ([1], ""), ({}, "")]:
            with self.subTest(value=value):
                usage = expected([event(data={"endpoint": value, "response_time_ms": 1})])["usage"]["api_calls"]
                self.assertEqual((usage[0]["endpoint"], usage[0]["method"]), (text, ""))

    def test_values_add_up_exactly(self) -> None:
        self.assertEqual(self.total(valued("0.1"), valued("0.2", id="2")), "0.3")

    def test_a_value_may_have_nineteen_digits_on_either_side(self) -> None:
        largest = "9999999999999999999.9999999999999999999"
        self.assertEqual(self.total(valued(largest)), largest)
        twice = "19999999999999999999.9999999999999999998"
        self.assertEqual(self.total(valued(largest), valued(largest, id="2")), twice)

    def test_a_value_may_be_negative(self) -> None:
        self.assertEqual(self.total(valued("-45.5"), valued("0.25", id="2")), "-45.25")

    def test_a_value_may_be_a_text(self) -> None:
        for text, value in [("45.50", "45.5"), ("+1e3", "1000"), ("-0", "0"), ("007", "7"), ("2.5E-1", "0.25")]:
            with self.subTest(text=text):
                self.assertEqual(self.total(valued(json.dumps(text))), value)

    def test_only_the_value_decides_what_is_too_fine_or_too_large(self) -> None:
        zeros = "0" * 30
        for text, value in [(f"1.{zeros}", "1"), ("0e-99", "0"), ("0e999999999999", "0"), (f"1{zeros}e-30", "1")]:
            with self.subTest(text=text):
                self.assertEqual(self.total(valued(text)), value)

    # Repeats and conflicts

    def test_a_repeat_adds_nothing(self) -> None:
        answer = expected([event(), event(), event()])
        self.assertEqual((answer["accepted"], answer["distinct"], answer["repeats"]), (3, 1, 2))
        self.assertEqual(answer["totals"]["api_latency"], {"count": 1, "sum": "45"})

    def test_a_repeat_may_differ_in_time_schema_and_extensions(self) -> None:
        again = event(time="2024-01-15T11:30:00Z", dataschema="https://example.com/s", traceparent="00-a-b-01")
        answer = expected([event(), again])
        self.assertEqual((answer["repeats"], answer["conflicts"]), (1, 0))
        self.assertEqual(answer["hourly"]["api_calls"], [{"windowStart": "2024-01-15T10:00:00Z", "value": "1"}])

    def test_numbers_of_equal_value_are_equal_content(self) -> None:
        for number in ("45.0", "4.5e1", "4500E-2", "0.45e+2"):
            with self.subTest(number=number):
                self.assertEqual(expected([event(), valued(number)])["repeats"], 1)

    def test_the_order_of_members_and_escapes_do_not_matter(self) -> None:
        data = '{"response_time_ms":45,"status_code":200,"method":"\\u0047ET","endpoint":"\\/accounts"}'
        head = '"type":"api.call","subject":"tpp-12345","source":"open-banking-api","id":"1"'
        answer = expected([event(), f'{{"data":{data},{head},"specversion":"1.0","time":"2024-01-15T10:30:00Z"}}'])
        self.assertEqual(answer["repeats"], 1)

    def test_other_content_is_a_conflict_and_adds_nothing(self) -> None:
        others = [event(type="api.call.retried"), event(subject="tpp-2"), event(subject=...), event(data=None)]
        others += [valued("46"), valued('"45"'), valued("null"), event(data=[45]), valued("45.0000000000000000000001")]
        for other in others:
            with self.subTest(other=other):
                answer = expected([event(), other])
                self.assertEqual((answer["repeats"], answer["conflicts"], answer["invalid"]), (0, 1, 0))
                self.assertEqual(answer["totals"]["api_latency"], {"count": 1, "sum": "45"})

    def test_true_is_not_one_and_an_array_keeps_its_order(self) -> None:
        for first, other in [(True, 1), ([1, 2], [2, 1]), (0, False), ("1", 1), (None, ...)]:
            with self.subTest(first=first, other=other):
                lines = [event(data={"x": value} if value is not ... else {}) for value in (first, other)]
                self.assertEqual(expected(lines)["conflicts"], 1)

    def test_the_first_of_an_identity_wins_also_if_it_is_invalid(self) -> None:
        answer = expected([valued('"fast"'), event(), event()])
        self.assertEqual((answer["conflicts"], answer["invalid"], answer["distinct"]), (2, 1, 1))
        self.assertEqual(answer["totals"]["api_latency"]["count"], 0)

    def test_a_conflict_does_not_replace_what_repeats_are_compared_with(self) -> None:
        answer = expected([event(), valued("46"), event(), valued("46")])
        self.assertEqual((answer["repeats"], answer["conflicts"]), (1, 2))

    def test_one_id_of_two_sources_is_two_events(self) -> None:
        answer = expected([event(), event(source="open-banking-api/gw-2")])
        self.assertEqual((answer["distinct"], answer["repeats"]), (2, 0))

    def test_an_invalid_event_sent_twice_is_one(self) -> None:
        answer = expected([event(subject=...)] * 2)
        self.assertEqual((answer["distinct"], answer["repeats"], answer["invalid"]), (1, 1, 1))

    # What is refused

    def test_a_required_attribute_must_be_there(self) -> None:
        for name in ("id", "source", "type", "specversion"):
            with self.subTest(name=name):
                absent = [event(**{name: value}) for value in (..., None, "")]
                self.assert_refused(f"{name}_missing", *absent)

    def test_only_version_one_is_taken(self) -> None:
        self.assert_refused("specversion_unsupported", *(event(specversion=v) for v in ("9.9", "0.3", "1", "1.0.1")))

    def test_a_time_must_be_rfc_3339(self) -> None:
        times = ["yesterday", "", "2024-01-15", "2024-01-15T10:30:00", "2024-02-30T10:30:00Z", "1705314600"]
        times += ["2024-01-15T24:00:00Z", "2024-01-15T10:30Z", "2024-01-15T10:30:00.Z", "2024-01-15T10:30:00+0100"]
        self.assert_refused("time_malformed", *(event(time=time) for time in times))

    def test_a_line_must_be_json(self) -> None:
        self.assert_refused("not_json", event()[:-1], "{", "id=1", valued("NaN"), valued("-Infinity"), valued("045"))
        self.assertEqual(oracle.expected([b'{"id":"\xff"}'])["refused"], {"not_json": 1})

    def test_a_line_must_be_one_object(self) -> None:
        self.assert_refused("not_an_object", f"[{event()}]", "1", "null")

    def test_an_attribute_must_have_its_type(self) -> None:
        wrong = [event(id=1), event(subject=True), event(source=["a"]), event(time=1705314600), event(extra={})]
        self.assert_refused("attribute_type", *wrong)

    def test_an_extension_may_be_a_number_or_a_boolean(self) -> None:
        self.assertEqual(expected([event(attempt=2, sampled=True)])["accepted"], 1)

    def test_data_may_come_only_once(self) -> None:
        self.assert_refused("data_twice", event(data_base64="e30="))

    def test_a_refused_line_takes_no_identity(self) -> None:
        answer = expected([event(specversion="9.9"), event()])
        self.assertEqual((answer["distinct"], answer["repeats"]), (1, 0))

    def test_a_blank_line_is_no_delivery(self) -> None:
        self.assertEqual(expected(["", event(), "  "])["refused"], {})

    # What is accepted and kept as invalid

    def test_a_type_may_have_no_meter(self) -> None:
        self.assert_invalid("type_without_meter", event(type="consent.revoked"), calls="0")
        self.assert_invalid("type_without_meter", event(type="API.CALL"), calls="0")

    def test_a_subject_may_be_missing(self) -> None:
        for subject in (..., None, ""):
            self.assert_invalid("subject_missing", event(subject=subject), calls="0")

    def test_data_may_be_no_object(self) -> None:
        for data in ("GET /accounts", [1], 45, True):
            self.assert_invalid("data_not_an_object", event(data=data), calls="0")
        self.assert_invalid("data_not_an_object", event(data=None, data_base64="e30="), calls="0")

    def test_a_call_without_data_still_counts(self) -> None:
        for line in (event(data=None), json.dumps({k: v for k, v in json.loads(event()).items() if k != "data"})):
            self.assert_invalid("value_missing", line, calls="1")
            self.assertEqual(
                expected([line])["usage"]["api_calls"],
                [{"subject": "tpp-12345", "endpoint": "", "method": "", "value": "1"}],
            )

    def test_a_call_without_value_still_counts(self) -> None:
        self.assert_invalid("value_missing", event(data={}), calls="1")
        self.assert_invalid("value_missing", valued("null"), calls="1")

    def test_a_value_may_be_no_number(self) -> None:
        texts = ["fast", "", "NaN", "Infinity", "-inf", "4_5", " 45", "45\n", ".", "-.", "1.e", "1e", "0x1f", "٤٥", "--1"]
        for text in texts:
            with self.subTest(text=text):
                self.assert_invalid("value_not_numeric", valued(json.dumps(text)), calls="1")
        for value in ("true", "[45]", '{"ms":45}'):
            with self.subTest(value=value):
                self.assert_invalid("value_not_numeric", valued(value), calls="1")

    def test_a_value_may_lack_digits_on_one_side_of_the_point(self) -> None:
        for text, value in ((".5", "0.5"), ("5.", "5"), ("-.5e1", "-5"), ("+5.e-1", "0.5")):
            with self.subTest(text=text):
                rows = expected([valued(json.dumps(text))])["usage"]["api_latency"]
                self.assertEqual([row["value"] for row in rows], [value])

    def test_a_value_may_be_too_fine(self) -> None:
        for number in ("45.12345678901234567891", "1e-20", '"0.00000000000000000001"', "-1e-99999999999"):
            with self.subTest(number=number):
                self.assert_invalid("value_too_fine", valued(number), calls="1")

    def test_a_value_may_be_too_large(self) -> None:
        for number in ("10000000000000000000", "1e19", "-1E+400", '"1e99999999999"', "12345678901234567890.5"):
            with self.subTest(number=number):
                self.assert_invalid("value_too_large", valued(number), calls="1")

    # Times

    def test_times_count_from_1970_to_2299_in_utc(self) -> None:
        outside = ["1969-12-31T23:59:59.9999999Z", "1970-01-01T00:30:00+01:00", "2300-01-01T00:00:00Z"]
        outside += ["2299-12-31T23:30:00-01:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"]
        for time in outside:
            with self.subTest(time=time):
                self.assert_invalid("time_out_of_range", event(time=time), calls="0")
        inside = ["1970-01-01T00:00:00Z", "2299-12-31T23:59:59.999999Z", "2300-01-01T00:30:00+01:00"]
        self.assertEqual(expected([event(id=time, time=time) for time in inside])["invalid"], 0)

    def test_a_window_is_the_instants_and_not_the_texts(self) -> None:
        times = ["2024-01-15T11:30:00+01:00", "2024-01-15t10:59:59.9999999z", "2024-01-15T05:00:00.5-06:00"]
        self.assertEqual(
            expected([event(id=time, time=time) for time in times])["hourly"]["api_calls"],
            [
                {"windowStart": "2024-01-15T10:00:00Z", "value": "2"},
                {"windowStart": "2024-01-15T11:00:00Z", "value": "1"},
            ],
        )

    def test_a_day_is_a_day_of_its_zone(self) -> None:
        # Clocks in Berlin went forward on 2024-03-31: that day has 23 hours.
        times = ["2024-03-30T22:59:59Z", "2024-03-30T23:00:00Z", "2024-03-31T21:59:59Z", "2024-03-31T22:00:00Z"]
        self.assertEqual(
            expected([event(id=time, time=time) for time in times])["daily_by_zone"]["api_calls"]["Europe/Berlin"],
            [
                {"windowStart": "2024-03-29T23:00:00Z", "value": "1"},
                {"windowStart": "2024-03-30T23:00:00Z", "value": "2"},
                {"windowStart": "2024-03-31T22:00:00Z", "value": "1"},
            ],
        )

    def test_an_event_without_time_is_counted_in_no_window(self) -> None:
        answer = expected([event(time=...), event(id="2", time=None)])
        self.assertEqual(answer["totals"]["api_calls"]["count"], 2)
        self.assertEqual(answer["hourly"]["api_calls"], [])

    def test_late_is_more_than_five_minutes_behind_the_newest_counted(self) -> None:
        def at(id: str, clock: str, **changes: Any) -> str:
            return event(id=id, time=f"2024-01-15T{clock}Z", **changes)

        first, later = at("1", "10:00:00"), at("2", "10:30:00")
        self.assertEqual(expected([first, later, at("3", "10:25:00")])["late"], 0)
        self.assertEqual(expected([first, later, at("3", "10:24:59")])["late"], 1)
        self.assertEqual(expected([first, later, at("1", "10:00:00")])["late"], 0, "a repeat is not late")
        unusable = at("2", "10:30:00", subject=...)
        self.assertEqual(expected([first, unusable, at("3", "10:01:00")])["late"], 0, "only the counted are compared")

    # Quantiles

    def test_a_quantile_is_the_element_at_its_share_of_the_count(self) -> None:
        for count, answers in [(1, "1 1 1 1"), (2, "2 2 2 2"), (10, "6 10 10 10"), (100, "51 91 96 100")]:
            with self.subTest(count=count):
                # From large to small: the order of arrival must not matter.
                lines = [valued(str(n), id=str(n)) for n in range(count, 0, -1)]
                row = expected(lines)["usage"]["api_latency_quantiles"][0]
                self.assertEqual(row["count"], count)
                self.assertEqual([row[p] for p in ("p50", "p90", "p95", "p99")], answers.split())

    def test_quantiles_are_ordered_by_value(self) -> None:
        lines = [valued(text, id=text) for text in ("9", "10", '"9.5"', "1e1")]
        row = expected(lines)["usage"]["api_latency_quantiles"][0]
        self.assertEqual((row["p50"], row["p90"]), ("10", "10"))
        self.assertEqual(expected(lines[:3])["usage"]["api_latency_quantiles"][0]["p50"], "9.5")


    # Charges

    def test_a_subject_pays_for_its_counted_rows(self) -> None:
        lines = [event(), event(), event(id="2"), event(id="3", subject="tpp-1"), event(id="4", subject=...)]
        self.assertEqual(expected(lines)["charges"], {"tpp-1": "1.0045", "tpp-12345": "2.009"})
        self.assertEqual(expected([])["charges"], {})

    def test_an_endpoint_may_have_a_price_of_its_own(self) -> None:
        for endpoint, charge in [
            ("/domestic-payments", "5.01"),
            ("/v1/payments/sepa-credit-transfers", "5.01"),
            ("/v1/payments/sepa-credit-transfers/{paymentId}/status", "0.01"),
            ("/v1/funds-confirmations", "0.26"),
            ("/domestic-payments/", "1.01"),
            ("", "1.01"),
        ]:
            with self.subTest(endpoint=endpoint):
                line = event(data={"endpoint": endpoint, "response_time_ms": 100})
                self.assertEqual(expected([line])["charges"], {"tpp-12345": charge})

    def test_a_row_is_rounded_by_itself_and_half_goes_to_the_even(self) -> None:
        # A call is 1 credit and a unit of latency 0.0001.
        for value, charge in [
            ("0.005", "1"),
            ("0.0050000000000000001", "1.000001"),
            ("0.015", "1.000002"),
            ("0.025", "1.000002"),
            ("-0.005", "1"),
            ("-0.015", "0.999998"),
            ("-0.0150000000000000001", "0.999998"),
            ("-0.0149999999999999999", "0.999999"),
            ("-20000", "-1"),
        ]:
            with self.subTest(value=value):
                self.assertEqual(expected([valued(value)])["charges"], {"tpp-12345": charge})
        twice = [valued("0.005"), valued("0.005", id="2")]
        self.assertEqual(expected(twice)["charges"], {"tpp-12345": "2"}, "together it would be a micro-credit more")

    def test_a_row_above_a_billion_credits_is_left_out(self) -> None:
        for value, charge in [
            ("1e13", "1000000001"),
            ("10000000000000.005", "1000000001"),
            ("10000000000000.01", "1"),
            ("-1e13", "-999999999"),
            ("-10000000000000.01", "1"),
            ("9999999999999999999.9999999999999999999", "1"),
        ]:
            with self.subTest(value=value):
                self.assertEqual(expected([valued(value)])["charges"], {"tpp-12345": charge})

    def test_what_is_invalid_pays_for_what_it_adds(self) -> None:
        self.assertEqual(expected([event(data={})])["charges"], {"tpp-12345": "1"})
        self.assertEqual(expected([event(type="consent.revoked")])["charges"], {})


class TheCommands(unittest.TestCase):
    def test_they_write_what_the_functions_return(self) -> None:
        with TemporaryDirectory() as folder:
            out, manifest = Path(folder, "events.jsonl"), Path(folder, "manifest.json")
            # Hashes of texts differ from process to process; the file must not.
            for hash_seed in ("1", "2"):
                self.run_script("generate.py", "500", "7", str(out), "--manifest", str(manifest), hash_seed=hash_seed)
                lines, intended = traffic(500, seed=7)
                self.assertEqual(out.read_bytes(), "".join(line + "\n" for line in lines).encode())
                self.assertEqual(json.loads(manifest.read_text()), intended)
            self.assertEqual(json.loads(self.run_script("oracle.py", str(out), hash_seed="3")), expected(lines))

    def test_start_and_hours_move_the_traffic(self) -> None:
        with TemporaryDirectory() as folder:
            out = Path(folder, "events.jsonl")
            self.run_script("generate.py", "50", "1", str(out), "--start", "2026-03-01T12:00:00+01:00", "--hours", "2")
            starts = {row["windowStart"] for row in expected(out.read_text().splitlines())["hourly"]["api_calls"]}
            self.assertTrue({"2026-03-01T11:00:00Z", "2026-03-01T12:00:00Z"} <= starts)
            self.assertLess(max(starts), "2026-03-01T13:00:00Z")

    def run_script(self, name: str, *arguments: str, hash_seed: str = "0") -> str:
        command = [sys.executable, str(HERE / name), *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": hash_seed}
        ).stdout


if __name__ == "__main__":
    unittest.main()
