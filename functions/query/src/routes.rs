//! HTTP in and out: extract, ask, answer.

use std::{future::Future, sync::Arc, time::Instant};

use axum::body::Bytes;
use axum::{
    Json, Router,
    extract::{
        Path, RawQuery, State,
        rejection::{BytesRejection, PathRejection},
    },
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::get,
};
use model::{Meter, MeterQuery};
use runtime::{App, Health, Meters, Problem};
use store::{Store, StoreError};

use crate::{
    Config,
    answer::Answer,
    csv,
    dead_letters::DeadLetters,
    events::{self, Listed},
    meters::{self, Shown},
    mistakes::Mistakes,
    params::{self, named_values, unknown},
};

/// Seconds after which a question that could not be answered may be asked again.
const RETRY_AFTER: u64 = 1;

/// What the routes need.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    meters: Meters,
    store: Store,
    dead_letters: DeadLetters,
}

impl Query {
    pub(crate) fn new(config: Config) -> anyhow::Result<Self> {
        Ok(Self {
            meters: Meters::open(&config.meters)?,
            store: Store::connect(config.store),
            dead_letters: DeadLetters::new(config.kafka),
        })
    }

    fn meter(&self, slug: &str) -> Result<Arc<Meter>, Problem> {
        let catalog = self.meters.current();
        let meter = catalog.meter(slug).cloned();
        meter.ok_or_else(|| Problem::not_found(format!("there is no meter {slug:?}")))
    }
}

/// Returns the function as it is served.
pub(crate) fn app(query: Query) -> App {
    let store = query.store.clone();
    let health = Health::new().ready("clickhouse", move || {
        let store = store.clone();
        async move { store.ping().await }
    });
    App::new("query", router(query)).health(health)
}

fn router(query: Query) -> Router {
    Router::new()
        .route("/api/v1/meters", get(list_meters))
        .route("/api/v1/meters/{slug}", get(show_meter))
        .route(
            "/api/v1/meters/{slug}/query",
            get(get_usage).post(post_usage),
        )
        .route("/api/v1/meters/{slug}/subjects", get(list_subjects))
        .route(
            "/api/v1/meters/{slug}/group-by/{key}/values",
            get(list_group_values),
        )
        .route("/api/v1/events", get(list_events))
        .route("/api/v1/dead-letters", get(list_dead_letters))
        .with_state(query)
}

async fn list_meters(
    State(query): State<Query>,
    RawQuery(parameters): RawQuery,
) -> Result<Response, Problem> {
    let catalog = query.meters.current();
    let page = meters::page(&catalog, parameters.as_deref())?;
    Ok(Json(page).into_response())
}

async fn show_meter(
    State(query): State<Query>,
    slug: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let meter = query.meter(&slug?)?;
    Ok(Json(Shown::new(&meter)).into_response())
}

async fn get_usage(
    State(query): State<Query>,
    slug: Result<Path<String>, PathRejection>,
    RawQuery(parameters): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let meter = query.meter(&slug?)?;
    let asked = params::from_url(parameters.as_deref(), &meter)?;
    usage(&query, &meter, &asked, &headers).await
}

async fn post_usage(
    State(query): State<Query>,
    slug: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let meter = query.meter(&slug?)?;
    let asked = params::from_body(&body?, &meter)?;
    usage(&query, &meter, &asked, &headers).await
}

async fn usage(
    query: &Query,
    meter: &Meter,
    asked: &MeterQuery,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let rows = timed("usage", query.store.usage(meter, asked)).await?;
    if csv::is_wanted(headers) {
        let disposition = format!("attachment; filename={}.csv", meter.slug);
        let headers = [
            (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
            (header::CONTENT_DISPOSITION, disposition),
        ];
        return Ok((headers, csv::write(asked, &rows)).into_response());
    }
    Ok(Json(Answer::new(asked, &rows)).into_response())
}

async fn list_subjects(
    State(query): State<Query>,
    slug: Result<Path<String>, PathRejection>,
    RawQuery(parameters): RawQuery,
) -> Result<Json<Vec<String>>, Problem> {
    let meter = query.meter(&slug?)?;
    let (from, to) = stretch(parameters.as_deref())?;
    let subjects = query.store.subjects(&meter.slug, from, to);
    Ok(Json(timed("subjects", subjects).await?))
}

async fn list_group_values(
    State(query): State<Query>,
    place: Result<Path<(String, String)>, PathRejection>,
    RawQuery(parameters): RawQuery,
) -> Result<Json<Vec<String>>, Problem> {
    let Path((slug, key)) = place?;
    let meter = query.meter(&slug)?;
    if !meter.group_by.iter().any(|group| group.name == key) {
        let wrong = format!("the meter {slug:?} is not grouped by {key:?}");
        return Err(Problem::not_found(wrong));
    }
    let (from, to) = stretch(parameters.as_deref())?;
    let values = query.store.group_values(&meter.slug, &key, from, to);
    Ok(Json(timed("group_values", values).await?))
}

async fn list_events(
    State(query): State<Query>,
    RawQuery(parameters): RawQuery,
) -> Result<Response, Problem> {
    let filter = events::filter(parameters.as_deref())?;
    let events = timed("events", query.store.events(&filter)).await?;
    let listed: Vec<_> = events.iter().map(Listed::new).collect();
    Ok(Json(listed).into_response())
}

async fn list_dead_letters(
    State(query): State<Query>,
    RawQuery(parameters): RawQuery,
) -> Result<Response, Problem> {
    let page = query.dead_letters.page(parameters.as_deref()).await?;
    Ok(Json(page).into_response())
}

type Stretch = (Option<jiff::Timestamp>, Option<jiff::Timestamp>);

/// Reads the parameters `from` and `to`.
fn stretch(query: Option<&str>) -> Result<Stretch, Problem> {
    let mut mistakes = Mistakes::default();
    let mut by_name = named_values(query);
    let mut time = |name: &str| {
        let values = by_name.remove(name).unwrap_or_default();
        let text = mistakes.one(name, &values);
        mistakes.time(name, text.as_deref())
    };
    let (from, to) = (time("from"), time("to"));
    mistakes.stretch(("from", from), ("to", to));
    by_name.remove("clientId");
    for name in by_name.keys() {
        mistakes.add(name, unknown(name));
    }
    mistakes.into_result((from, to))
}

/// Measures what the store takes to answer, and turns its faults into problems.
async fn timed<T>(
    question: &'static str,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, Problem> {
    let begun = Instant::now();
    let answer = answer.await;
    metrics::histogram!("openmeter_query_latency_seconds", "question" => question)
        .record(begun.elapsed().as_secs_f64());
    answer.map_err(|error| problem(question, &error))
}

fn problem(question: &'static str, error: &StoreError) -> Problem {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    let (message, cause) = (error.to_string(), cause.unwrap_or_default());
    if error.is_retryable() {
        tracing::warn!(question, error = message, cause, "the store did not answer");
        Problem::unavailable("the store did not answer").retry_after(RETRY_AFTER)
    } else {
        tracing::error!(question, error = message, cause, "the store cannot answer");
        Problem::internal()
    }
}
