//! What stands before a Service's pods, and what Knative's activator, queue-proxy and autoscaler
//! do: requests wait for a pod, have their place and their time, and bring pods about.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{Request, Response, StatusCode, Uri, uri::Scheme};
use http_body_util::BodyExt as _;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Serialize;
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout_at},
};

use super::{
    autoscaler::{Autoscaler, TICK},
    pod::{Status, millis},
    service::ServicePlan,
    workload::{Arrival, Making, Slot, Workload},
};

/// The client of everybody here: connections are kept, and small packets not held back.
pub(crate) type Client = legacy::Client<HttpConnector, Body>;

/// How many cold starts are kept.
const COLD_STARTS: usize = 10_000;

/// Returns a client with a pool of its own.
pub(crate) fn client() -> Client {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    legacy::Client::builder(TokioExecutor::new()).build(connector)
}

/// A Service that runs.
pub struct Service {
    name: String,
    workload: Arc<Workload>,
    plan: ServicePlan,
    client: Client,
    cold_starts: Mutex<ColdStarts>,
    autoscaler: Mutex<Option<JoinHandle<()>>>,
}

/// The requests that found nobody, and how long they took: the newest last.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ColdStarts {
    /// How many there were.
    pub count: u64,
    /// From such a request's arrival to the beginning of its answer.
    pub last_millis: VecDeque<f64>,
    /// From a process's start until it was ready.
    pub last_start_millis: VecDeque<f64>,
}

impl Service {
    pub(super) fn start(making: Making, plan: ServicePlan) -> Arc<Self> {
        let client = making.client.clone();
        let name = making.name.clone();
        let workload = Workload::new(making, plan.concurrency);
        workload.scale(plan.autoscaling.initial);
        let autoscaler = tokio::spawn(autoscale(workload.clone(), plan.clone()));
        Arc::new(Self {
            name,
            workload,
            plan,
            client,
            cold_starts: Mutex::default(),
            autoscaler: Mutex::new(Some(autoscaler)),
        })
    }

    /// Sends a request to a pod, as soon as one has room for it. What goes wrong is answered as
    /// Knative does: 502 when the pod broke off, 503 when too many wait, 504 when it is too late.
    pub async fn send(&self, request: Request<Body>) -> Response<Body> {
        let arrived = Instant::now();
        let deadline = tokio::time::Instant::from_std(arrived + self.plan.timeout);
        let arrival = self.workload.arrive();
        let first = arrival.first;
        let placed = self.workload.place(self.plan.autoscaling.out_of_zero());
        let slot = match timeout_at(deadline, placed).await {
            Ok(Ok(slot)) => slot,
            Ok(Err(_overloaded)) => return refuse(StatusCode::SERVICE_UNAVAILABLE),
            Err(_elapsed) => return refuse(StatusCode::GATEWAY_TIMEOUT),
        };
        let sent = self.client.request(addressed(request, &slot));
        match timeout_at(deadline, sent).await {
            Ok(Ok(response)) => {
                if first {
                    self.was_cold(arrived);
                }
                held(response.map(Body::new), (arrival, slot), deadline)
            }
            Ok(Err(error)) => {
                tracing::debug!(service = self.name, %error, "a pod gave no answer");
                refuse(StatusCode::BAD_GATEWAY)
            }
            Err(_elapsed) => refuse(StatusCode::GATEWAY_TIMEOUT),
        }
    }

    /// Sends a request and reads its answer whole.
    pub async fn ask(&self, request: Request<Bytes>) -> Result<Response<Bytes>, axum::Error> {
        let (head, body) = self.send(request.map(Body::from)).await.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    }

    /// Stops every pod as the autoscaler would for lack of requests, and waits until they ended.
    /// A Service with a `min-scale` has them back soon.
    pub async fn scale_to_zero(&self) {
        self.workload.scale(0);
        self.workload.empty().await;
    }

    pub(crate) fn workload(&self) -> &Arc<Workload> {
        &self.workload
    }

    /// Returns what each pod is at.
    pub fn pods(&self) -> Vec<Status> {
        self.workload.pods()
    }

    /// Waits until `condition` holds for the pods.
    pub async fn until(&self, condition: impl Fn(&[Status]) -> bool) {
        let mut changes = self.workload.changes();
        while !condition(&self.pods()) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns the cold starts so far.
    pub fn cold_starts(&self) -> ColdStarts {
        let cold_starts = self.cold_starts.lock();
        cold_starts.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends every pod after its requests.
    pub(crate) async fn end(&self) {
        let autoscaler = self
            .autoscaler
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(autoscaler) = autoscaler {
            autoscaler.abort();
        }
        self.workload.end().await;
    }

    /// Kills the pods that were told to end.
    pub(crate) fn hurry(&self) {
        self.workload.hurry();
    }

    fn was_cold(&self, arrived: Instant) {
        let took = millis(arrived.elapsed());
        let pods = self.pods();
        let start = pods.iter().rev().find_map(|pod| pod.start_millis);
        tracing::info!(
            service = self.name,
            millis = took,
            start_millis = start,
            "cold start"
        );
        let mut cold_starts = self
            .cold_starts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let ColdStarts {
            count,
            last_millis,
            last_start_millis,
        } = &mut *cold_starts;
        *count += 1;
        keep(last_millis, took);
        if let Some(start) = start {
            keep(last_start_millis, start);
        }
    }
}

fn keep(times: &mut VecDeque<f64>, time: f64) {
    if times.len() == COLD_STARTS {
        times.pop_front();
    }
    times.push_back(time);
}

/// Has as many pods as the rule wants, for ever.
async fn autoscale(workload: Arc<Workload>, plan: ServicePlan) {
    let mut autoscaler = Autoscaler::new(plan.autoscaling, Instant::now(), 0.0);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let (request_seconds, pods) = workload.load();
        workload.scale(autoscaler.decide(Instant::now(), request_seconds, pods));
    }
}

/// Turns a request's URI to the pod. Its Host stays the Service's.
fn addressed(mut request: Request<Body>, slot: &Slot) -> Request<Body> {
    if !request.headers().contains_key(http::header::HOST)
        && let Some(host) = request.uri().authority()
        && let Ok(host) = host.as_str().parse()
    {
        request.headers_mut().insert(http::header::HOST, host);
    }
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(slot.authority.clone());
    if uri.path_and_query.is_none() {
        uri.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    }
    *request.uri_mut() = Uri::from_parts(uri).expect("scheme, authority and path are there");
    *request.version_mut() = http::Version::HTTP_11;
    request
}

/// Keeps the request's place until its answer was read, which must be before `deadline`.
fn held(
    response: Response<Body>,
    place: (Arrival, Slot),
    deadline: tokio::time::Instant,
) -> Response<Body> {
    if axum::body::HttpBody::is_end_stream(response.body()) {
        return response;
    }
    response.map(|body| {
        Body::from_stream(stream::try_unfold(
            (body, place),
            move |(mut body, place)| async move {
                loop {
                    return match timeout_at(deadline, body.frame()).await {
                        Ok(None) => Ok(None),
                        Ok(Some(frame)) => match frame?.into_data() {
                            Ok(data) => Ok(Some((data, (body, place)))),
                            Err(_trailers) => continue,
                        },
                        Err(elapsed) => Err(axum::Error::new(elapsed)),
                    };
                }
            },
        ))
    })
}

fn refuse(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::from(status.canonical_reason().unwrap_or_default()));
    *response.status_mut() = status;
    response
}
