//! The routes, and the asynchronous half: bodies in, answers out.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use bytes::Bytes;
use futures::stream;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};

use crate::auth::Users;
use crate::chdb::Progress;
use crate::engine::Engine;
use crate::exception::{self, Exception};
use crate::request::{Call, Plain, is_form};
use crate::work::{self, Data, Job, Output};
use crate::{formats, native, sql};

/// How many statements run at a time; more wait. Each takes a thread.
const STATEMENTS: u32 = 64;
/// Pieces under way between a body and the engine, or the engine and a client:
/// enough to keep both busy, few enough to bound memory.
const PIECES: usize = 4;
/// How much of a body is read to find where an INSERT's data begins.
const HEAD: usize = 256 << 10;
/// How long a client may go on sending to an INSERT that has failed already.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a stopping server waits for requests under way.
const GRACE: Duration = Duration::from_secs(30);

/// What every request needs.
#[derive(Clone)]
struct App {
    engine: Engine,
    users: Users,
    statements: Arc<Semaphore>,
}

/// Serves until `shutdown`, then finishes the requests under way.
///
/// # Errors
/// The listener failed.
pub async fn run(
    listener: TcpListener,
    engine: Engine,
    users: Users,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let statements = Arc::new(Semaphore::new(STATEMENTS as usize));
    let app = App {
        engine,
        users,
        statements: Arc::clone(&statements),
    };
    let routes = Router::new()
        .route("/", get(query).post(query))
        .route("/ping", get(ok))
        .route("/replicas_status", get(ok))
        .layer(DefaultBodyLimit::disable())
        .with_state(app);
    let listener = listener.tap_io(|socket| {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::warn!(%error, "small answers will be slow");
        }
    });
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let serving = axum::serve(listener, routes).with_graceful_shutdown(async move {
        shutdown.await;
        stopping.send(()).ok();
    });
    let finish = async {
        serving.await?;
        // A client that went away leaves its statement running.
        statements.acquire_many(STATEMENTS).await.ok();
        Ok(())
    };
    tokio::select! {
        finished = finish => finished,
        () = async { stopped.await.ok(); tokio::time::sleep(GRACE).await } => {
            tracing::warn!("stopped with statements still running");
            Ok(())
        }
    }
}

/// Ends at SIGTERM or SIGINT.
///
/// # Errors
/// The system does not let this process listen for signals.
pub fn shutdown_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn ok() -> &'static str {
    "Ok.\n"
}

async fn query(State(app): State<App>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let call = match Call::read(&parts) {
        Ok(call) => call,
        Err(exception) => return failure(&app.engine, &exception, false),
    };
    if call.is_get && call.query.is_none() {
        return ok().await.into_response();
    }
    let compress = call.compress;
    answer(&app, call, Request::from_parts(parts, body))
        .await
        .unwrap_or_else(|exception| failure(&app.engine, &exception, compress))
}

async fn answer(app: &App, mut call: Call, request: Request) -> Result<Response, Exception> {
    let rights = app.users.rights(&call.claim)?;
    let mut body = if is_form(request.headers()) {
        call.read_form(request).await?;
        None
    } else {
        let (parts, body) = request.into_parts();
        Some(Plain::new(&parts.headers, body, call.decompress)?).filter(|_| !call.is_get)
    };

    let mut text = Vec::new();
    if let Some(query) = &call.query {
        text.extend_from_slice(query.as_bytes());
        text.push(b'\n');
    }
    let ended = match (&mut body, &call.query) {
        // The URL says it all; what follows is data.
        (Some(_), Some(query)) if sql::insert_head(query.as_bytes()).is_some() => false,
        (Some(body), _) => body.fill(&mut text, HEAD).await?,
        (None, _) => true,
    };
    let insert = sql::insert_head(&text);
    if insert.is_none()
        && !ended
        && let Some(body) = &mut body
    {
        body.read_statement(&mut text).await?;
    }

    let permit = Arc::clone(&app.statements)
        .acquire_owned()
        .await
        .map_err(unexpected)?;
    let (output, mut answers) = mpsc::channel(PIECES);
    let call = Arc::new(call);
    let start = |job| {
        let (engine, call) = (app.engine.clone(), Arc::clone(&call));
        tokio::task::spawn_blocking(move || {
            work::run(&engine, &call, rights, job, output);
            drop(permit);
        })
    };
    match insert {
        None => {
            start(Job::Statement(text));
        }
        Some(insert) => {
            let rest = Bytes::copy_from_slice(text.get(insert.data..).unwrap_or_default());
            text.truncate(insert.end);
            let (pieces, data) = mpsc::channel(PIECES);
            start(Job::Insert {
                head: text,
                format: insert.format,
                data,
            });
            feed(pieces, rest, body.filter(|_| !ended)).await?;
        }
    }
    match answers.recv().await {
        Some(Output::Head { format, progress }) => {
            Ok(success(app, &call, &format, &progress, answers))
        }
        Some(Output::Failed(exception)) => Err(exception),
        Some(Output::Piece(_)) | None => Err(unexpected("the statement ended without an answer")),
    }
}

