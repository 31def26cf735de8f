//! What the texts of attributes look like: URIs, media types, times.

use fluent_uri::IriRef;
use jiff::Timestamp;

pub(crate) fn has_control(text: &str) -> bool {
    !text.bytes().all(is_visible) && text.chars().any(char::is_control)
}

/// Returns whether a byte is ASCII that is seen, or a space.
pub(crate) fn is_visible(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte)
}

/// Refuses what no URI reference contains, and not more: what was accepted once by this must stay
/// so. Whether it is one, [`is_uri_reference`] says.
pub(crate) fn is_uri_like(text: &str) -> bool {
    !text
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || r#"<>"{}|\^`"#.contains(c))
}

/// Letters beyond ASCII are let through: Knative's own SDK sends them, and they are unambiguous.
/// What that SDK cannot read is refused, even if today's URIs allow it: a scheme or two slashes
/// with nothing behind. A KafkaSource would take the record for none of an event.
pub(crate) fn is_uri_reference(text: &str) -> bool {
    let Ok(uri) = IriRef::parse(text) else {
        return false;
    };
    let is_blank = uri.path().is_empty()
        && uri.query().is_none()
        && match uri.authority() {
            Some(authority) => authority.as_str().is_empty(),
            None => uri.scheme().is_some(),
        };
    !is_blank && !text.contains(char::is_whitespace)
}

pub(crate) fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim();
    let is_token = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !part.is_empty() && part.bytes().all(allowed)
    };
    let both = essence.split_once('/');
    both.is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype)) && !has_control(text)
}

/// Returns whether a media type's parameters too are such that every header takes them.
pub(crate) fn is_plain_media_type(text: &str) -> bool {
    is_media_type(text) && text.bytes().all(is_visible)
}

/// The first second of the year 0, counted from 1970.
const YEAR_0: i128 = -62_167_219_200;

/// Reads an RFC 3339 time and nothing that merely resembles one. Digits beyond
/// nanoseconds are dropped. In UTC, as it is written on, it must have a year of four digits
/// too: there an offset can lead out of them.
pub(crate) fn parse_time(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shape = bytes.get(..19)?;
    let fits = shape
        .iter()
        .zip(b"dddd-dd-ddTdd:dd:dd")
        .all(|(byte, expected)| match expected {
            b'd' => byte.is_ascii_digit(),
            other => byte.eq_ignore_ascii_case(other),
        });
    if !fits {
        return None;
    }
    let mut rest = &text[19..];
    let mut fraction = "";
    if let Some(digits) = rest.strip_prefix('.') {
        let len = digits.bytes().take_while(u8::is_ascii_digit).count();
        if len == 0 {
            return None;
        }
        (fraction, rest) = digits.split_at(len);
    }
    if !is_offset(rest) {
        return None;
    }
    let time: Timestamp = if fraction.len() <= 9 {
        text.parse().ok()?
    } else {
        let shorter = format!("{}.{}{rest}", &text[..19], &fraction[..9]);
        shorter.parse().ok()?
    };
    // The latest Timestamp is in the year 9999.
    (time.as_nanosecond() >= YEAR_0 * 1_000_000_000).then_some(time)
}

fn is_offset(text: &str) -> bool {
    let two = |digits: &[u8], limit: u8| {
        digits.iter().all(u8::is_ascii_digit)
            && (digits[0] - b'0') * 10 + (digits[1] - b'0') < limit
    };
    match text.as_bytes() {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => two(&[*h1, *h2], 24) && two(&[*m1, *m2], 60),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rfc_3339_is_a_time() {
        for (text, same) in [
            ("2026-01-31T10:20:30Z", "2026-01-31T10:20:30Z"),
            ("2026-01-31t10:20:30z", "2026-01-31T10:20:30Z"),
            (
                "2026-01-31T10:20:30.123456789Z",
                "2026-01-31T10:20:30.123456789Z",
            ),
            (
                "2026-01-31T10:20:30.1234567891234Z",
                "2026-01-31T10:20:30.123456789Z",
            ),
            ("2026-01-31T10:20:30+01:00", "2026-01-31T09:20:30Z"),
            ("2026-01-31T10:20:30-00:00", "2026-01-31T10:20:30Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
            ("0000-01-01T01:00:00+01:00", "0000-01-01T00:00:00Z"),
        ] {
            let expected: Timestamp = same.parse().unwrap();
            assert_eq!(parse_time(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "2026-01-31",
            "2026-01-31T10:20:30",
            "2026-01-31 10:20:30Z",
            "2026-01-31T10:20:30+25:00",
            "2026-01-31T10:20:30+05",
            "2026-01-31T10:20:30+05:60",
            "2026-01-31T10:20:30.Z",
            "2026-01-31T10:20:30Z[UTC]",
            "2026-02-30T10:20:30Z",
            "2026-01-31T10:20:30é",
            "1769854830",
            "yesterday",
            // Another year in UTC, which four digits do not say.
            "0000-01-01T00:00:00+01:00",
            "0000-01-01T00:59:59.999999999+01:00",
            "9999-12-31T23:59:59-01:00",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn a_source_is_like_a_uri_reference() {
        for (source, fits) in [
            ("/gw/eu-1", true),
            ("my-app", true),
            ("#fragment", true),
            ("urn:uuid:1", true),
            ("https://example.com/a?b=c", true),
            ("münchen", true),
            ("/a b", false),
            ("a\u{a0}b", false),
            ("<a>", false),
            ("a\\b", false),
            ("100%", false),
            ("100%25", true),
            ("1:2", false),
            ("a[b]", false),
            ("//[::1]:80/a", true),
            ("a##b", false),
            ("urn:", false),
            ("a:#b", false),
            ("a:?b", true),
            ("//", false),
            ("http://", false),
            ("file:///a", true),
        ] {
            assert_eq!(is_uri_reference(source), fits, "{source}");
            assert!(is_uri_like(source) || !fits, "{source}");
        }
    }
}
