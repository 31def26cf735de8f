//! What a variable's text can be read as.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU16, NonZeroU32, NonZeroU64, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use url::Url;

/// A type that can be read from a variable by [`crate::Env`].
///
/// A function's own type needs only `parse` and `show`.
pub trait Setting: Sized {
    /// What a value is, for the report about a secret, where nothing else may be said.
    const KIND: &'static str = "a valid value";

    /// Whether the value must never be printed.
    const SECRET: bool = false;

    /// Returns the value, or what is wrong with the text (the text itself is added to it).
    fn parse(text: &str) -> Result<Self, String>;

    /// Returns the text that would be read as this value.
    fn show(&self) -> String;
}

macro_rules! setting_from_str {
    ($($type:ty: $kind:literal),* $(,)?) => {$(
        impl Setting for $type {
            const KIND: &'static str = $kind;

            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("is not {}", Self::KIND))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

setting_from_str! {
    String: "text",
    u8: "a whole number from 0 to 255",
    u16: "a whole number from 0 to 65535",
    u32: "a whole number from 0 to 4294967295",
    u64: "a whole number, 0 or more",
    usize: "a whole number, 0 or more",
    i32: "a whole number",
    i64: "a whole number",
    NonZeroU16: "a whole number from 1 to 65535",
    NonZeroU32: "a whole number from 1 to 4294967295",
    NonZeroU64: "a whole number, 1 or more",
    NonZeroUsize: "a whole number, 1 or more",
    IpAddr: "an IP address",
    SocketAddr: "an IP address with a port",
}

impl Setting for PathBuf {
    const KIND: &'static str = "a path";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self::from(text))
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Setting for bool {
    const KIND: &'static str = "true or false";

    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err("is not true or false".into()),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A URL may carry a password. One that does is read as `Secret<Url>`; the report about a URL
/// that cannot be read therefore says why, and [`crate::Env`] adds the text.
impl Setting for Url {
    const KIND: &'static str = "a URL";

    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|error| format!("is not a URL: {error}"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

const DURATION: &str = "a duration such as 500ms, 30s, 5m, 24h or 7d";

/// Units in milliseconds, largest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl Setting for Duration {
    const KIND: &'static str = DURATION;

    /// Reads whole numbers with a unit, one or more: `500ms`, `30s`, `1h30m`. A bare number is
    /// a mistake, since seconds and milliseconds are too easily taken for each other.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("is not {DURATION}");
        let mut millis = 0_u64;
        let mut rest = text;
        while !rest.is_empty() {
            let (count, after) = leading_number(rest).ok_or_else(wrong)?;
            let unit_len = after
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(after.len());
            let (unit, next) = after.split_at(unit_len);
            let (_, factor) = DURATION_UNITS
                .into_iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(wrong)?;
            millis = count
                .checked_mul(factor)
                .and_then(|part| millis.checked_add(part))
                .ok_or_else(|| "is too long a duration".to_string())?;
            rest = next;
        }
        Ok(Self::from_millis(millis))
    }

    fn show(&self) -> String {
        let millis = self.as_millis();
        for (unit, factor) in DURATION_UNITS {
            let factor = u128::from(factor);
            // One day is written 24h, as people write it.
            let exact = millis.is_multiple_of(factor) && millis >= factor;
            if exact && !(unit == "d" && millis == factor) {
                return format!("{}{unit}", millis / factor);
            }
        }
        format!("{millis}ms")
    }
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

/// A number of bytes: `10MiB`, `64kB`, or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

const BYTE_SIZE: &str = "a size in bytes such as 1048576, 512KiB or 10MiB";

/// Units with their factors. The first ones are those that [`ByteSize`] is shown in.
const BYTE_UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
    ("", 1),
];

impl ByteSize {
    /// Returns a size of `count` bytes.
    pub const fn bytes(count: u64) -> Self {
        Self(count)
    }

    /// Returns a size of `count` KiB.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// Returns a size of `count` MiB.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// Returns the number of bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Returns the number of bytes, for lengths in memory. A size beyond the address space is
    /// as good as no limit, so it saturates.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = BYTE_UNITS.into_iter().take(3);
        for (unit, factor) in binary {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl Setting for ByteSize {
    const KIND: &'static str = BYTE_SIZE;

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("is not {BYTE_SIZE}");
        let (count, unit) = leading_number(text).ok_or_else(wrong)?;
        let unit = unit.trim_start();
        let (_, factor) = BYTE_UNITS
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .ok_or_else(wrong)?;
        let bytes = count
            .checked_mul(factor)
            .ok_or_else(|| "is too large".to_string())?;
        Ok(Self(bytes))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A comma separated list. Empty members (a trailing comma) are dropped.
impl<T: Setting> Setting for Vec<T> {
    const KIND: &'static str = "a comma separated list";
    const SECRET: bool = T::SECRET;

    fn parse(text: &str) -> Result<Self, String> {
        let members: Vec<T> = text
            .split(',')
            .map(str::trim)
            .filter(|member| !member.is_empty())
            .map(T::parse)
            .collect::<Result<_, _>>()
            .map_err(|wrong| format!("has a member that {wrong}"))?;
        if members.is_empty() {
            return Err("is a list with no members".into());
        }
        Ok(members)
    }

    fn show(&self) -> String {
        let members: Vec<String> = self.iter().map(T::show).collect();
        members.join(",")
    }
}

/// A value that does not print itself: a password, a token, a URL that carries one.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T = String>(T);

impl<T> Secret<T> {
    /// Returns `value` wrapped up.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Returns the value itself. Every use of it is a place where it could leak, hence the name.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T: Setting> Setting for Secret<T> {
    const KIND: &'static str = T::KIND;
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        // The inner reason is dropped: it may quote the text.
        T::parse(text)
            .map(Self)
            .map_err(|_| format!("is not {}", T::KIND))
    }

    fn show(&self) -> String {
        "***".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Env, Trigger};

    fn read<T: Setting>(text: &str) -> Result<Option<T>, String> {
        let env = Env::from_pairs([("X", text)]);
        let value = env.optional("X", "");
        env.finish(|| Some(value))
            .map_err(|error| error.to_string())
    }

    #[track_caller]
    fn reads<T: Setting + PartialEq + fmt::Debug>(text: &str, value: T) {
        assert_eq!(read(text), Ok(Some(value)), "{text}");
    }

    #[track_caller]
    fn refuses<T: Setting + PartialEq + fmt::Debug>(text: &str, wrong: &str) {
        assert_eq!(read::<T>(text), Err(format!("X: {wrong}")), "{text}");
    }

    #[test]
    fn values_are_read_as_their_types() {
        reads("text", "text".to_string());
        reads(" 7\n", 7_u16);
        reads("7", NonZeroUsize::new(7).unwrap());
        reads("127.0.0.1:80", SocketAddr::from(([127, 0, 0, 1], 80)));
        reads("http://a/b", Url::parse("http://a/b").unwrap());
        reads("a, b,", vec!["a".to_string(), "b".to_string()]);
        reads("On", true);
        reads("0", false);
        reads("kafka", Trigger::Kafka);
        reads("hunter2", Secret::new("hunter2".to_string()));
    }

    #[test]
    fn durations_have_a_unit_and_sizes_may_have_one() {
        for (text, millis) in [
            ("0ms", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
        ] {
            reads(text, Duration::from_millis(millis));
        }
        for (text, bytes) in [
            ("1048576", 1 << 20),
            ("0", 0),
            ("512B", 512),
            ("512 KiB", 512 << 10),
            ("10MiB", 10 << 20),
            ("10mib", 10 << 20),
            ("1GiB", 1 << 30),
            ("64kB", 64_000),
        ] {
            reads(text, ByteSize::bytes(bytes));
        }
    }

    #[test]
    fn what_is_shown_is_read_as_the_same_value() {
        for (millis, shown) in [
            (0, "0ms"),
            (1_500, "1500ms"),
            (90_000, "90s"),
            (86_400_000, "24h"),
            (604_800_000, "7d"),
        ] {
            let value = Duration::from_millis(millis);
            assert_eq!(value.show(), shown);
            reads(shown, value);
        }
        for (bytes, shown) in [
            (0, "0"),
            (1_000, "1000"),
            (3 << 20, "3MiB"),
            (1 << 10, "1KiB"),
        ] {
            let value = ByteSize::bytes(bytes);
            assert_eq!(value.show(), shown);
            reads(shown, value);
        }
    }

    #[test]
    fn a_wrong_value_is_told_with_what_was_expected() {
        const DURATION: &str = "is not a duration such as 500ms, 30s, 5m, 24h or 7d";
        for text in ["30", "s", "1.5s", "-1s", "5 m", "5w", "5m3"] {
            refuses::<Duration>(text, &format!("{DURATION} (got {text:?})"));
        }
        refuses::<Duration>(
            "18446744073709551615d",
            "is too long a duration (got \"18446744073709551615d\")",
        );
        refuses::<ByteSize>(
            "10Mi",
            "is not a size in bytes such as 1048576, 512KiB or 10MiB (got \"10Mi\")",
        );
        refuses::<ByteSize>(
            "18446744073709551615KiB",
            "is too large (got \"18446744073709551615KiB\")",
        );
        refuses::<u16>(
            "65536",
            "is not a whole number from 0 to 65535 (got \"65536\")",
        );
        refuses::<NonZeroUsize>("0", "is not a whole number, 1 or more (got \"0\")");
        refuses::<bool>("maybe", "is not true or false (got \"maybe\")");
        refuses::<Url>(
            "clickhouse",
            "is not a URL: relative URL without a base (got \"clickhouse\")",
        );
        refuses::<Vec<u16>>(
            "1,x",
            "has a member that is not a whole number from 0 to 65535 (got \"1,x\")",
        );
        refuses::<Vec<String>>(" , ", "is a list with no members (got \",\")");
    }
}
