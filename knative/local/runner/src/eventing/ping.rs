//! PingSources: an event at the times of a schedule.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};
use stream::CloudEvent;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{
    deliver::Deliverer,
    delivery::{BackoffPolicy, Delivery},
    dispatch::Failure,
    plan::PingSource,
    spec::PingSourceSpec,
};

const TYPE: &str = "dev.knative.sources.ping";

/// How long it sleeps at most: the machine's clock may be set meanwhile.
const NAP: Duration = Duration::from_secs(30);

/// Returns how a ping is delivered: 5 retries, 50 ms after the first attempt and then twofold.
pub(super) fn delivery() -> Delivery {
    Delivery {
        retry: 5,
        policy: BackoffPolicy::Exponential,
        // An exponential wait begins with two delays.
        delay: Duration::from_millis(25),
        ..Delivery::of(None)
    }
}

/// Returns the data that a PingSource sends, or the field that is wrong.
pub(super) fn data(spec: &PingSourceSpec) -> Result<Vec<u8>, (&'static str, String)> {
    match (&spec.data, &spec.data_base64) {
        (Some(_), Some(_)) => Err(("data", "and dataBase64 exclude each other".to_owned())),
        (Some(data), None) => {
            if spec.content_type.as_deref() == Some("application/json") {
                serde_json::from_str::<Map<String, Value>>(data)
                    .map_err(|error| ("data", format!("is not a JSON object: {error}")))?;
            }
            Ok(data.clone().into_bytes())
        }
        (None, Some(text)) => STANDARD
            .decode(text)
            .map_err(|error| ("dataBase64", error.to_string())),
        (None, None) => Ok(Vec::new()),
    }
}

/// Sends pings until it is dropped. A tick that is missed is not made up for.
pub(super) async fn run(ping: PingSource, deliverer: Arc<Deliverer>) -> Result<(), Failure> {
    // Those under way: a slow one does not hold up the next.
    let mut under_way = JoinSet::new();
    'pinging: while let Some(next) = ping.schedule.next(Timestamp::now()) {
        while let Ok(left) = Duration::try_from(Timestamp::now().duration_until(next))
            && !left.is_zero()
        {
            tokio::select! {
                () = deliverer.stop.cancelled() => break 'pinging,
                () = tokio::time::sleep(left.min(NAP)) => {}
                Some(ended) = under_way.join_next() => drop(ended?),
            }
        }
        let event = event(&ping);
        let deliverer = Arc::clone(&deliverer);
        under_way.spawn(async move { deliverer.deliver(event, None).await });
    }
    while let Some(ended) = under_way.join_next().await {
        ended?;
    }
    Ok(())
}

fn event(ping: &PingSource) -> CloudEvent {
    let (namespace, name) = &ping.name;
    let source = format!("/apis/v1/namespaces/{namespace}/pingsources/{name}");
    let mut event = CloudEvent::new(Uuid::new_v4(), source, TYPE).with_time(Timestamp::now());
    if let Some(content_type) = &ping.content_type {
        event = event.with_data(content_type, ping.data.clone());
    } else if !ping.data.is_empty() {
        event = event.with_bytes(ping.data.clone());
    }
    for (name, value) in &ping.extensions {
        event = event.with_extension(name, value);
    }
    event
}
