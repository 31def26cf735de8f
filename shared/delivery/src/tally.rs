//! A function for tests: it keeps what it is given.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use jiff::Timestamp;
use model::{Prepared, UsageEvent};
use runtime::Meters;

use crate::{Dead, Function, Refused};

const METERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tally.yaml");

/// Takes events, but refuses those of the type `refused` and panics at one of the type `panic`.
#[derive(Clone)]
pub(crate) struct Tally<const BURIES: bool> {
    meters: Meters,
    taken: Arc<Mutex<Vec<String>>>,
}

impl<const BURIES: bool> Tally<BURIES> {
    pub(crate) fn new() -> Self {
        Self {
            meters: Meters::open(METERS.as_ref()).unwrap(),
            taken: Arc::default(),
        }
    }

    /// Returns the ids of the events that were taken, in order.
    pub(crate) fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }
}

impl<const BURIES: bool> Function for Tally<BURIES> {
    const NAME: &'static str = "tally";
    const DEAD: Dead = if BURIES { Dead::Bury } else { Dead::PassOver };
    type Asked = Vec<String>;
    type Error = Infallible;

    fn meters(&self) -> &Meters {
        &self.meters
    }

    async fn prepare(&self) -> Result<(), Infallible> {
        Ok(())
    }

    async fn judge(&self, batch: &[Prepared]) -> Result<Vec<String>, Infallible> {
        let types = batch.iter().map(|prepared| &prepared.event.event_type);
        Ok(types.cloned().collect())
    }

    async fn write(
        &self,
        batch: &[Prepared],
        types: &Vec<String>,
    ) -> Result<Vec<Refused>, Infallible> {
        let mut refused = Vec::new();
        for (index, (prepared, event_type)) in batch.iter().zip(types).enumerate() {
            assert_ne!(event_type, "panic");
            if event_type == "refused" {
                let reason = "is refused".to_owned();
                refused.push(Refused { index, reason });
            } else {
                self.taken.lock().unwrap().push(prepared.event.id.clone());
            }
        }
        Ok(refused)
    }
}

pub(crate) fn event(id: &str) -> UsageEvent {
    UsageEvent {
        id: id.to_owned(),
        source: "s".to_owned(),
        event_type: "call".to_owned(),
        subject: Some("x".to_owned()),
        time: Timestamp::UNIX_EPOCH,
        ingested_at: Timestamp::UNIX_EPOCH,
        data: None,
        attributes: BTreeMap::new(),
    }
}
