//! Why events were put aside: what the records of a topic of dead letters say themselves.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::{BorrowedMessage, Headers as _},
};

use super::backlog::End;

const READ_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);
/// An answer's body says the rest at length.
const SHOWN: usize = 160;

/// Returns the cause of each dead letter of a topic.
pub(super) fn causes(
    client: &BaseConsumer,
    topic: &str,
    ends: &[End],
) -> anyhow::Result<Vec<String>> {
    let mut from = TopicPartitionList::new();
    for end in ends {
        from.add_partition_offset(topic, end.partition, Offset::Offset(end.first))?;
    }
    let all: i64 = ends.iter().map(|end| end.next - end.first).sum();
    let all = usize::try_from(all).context("count the dead letters")?;
    client.assign(&from)?;
    let (mut causes, until) = (Vec::new(), Instant::now() + READ_WITHIN);
    while causes.len() < all {
        ensure!(
            Instant::now() < until,
            "{topic} has {all} records, and {} came",
            causes.len()
        );
        if let Some(record) = client.poll(POLL) {
            causes.push(cause(topic, &record?));
        }
    }
    client.unassign()?;
    Ok(causes)
}

/// Says it in the words of Knative's dead letter sink or of process's own graves, whichever
/// wrote the record.
fn cause(topic: &str, record: &BorrowedMessage<'_>) -> String {
    let header = |name: &str| {
        let mut all = record.headers()?.iter();
        let found = all.find(|header| header.key.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(found.value?).into_owned())
    };
    let answer = header("ce_knativeerrordata").map(|text| match STANDARD.decode(&text) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => text,
    });
    let code = header("ce_knativeerrorcode");
    let words = [code, answer, header("openmeter-dead-reason")];
    let why = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let why = if why.is_empty() {
        "no cause is given"
    } else {
        &why
    };
    let shown: String = why.chars().take(SHOWN).collect();
    format!("{topic}: {shown}")
}
