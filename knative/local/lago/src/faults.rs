//! What goes wrong on demand.

use serde::{Deserialize, Serialize};

/// What a fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The request is not done; `status` is answered.
    FailBefore,
    /// The request is done; `status` is answered all the same.
    FailAfter,
    /// The request is not done, and there is no answer for `millis`.
    HangBefore,
    /// The request is done, and there is no answer for `millis`.
    HangAfter,
    /// 429 with a reset in `reset_seconds`.
    RateLimited,
    /// Of a batch the first half is kept, then 500. Only with ClickHouse's store, which is fed
    /// one event after the other once a batch is found valid; Postgres's is all or nothing.
    HalfBatch,
    /// A webhook that never arrives.
    DropWebhook,
    /// A webhook that arrives twice.
    DuplicateWebhook,
    /// A webhook that arrives only after the next one to the same receiver.
    HoldWebhook,
    /// A webhook whose signature is of another body.
    ForgeWebhook,
}

/// A fault that a test orders. All fields but `kind` can be left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// Where: what the request (`POST /api/v1/events/batch`) or the webhook's type
    /// (`wallet.updated`) begins with; empty: everywhere.
    #[serde(default)]
    pub on: String,
    /// How many are passed over before.
    #[serde(default)]
    pub after: u32,
    /// How often.
    #[serde(default = "once")]
    pub times: u32,
    /// For `fail_before` and `fail_after`.
    #[serde(default = "internal_error")]
    pub status: u16,
    /// For `hang_before` and `hang_after`.
    #[serde(default = "a_minute")]
    pub millis: u64,
    /// For `rate_limited`.
    #[serde(default = "one_second")]
    pub reset_seconds: u64,
}

fn once() -> u32 {
    1
}

fn internal_error() -> u16 {
    500
}

fn a_minute() -> u64 {
    60_000
}

fn one_second() -> u64 {
    1
}

impl Fault {
    /// One fault of this kind, at the first request or webhook that begins with `on`.
    pub fn new(kind: FaultKind, on: &str) -> Self {
        Self {
            kind,
            on: on.to_owned(),
            after: 0,
            times: once(),
            status: internal_error(),
            millis: a_minute(),
            reset_seconds: one_second(),
        }
    }

    fn is_of_webhooks(&self) -> bool {
        matches!(
            self.kind,
            FaultKind::DropWebhook
                | FaultKind::DuplicateWebhook
                | FaultKind::HoldWebhook
                | FaultKind::ForgeWebhook
        )
    }
}

/// The faults that are still to come.
#[derive(Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn order(&mut self, fault: Fault) {
        if fault.times > 0 {
            self.0.push(fault);
        }
    }

    pub(crate) fn all(&self) -> &[Fault] {
        &self.0
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault of this request, if there is one; it is used up by it.
    pub(crate) fn of_request(&mut self, what: &str) -> Option<Fault> {
        self.take(false, what)
    }

    /// The fault of this webhook.
    pub(crate) fn of_webhook(&mut self, webhook_type: &str) -> Option<FaultKind> {
        self.take(true, webhook_type).map(|fault| fault.kind)
    }

    fn take(&mut self, webhook: bool, what: &str) -> Option<Fault> {
        let mut taken = None;
        for fault in &mut self.0 {
            if fault.is_of_webhooks() != webhook || !what.starts_with(&fault.on) {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
            } else if taken.is_none() {
                fault.times -= 1;
                taken = Some(fault.clone());
            }
        }
        self.0.retain(|fault| fault.times > 0);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_where_and_as_often_as_it_was_ordered() {
        let mut faults = Faults::default();
        let batch = "POST /api/v1/events/batch";
        faults.order(Fault {
            after: 1,
            times: 2,
            ..Fault::new(FaultKind::FailAfter, batch)
        });
        faults.order(Fault::new(FaultKind::DropWebhook, ""));
        let mut strikes = |what: &str| faults.of_request(what).is_some();
        assert!(!strikes("GET /api/v1/events"));
        assert_eq!([(); 4].map(|()| strikes(batch)), [false, true, true, false]);
        assert_eq!(
            faults.of_webhook("wallet.updated"),
            Some(FaultKind::DropWebhook)
        );
        assert!(faults.all().is_empty());
    }
}
