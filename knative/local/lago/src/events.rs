//! Usage events as Lago takes them, and the two stores that differ in what is a duplicate.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use serde_json::{Map, Value, json};

use crate::{
    answers::{Answer, Errors, Params, Refusal, page},
    fields::Fields,
    id::LagoId,
    organization::Organization,
    settings::EventStore,
    time::{self, Millis},
};

#[derive(Clone)]
pub(crate) struct Event {
    lago_id: LagoId,
    pub(crate) transaction_id: String,
    /// External id of the subscription; nobody checks that there is one.
    pub(crate) subscription: Option<String>,
    pub(crate) code: String,
    pub(crate) at: Millis,
    pub(crate) properties: Map<String, Value>,
    precise_total_amount_cents: Option<String>,
    created_at: Millis,
}

impl Event {
    fn read(event: &Value, now: Millis) -> Result<Self, Errors> {
        let nothing = Map::new();
        let mut fields = Fields::new(event.as_object().unwrap_or(&nothing));
        let at = match fields.value("timestamp") {
            None => Some(now),
            Some(value) => time::of_event(value),
        };
        if at.is_none() {
            fields.refuse("timestamp", "invalid_format");
        }
        let properties = match fields.value("properties") {
            Some(Value::Object(properties)) => properties.clone(),
            _ => Map::new(),
        };
        let event = Self {
            lago_id: LagoId::new(),
            transaction_id: fields.required("transaction_id"),
            subscription: fields.text("external_subscription_id"),
            code: fields.required("code"),
            at: at.unwrap_or_default(),
            properties,
            precise_total_amount_cents: fields.text("precise_total_amount_cents"),
            created_at: now,
        };
        fields.errors().map(|()| event)
    }

    /// What ClickHouse's store gives no value for is null.
    fn view(&self, store: EventStore) -> Value {
        let postgres = store == EventStore::Postgres;
        json!({
            "lago_id": postgres.then_some(self.lago_id),
            "transaction_id": self.transaction_id,
            "lago_customer_id": null,
            "code": self.code,
            "timestamp": time::iso_millis(self.at),
            "precise_total_amount_cents": self.precise_total_amount_cents,
            "properties": self.properties,
            "lago_subscription_id": null,
            "external_subscription_id": self.subscription,
            "created_at": postgres.then(|| time::iso_millis(self.created_at)),
        })
    }
}

/// What makes two events one: subscription and transaction_id, and for ClickHouse's store also
/// code and time.
type Key = (Option<String>, String, Option<(String, Millis)>);

/// The event store.
pub(crate) struct Events {
    store: EventStore,
    rows: Vec<Event>,
    places: HashMap<Key, usize>,
}

impl Events {
    pub(crate) fn new(store: EventStore) -> Self {
        Self {
            store,
            rows: Vec::new(),
            places: HashMap::new(),
        }
    }

    fn key(&self, event: &Event) -> Key {
        let more = (self.store == EventStore::Clickhouse).then(|| (event.code.clone(), event.at));
        (
            event.subscription.clone(),
            event.transaction_id.clone(),
            more,
        )
    }

    /// Takes all of them, or none and says which are duplicates: of what is stored, or of one
    /// before in the same batch.
    fn take(&mut self, events: Vec<Event>) -> Result<(), BTreeMap<usize, Errors>> {
        if self.store == EventStore::Postgres {
            let mut before = std::collections::HashSet::new();
            let refused: BTreeMap<_, _> = events
                .iter()
                .enumerate()
                .filter(|(_, event)| {
                    let key = self.key(event);
                    self.places.contains_key(&key) || !before.insert(key)
                })
                .map(|(index, _)| (index, already_there()))
                .collect();
            if !refused.is_empty() {
                return Err(refused);
            }
        }
        for event in events {
            let key = self.key(&event);
            match self.places.get(&key) {
                Some(place) => self.rows[*place] = event,
                None => {
                    self.places.insert(key, self.rows.len());
                    self.rows.push(event);
                }
            }
        }
        Ok(())
    }
}

