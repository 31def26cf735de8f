//! What Linux knows about this process, read when it is asked for.
//!
//! Written as text rather than through the recorder, whose counters are whole numbers: CPU time
//! is a fraction of a second.

use std::{
    fmt::{Display, Write as _},
    fs,
};

/// Ticks a second in `/proc`. It has been 100 on every architecture that Linux serves from, and
/// asking for it would need libc.
const TICKS: f64 = 100.0;

/// Appends the metrics of this process and its build. What `/proc` does not tell is left out.
pub(crate) fn render(function: &str, text: &mut String) {
    let version = env!("CARGO_PKG_VERSION");
    let labels = format!("{{function=\"{function}\",version=\"{version}\"}}");
    append(text, "openmeter_build_info", "gauge", &labels, Some(1));

    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let system = fs::read_to_string("/proc/stat").unwrap_or_default();
    append(
        text,
        "process_start_time_seconds",
        "gauge",
        "",
        start_time_seconds(&stat, &system),
    );
    append(
        text,
        "process_resident_memory_bytes",
        "gauge",
        "",
        resident_bytes(&status),
    );
    append(
        text,
        "process_cpu_seconds_total",
        "counter",
        "",
        cpu_seconds(&stat),
    );
}

fn append(text: &mut String, name: &str, kind: &str, labels: &str, value: Option<impl Display>) {
    if let Some(value) = value {
        writeln!(text, "# TYPE {name} {kind}\n{name}{labels} {value}")
            .expect("a string takes all that is written to it");
    }
}

/// Returns a field of `/proc/self/stat` by its number in proc(5). The second one is the
/// program's name, which may hold spaces and parentheses.
fn field(stat: &str, number: usize) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let third = 3;
    let text = after_name.split_ascii_whitespace().nth(number - third)?;
    text.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    let (user, system) = (field(stat, 14)?, field(stat, 15)?);
    Some((user + system) / TICKS)
}

fn start_time_seconds(stat: &str, system: &str) -> Option<f64> {
    let booted: f64 = value_of(system, "btime")?.parse().ok()?;
    Some(booted + field(stat, 22)? / TICKS)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let kib: u64 = value_of(status, "VmRSS:")?.parse().ok()?;
    Some(kib * 1024)
}

fn value_of<'a>(lines: &'a str, key: &str) -> Option<&'a str> {
    lines.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(key)).then(|| words.next()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "7 (odd) name) S 1 7 7 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 4 0 1234 1 2";

    #[test]
    fn a_program_name_with_parentheses_does_not_shift_the_fields() {
        assert_eq!(cpu_seconds(STAT), Some(3.0));
        let start = start_time_seconds(STAT, "cpu 1 2\nbtime 1700000000\n");
        assert_eq!(start, Some(1_700_000_012.34));
    }

    #[test]
    fn resident_memory_is_told_in_bytes() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\n";
        assert_eq!(resident_bytes(status), Some(2 * 1024 * 1024));
    }

    #[test]
    fn what_linux_does_not_tell_is_left_out() {
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(start_time_seconds(STAT, ""), None);
        assert_eq!(resident_bytes(""), None);
    }
}
