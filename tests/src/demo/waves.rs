//! In which order the deliveries of a file go.
//!
//! The first delivery of an identity wins, but neither a broker nor a push promises an order: of
//! two that are under way together nobody can say which is the first. So where an answer depends on
//! it, with other content or with a `time` in another hour than the first has, the delivery waits
//! until everything before it is stored. All others race, however they are written and whatever
//! their `time` is, and what comes of them must not depend on who is first.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use model::Identity;
use tokio::{
    fs::File,
    io::{AsyncBufReadExt as _, BufReader, Lines},
    sync::watch,
};

use super::delivery::{Delivery, Says};

/// How often a file waits for the store, at most.
const WAVES: u64 = 5;

/// What was sent so far, of all files.
#[derive(Default)]
pub(super) struct Sent {
    first: HashMap<Identity, First>,
    wave: u32,
}

/// The first delivery of an identity.
struct First {
    wave: u32,
    says: Says,
}

impl Sent {
    /// Says whether a delivery may go before everything that was sent is stored, and takes it
    /// for sent if so.
    fn may_go(&mut self, delivery: &Delivery) -> bool {
        let Some((identity, says)) = delivery.claim() else {
            return true;
        };
        let wave = self.wave;
        let first = self.first.entry(identity).or_insert(First { wave, says });
        first.wave < wave || first.says == says
    }
}

/// A file's deliveries, wave by wave.
pub(super) struct Waves<'a> {
    lines: Lines<BufReader<File>>,
    sent: &'a mut Sent,
    /// How far the file may be read.
    gate: watch::Receiver<u64>,
    read: u64,
    /// Where this wave ends, and how many lines each has.
    end: u64,
    length: u64,
    due: VecDeque<Delivery>,
    held: Vec<Delivery>,
    held_count: Arc<AtomicU64>,
}

impl<'a> Waves<'a> {
    /// Opens a file of `lines` lines, of which none is read beyond the one that `gate` names.
    pub(super) async fn open(
        file: &Path,
        lines: u64,
        sent: &'a mut Sent,
        gate: watch::Receiver<u64>,
    ) -> anyhow::Result<Self> {
        let opened = File::open(file).await;
        let opened = opened.with_context(|| format!("open {}", file.display()))?;
        let length = lines.div_ceil(WAVES).max(1);
        Ok(Self {
            lines: BufReader::new(opened).lines(),
            sent,
            gate,
            read: 0,
            end: length,
            length,
            due: VecDeque::new(),
            held: Vec::new(),
            held_count: Arc::default(),
        })
    }

    /// Returns the number of deliveries that are held back at the moment of looking.
    pub(super) fn held(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.held_count)
    }

    /// Returns the next delivery of this wave, nothing at its end.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Delivery>> {
        if let Some(delivery) = self.due.pop_front() {
            return Ok(Some(delivery));
        }
        loop {
            if self.read >= self.end {
                if !self.held.is_empty() {
                    return Ok(None);
                }
                self.end += self.length;
            }
            let Some(line) = self.lines.next_line().await? else {
                return Ok(None);
            };
            self.read += 1;
            let open = self.gate.wait_for(|open_to| self.read <= *open_to).await;
            open.context("the gate is gone")?;
            let delivery = Delivery::new(line);
            if self.sent.may_go(&delivery) {
                return Ok(Some(delivery));
            }
            self.hold(delivery);
        }
    }

    fn hold(&mut self, delivery: Delivery) {
        self.held.push(delivery);
        self.held_count.fetch_add(1, Ordering::Relaxed);
    }

    /// Says whether there is a further wave.
    pub(super) fn have_next(&self) -> bool {
        !self.held.is_empty()
    }

    /// Begins the next wave; all of this one must be stored.
    pub(super) fn begin_next(&mut self) {
        self.due.extend(self.held.drain(..));
        self.held_count.store(0, Ordering::Relaxed);
        self.sent.wave += 1;
        self.end = self.read + self.length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: u32, time: &str, rest: &str) -> String {
        format!(
            r#"{{"specversion":"1.0","type":"t","source":"s","id":"{id}","time":"{time}"{rest}}}"#
        )
    }

    /// Returns what goes in each wave, by place in the file.
    async fn waves(sent: &mut Sent, lines: &[String]) -> Vec<Vec<usize>> {
        let file = std::env::temp_dir().join(format!("waves-{}", uuid::Uuid::new_v4()));
        std::fs::write(&file, lines.join("\n")).unwrap();
        let (_open, gate) = watch::channel(u64::MAX);
        let mut traffic = Waves::open(&file, lines.len() as u64, sent, gate)
            .await
            .unwrap();
        let mut waves = vec![Vec::new()];
        loop {
            while let Some(delivery) = traffic.next().await.unwrap() {
                let place = lines.iter().position(|line| line == delivery.structured());
                waves.last_mut().unwrap().push(place.unwrap());
            }
            if !traffic.have_next() {
                break;
            }
            traffic.begin_next();
            waves.push(Vec::new());
        }
        std::fs::remove_file(&file).unwrap();
        waves
    }

    #[tokio::test]
    async fn what_an_answer_depends_on_waits_until_the_first_is_stored() {
        let [ten, past_ten, eleven, twelve] =
            ["10:00", "10:59", "11:00", "12:00"].map(|time| format!("2024-01-15T{time}:00Z"));
        // Two lines a wave.
        let lines = [
            line(1, &ten, ""),
            line(1, &eleven, ""),
            line(2, &ten, ""),
            line(1, &twelve, ""),
            line(1, &ten, r#","data":1"#),
            line(2, &ten, r#","data":1"#),
            line(3, &ten, ""),
            line(3, &past_ten, r#","traceparent":"x""#),
            line(4, &ten, ""),
            line(4, &eleven, ""),
        ];
        let mut sent = Sent::default();
        assert_eq!(
            waves(&mut sent, &lines).await,
            [vec![0], vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9]]
        );
        // Once all is stored, nothing waits.
        assert_eq!(
            waves(&mut sent, &lines).await,
            [(0..10).collect::<Vec<_>>()]
        );
    }
}
