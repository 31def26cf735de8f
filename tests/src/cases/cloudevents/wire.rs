//! Whom Triggers reach in the cases: a server that answers as a script says, or nobody.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, Request, Response, StatusCode, Uri, header::CONTENT_TYPE},
    response::IntoResponse as _,
    routing::any,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use runner::{
    cluster::Cluster,
    network::{Network, Unanswered},
    serving,
};
use tokio::{net::TcpListener, task::JoinSet};

/// The host of every subscriber; its path is the Trigger's name.
pub(super) const SUBSCRIBER: &str = "subscriber.invalid";
/// The host of the dead letter sink.
pub(super) const DEAD: &str = "dead.invalid";

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(super) enum Behaviour {
    /// It is answered.
    Answers(u16, HeaderMap, Vec<u8>),
    /// Its host has no address.
    IsUnknown,
    /// Nobody listens there.
    Refuses,
    /// The connection is closed before there is an answer.
    Breaks,
    /// Nothing comes.
    Hangs,
}

impl Behaviour {
    /// Returns the answer of somebody who has done the work and has no reply.
    pub(super) fn done() -> Self {
        Self::Answers(204, HeaderMap::new(), Vec::new())
    }
}

/// A request that a Trigger made.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    /// Returns whether it went to the subscriber of this Trigger.
    pub(super) fn is_for(&self, trigger: &str) -> bool {
        self.uri.host() == Some(SUBSCRIBER) && self.uri.path() == format!("/{trigger}")
    }

    /// Returns whether it went to the dead letter sink.
    pub(super) fn is_dead(&self) -> bool {
        self.uri.host() == Some(DEAD)
    }

    /// Returns an attribute that needs no decoding, or nothing.
    pub(super) fn attribute(&self, name: &str) -> &str {
        let value = self.headers.get(format!("ce-{name}"));
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Returns the content type, or nothing.
    pub(super) fn content_type(&self) -> &[u8] {
        let value = self.headers.get(CONTENT_TYPE);
        value.map(|value| value.as_bytes()).unwrap_or_default()
    }
}

/// Says what becomes of a request.
pub(super) type Script = Box<dyn Fn(&Seen) -> Behaviour + Send + Sync>;

/// The network of the Triggers: notes each request, and sends it where its fate is.
pub(super) struct Wire {
    // What carries requests on a laptop, with nobody in it.
    cluster: Arc<Cluster>,
    script: Script,
    seen: Mutex<Vec<Seen>>,
    answers: Arc<Answers>,
    answering: String,
    breaking: String,
    silent: String,
    closed: String,
}

type Answers = Mutex<HashMap<u64, Behaviour>>;

impl Wire {
    /// Starts the servers.
    pub(super) async fn start(
        script: Script,
        servers: &mut JoinSet<()>,
    ) -> anyhow::Result<Arc<Self>> {
        let plan = serving::Plan::read(&[]).map_err(|_| anyhow::anyhow!("no objects are wrong"))?;
        let folder = std::env::temp_dir();
        let folders = serving::Folders {
            programs: folder.clone(),
            state: folder,
        };
        let answers = Arc::<Answers>::default();
        let app = Router::new()
            .route("/{number}", any(answer))
            .with_state(Arc::clone(&answers));
        let breaking = listener().await?;
        let silent = listener().await?;
        let closed = listener().await?;
        let address = |listener: &TcpListener| anyhow::Ok(listener.local_addr()?.to_string());
        let wire = Self {
            cluster: Cluster::start(plan, folders)?,
            script,
            seen: Mutex::default(),
            answers,
            answering: serve(app, servers).await?,
            breaking: address(&breaking)?,
            silent: address(&silent)?,
            closed: address(&closed)?,
        };
        drop(closed);
        servers.spawn(async move {
            while let Ok((connection, _)) = breaking.accept().await {
                // As soon as there is a request: it was sent, and nobody answers.
                connection.readable().await.ok();
                drop(connection);
            }
        });
        servers.spawn(async move {
            let mut open = Vec::new();
            while let Ok((connection, _)) = silent.accept().await {
                open.push(connection);
            }
        });
        Ok(Arc::new(wire))
    }

    /// Returns the requests so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }

    async fn carry(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, Unanswered> {
        let seen = Seen {
            at: Instant::now(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            body: request.body().clone(),
        };
        let behaviour = (self.script)(&seen);
        let number = {
            let mut all = lock(&self.seen);
            all.push(seen);
            all.len() as u64
        };
        let host = match &behaviour {
            Behaviour::Answers(..) => {
                lock(&self.answers).insert(number, behaviour);
                &*self.answering
            }
            Behaviour::IsUnknown => "nobody.invalid",
            Behaviour::Refuses => &self.closed,
            Behaviour::Breaks => &self.breaking,
            Behaviour::Hangs => &self.silent,
        };
        let uri = format!("http://{host}/{number}").parse();
        *request.uri_mut() = uri.map_err(|error| Unanswered::Unreachable(format!("{error}")))?;
        self.cluster.send(request).await
    }
}

impl Network for Wire {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, Unanswered>> {
        Box::pin(self.carry(request))
    }
}

async fn answer(
    State(answers): State<Arc<Answers>>,
    Path(number): Path<u64>,
) -> axum::response::Response {
    let behaviour = lock(&answers).remove(&number);
    let Some(Behaviour::Answers(status, headers, body)) = behaviour else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = Response::new(axum::body::Body::from(body));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

/// Serves until the world ends.
pub(super) async fn serve(app: Router, servers: &mut JoinSet<()>) -> anyhow::Result<String> {
    let listener = listener().await?;
    let address = listener.local_addr()?.to_string();
    servers.spawn(async move {
        // It ends with the world; what it could not do shows in the cases.
        axum::serve(listener, app).await.ok();
    });
    Ok(address)
}

async fn listener() -> anyhow::Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0").await.context("listen")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