fn already_there() -> Errors {
    Errors::from([("transaction_id".to_owned(), vec!["value_already_exist"])])
}

impl Organization {
    pub(crate) fn create_event(&mut self, body: &Value) -> Answer {
        Fields::of(body, "event")?;
        let event = Event::read(&body["event"], self.now()).map_err(Refusal::Invalid)?;
        let view = event.view(self.settings.event_store);
        let taken = self.events.take(vec![event]);
        taken.map_err(|mut items| Refusal::Invalid(items.remove(&0).unwrap_or_default()))?;
        Ok(Json(json!({ "event": view })))
    }

    /// Takes the batch, or none of it. `half` is a fault: only the first half is kept.
    pub(crate) fn create_events(&mut self, body: &Value, half: bool) -> Answer {
        let items = body["events"].as_array().map_or(&[][..], Vec::as_slice);
        if items.is_empty() {
            return Err(Refusal::field("events", "no_events"));
        }
        if items.len() > self.settings.batch_max {
            return Err(Refusal::field("events", "too_many_events"));
        }
        let now = self.now();
        let (mut events, mut refused) = (Vec::new(), BTreeMap::new());
        for (index, item) in items.iter().enumerate() {
            match Event::read(item, now) {
                Ok(event) => events.push(event),
                Err(errors) => {
                    refused.insert(index, errors);
                }
            }
        }
        if !refused.is_empty() {
            return Err(Refusal::InvalidItems(refused));
        }
        if half {
            events.truncate(items.len() / 2);
        }
        let views: Vec<_> = events
            .iter()
            .map(|event| event.view(self.settings.event_store))
            .collect();
        self.events.take(events).map_err(Refusal::InvalidItems)?;
        Ok(Json(json!({ "events": views })))
    }

    /// The events that can be read by now, in the order in which they came.
    pub(crate) fn visible_events(&self) -> impl Iterator<Item = &Event> {
        let until = self.now() - i64::from(self.settings.events_lag_ms);
        let rows = self.events.rows.iter();
        rows.filter(move |event| event.created_at <= until)
    }

    /// Every accepted event, readable yet or not.
    pub(crate) fn events_of_all_times(&self) -> impl Iterator<Item = &Event> {
        self.events.rows.iter()
    }

    pub(crate) fn show_event(&self, transaction_id: &str) -> Answer {
        let found = self
            .visible_events()
            .find(|event| event.transaction_id == transaction_id)
            .ok_or(Refusal::NotFound("event"))?;
        Ok(Json(
            json!({ "event": found.view(self.settings.event_store) }),
        ))
    }

    /// Newest first: by time in Postgres's store, by arrival in ClickHouse's.
    pub(crate) fn list_events(&self, params: &Params) -> Answer {
        let bound = |name: &str| match params.get(name).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => time::from_iso(text)
                .map(Some)
                .ok_or_else(|| Refusal::field(name, "invalid_date")),
        };
        let (from, to) = (bound("timestamp_from")?, bound("timestamp_to")?);
        let (code, subscription) = (params.get("code"), params.get("external_subscription_id"));
        let mut found: Vec<_> = self
            .visible_events()
            .filter(|event| {
                code.is_none_or(|code| *code == event.code)
                    && subscription.is_none_or(|id| Some(id) == event.subscription.as_ref())
                    && from.is_none_or(|from| from <= event.at)
                    && to.is_none_or(|to| event.at <= to)
            })
            .collect();
        let newest = |event: &Event| match self.settings.event_store {
            EventStore::Postgres => event.at,
            EventStore::Clickhouse => event.created_at,
        };
        found.sort_by(|a, b| {
            let by_time = newest(b).cmp(&newest(a));
            by_time.then_with(|| a.transaction_id.cmp(&b.transaction_id))
        });
        let rows = found
            .iter()
            .map(|event| event.view(self.settings.event_store));
        page("events", rows.collect(), params)
    }
}
