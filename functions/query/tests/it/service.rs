//! The function in a test: its routes, and a store that holds what was sent.

use std::{collections::BTreeMap, fs, path::PathBuf};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode, header},
};
use jiff::Timestamp;
use model::{Catalog, Content, Identity, UsageEvent};
use query::Config;
use serde_json::Value;
use store::{EventRow, State, UsageRecord, testing::TestStore};
use tower::ServiceExt as _;

/// The function with a store of its own.
pub(crate) struct Service {
    test: TestStore,
    routes: Router,
    catalog: Catalog,
    file: PathBuf,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: String,
    pub(crate) disposition: String,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

impl Service {
    pub(crate) async fn start(meters: &str) -> Self {
        let test = TestStore::create().await;
        let file = std::env::temp_dir().join(format!("{}.yaml", test.config.database));
        fs::write(&file, meters).unwrap();
        let config = Config {
            meters: file.clone(),
            store: test.config.clone(),
            kafka: None,
        };
        Self {
            routes: query::build(config).unwrap().into_router(),
            catalog: Catalog::from_yaml(meters).unwrap(),
            test,
            file,
        }
    }

    pub(crate) async fn stop(self) {
        fs::remove_file(self.file).unwrap();
        self.test.remove().await;
    }

    /// Stores these events as `process` would: {id?, time, subject?, type?, data}.
    pub(crate) async fn send(&self, events: &Value) {
        for (place, sent) in events.as_array().unwrap().iter().enumerate() {
            let text =
                |name: &str, default: &str| sent[name].as_str().unwrap_or(default).to_owned();
            let time: Timestamp = text("time", "2024-01-01T00:00:00Z").parse().unwrap();
            let event = UsageEvent {
                id: text("id", &place.to_string()),
                source: text("source", "cases"),
                event_type: text("type", "t"),
                subject: Some(text("subject", "s")),
                time,
                ingested_at: time,
                data: sent.get("data").map(|data| data.to_string().into_bytes()),
                attributes: BTreeMap::new(),
            };
            self.store(&event).await;
        }
    }

    async fn store(&self, event: &UsageEvent) {
        let payload = event.payload();
        let applied = self.catalog.apply(event, &payload);
        let identity = Identity::of(&event.source, &event.id);
        let error = applied.error().unwrap_or_default();
        let row = EventRow {
            identity,
            time: event.time.as_microsecond(),
            id: &event.id,
            source: &event.source,
            event_type: &event.event_type,
            subject: event.subject.as_deref().unwrap_or_default(),
            data: event.data.as_deref().unwrap_or_default(),
            attributes: &event.attributes,
            state: if error.is_empty() {
                State::Valid
            } else {
                State::Invalid
            },
            error: &error,
            content: Content::of(event, &payload),
            definitions: 1,
            ingested_at: event.ingested_at.as_microsecond(),
            stored_at: event.ingested_at.as_microsecond(),
            is_deleted: false,
        };
        self.test.store.insert_events(&[row]).await.unwrap();
        let usage: Vec<_> = applied
            .usage
            .iter()
            .map(|usage| UsageRecord {
                meter: &usage.meter.slug,
                subject: row.subject,
                time: row.time,
                identity,
                content: row.content,
                value: usage.value,
                text: &usage.text,
                dimensions: &usage.meter.group_by,
                groups: &usage.groups,
                definitions: 1,
                ingested_at: row.ingested_at,
                stored_at: row.stored_at,
                is_deleted: false,
            })
            .collect();
        self.test.store.insert_usage(&usage).await.unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, "application/json", "").await
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, accept: &str, body: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, accept)
            .body(Body::from(body.to_owned()))
            .unwrap();
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let text_of = |name| {
            let value = response.headers().get(name);
            value.map_or("", |value| value.to_str().unwrap()).to_owned()
        };
        let (content_type, disposition) = (
            text_of(header::CONTENT_TYPE),
            text_of(header::CONTENT_DISPOSITION),
        );
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Answer {
            status,
            content_type,
            disposition,
            text: String::from_utf8(body.to_vec()).unwrap(),
        }
    }
}
