//! How far it is, on stderr.

use std::{
    io::{IsTerminal as _, Write as _, stderr},
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};

use super::report::grouped;

/// How often a log gets a line; a terminal's one line is drawn five times a second.
const LOG_EVERY: Duration = Duration::from_secs(5);
const DRAW_EVERY: Duration = Duration::from_millis(200);
const WIDTH: u64 = 30;

/// Does `work` while it shows how far it is, by what `done` returns.
pub(super) async fn shown<T>(
    what: &str,
    total: u64,
    done: impl Fn() -> u64,
    work: impl Future<Output = T>,
) -> T {
    let is_terminal = stderr().is_terminal();
    let mut tick = interval(if is_terminal { DRAW_EVERY } else { LOG_EVERY });
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let began = Instant::now();
    let show = |end: &str| {
        let line = line(what, done(), total, began.elapsed());
        // Who closed stderr does not want to see it.
        write!(stderr(), "{line}{end}").unwrap_or_default();
    };
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => {
                show("\n");
                return result;
            }
            _ = tick.tick() => show(if is_terminal { "\r" } else { "\n" }),
        }
    }
}

fn line(what: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let done = done.min(total);
    let full = usize::try_from(done * WIDTH / total.max(1)).unwrap_or_default();
    let bar = format!("{:.<width$}", "#".repeat(full), width = WIDTH as usize);
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    format!(
        "{what:<10} [{bar}] {:>9} of {} {:>7}/s ",
        grouped(done),
        grouped(total),
        grouped(rate as u64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_and_how_fast() {
        let line = line("posting", 50_000, 100_000, Duration::from_secs(10));
        assert_eq!(
            line,
            "posting    [###############...............]    50,000 of 100,000   5,000/s "
        );
        assert!(super::line("x", 0, 0, Duration::ZERO).contains("0 of 0"));
    }
}