/// Passes a body on to an INSERT, no faster than it takes it. An error leaves
/// the INSERT without its end, which cancels it.
async fn feed(
    pieces: mpsc::Sender<Data>,
    first: Bytes,
    body: Option<Plain>,
) -> Result<(), Exception> {
    let mut refused = !first.is_empty() && pieces.send(Data::Piece(first)).await.is_err();
    if let Some(mut body) = body {
        while !refused && let Some(piece) = body.next().await? {
            refused = pieces.send(Data::Piece(piece)).await.is_err();
        }
        if refused {
            tokio::time::timeout(DRAIN, body.drain()).await.ok();
        }
    }
    // A refused INSERT has sent its reason.
    pieces.send(Data::End).await.ok();
    Ok(())
}

fn unexpected(what: impl std::fmt::Display) -> Exception {
    Exception::new(exception::LOGICAL_ERROR, what)
}

fn success(
    app: &App,
    call: &Call,
    format: &str,
    progress: &Progress,
    answers: mpsc::Receiver<Output>,
) -> Response {
    // Marks an exception in the middle of the output, so that no data can pass for one.
    let tag: String = uuid::Uuid::new_v4()
        .simple()
        .to_string()
        .chars()
        .take(16)
        .collect();
    let headers = [
        ("x-clickhouse-query-id", call.query_id.clone()),
        ("x-clickhouse-format", format.to_owned()),
        ("x-clickhouse-timezone", app.engine.timezone().to_owned()),
        ("x-clickhouse-summary", summary(progress)),
        ("x-clickhouse-exception-tag", tag.clone()),
        ("x-clickhouse-server-display-name", DISPLAY_NAME.to_owned()),
    ];
    let tail = Tail {
        tag,
        version: app.engine.version().to_owned(),
        compress: call.compress,
    };
    let mut response = Response::new(Body::from_stream(pieces(answers, tail)));
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
    }
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static(formats::content_type(format)),
    );
    response
}

const DISPLAY_NAME: &str = "clickhouse-engine";

/// What is needed to end an answer that fails in its middle.
struct Tail {
    tag: String,
    version: String,
    compress: bool,
}

/// The pieces of an answer. One that fails in its middle ends with the
/// exception in ClickHouse's wrapping and then breaks the connection, so that
/// no client can take it for complete.
fn pieces(
    answers: mpsc::Receiver<Output>,
    tail: Tail,
) -> impl stream::Stream<Item = Result<Bytes, std::io::Error>> {
    stream::unfold((answers, Some(tail)), |(mut answers, tail)| async move {
        let Some(tail) = tail else {
            // Lets the exception out before the connection breaks.
            tokio::task::yield_now().await;
            let broken = std::io::Error::other("the statement failed in the middle of its output");
            return Some((Err(broken), (answers, None)));
        };
        match answers.recv().await? {
            Output::Piece(piece) => Some((Ok(piece), (answers, Some(tail)))),
            Output::Failed(exception) => Some((Ok(tail.wrap(&exception)), (answers, None))),
            Output::Head { .. } => None,
        }
    })
}

impl Tail {
    fn wrap(&self, exception: &Exception) -> Bytes {
        let tag = &self.tag;
        let text = worded(exception, &self.version);
        let length = text.len();
        let wrapped =
            format!("\r\n__exception__\r\n{tag}\r\n{text}{length} {tag}\r\n__exception__\r\n");
        if self.compress {
            native::encode(wrapped.as_bytes())
        } else {
            wrapped.into()
        }
    }
}

fn summary(progress: &Progress) -> String {
    let fields = [
        ("read_rows", progress.read_rows),
        ("read_bytes", progress.read_bytes),
        ("written_rows", progress.written_rows),
        ("written_bytes", progress.written_bytes),
        ("total_rows_to_read", 0),
        (
            "result_rows",
            progress.result_rows.max(progress.written_rows),
        ),
        ("result_bytes", 0),
        ("elapsed_ns", progress.elapsed_ns),
    ];
    // ClickHouse writes numbers as strings here.
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("\"{name}\":\"{value}\""))
        .collect();
    format!("{{{}}}", fields.join(","))
}

fn worded(exception: &Exception, version: &str) -> String {
    format!("{} (version {version} (libchdb))\n", exception.message)
}

fn failure(engine: &Engine, exception: &Exception, compress: bool) -> Response {
    let code = exception.code.to_string();
    let headers = [
        ("content-type", "text/plain; charset=UTF-8"),
        ("x-clickhouse-exception-code", code.as_str()),
        ("x-clickhouse-server-display-name", DISPLAY_NAME),
    ];
    let text = worded(exception, engine.version());
    let body = if compress {
        native::encode(text.as_bytes())
    } else {
        text.into()
    };
    (exception.status(), headers, body).into_response()
}
