//! `run`: what is served, and how it ends.

use std::{
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use runtime::{App, Trigger, run};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::timeout,
};

use crate::http::send;

/// An app on a port of its own.
struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Server {
    async fn start(app: App) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            stopped.await.expect("the test stops it");
        };
        let ended = tokio::spawn(run(listener, app, shutdown));
        Self {
            address,
            stop,
            ended,
        }
    }

    async fn end(self) -> anyhow::Result<()> {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap()
    }
}

/// A route that says when it was entered and answers when it is released.
#[derive(Clone, Default)]
struct Slow {
    entered: Arc<Notify>,
    released: Arc<Notify>,
}

impl Slow {
    fn routes(&self) -> Router {
        let slow = self.clone();
        let answer = async move || {
            slow.entered.notify_one();
            slow.released.notified().await;
            "done"
        };
        Router::new().route("/slow", get(answer))
    }
}

#[tokio::test]
async fn a_request_in_flight_is_answered_and_new_connections_are_refused() {
    let slow = Slow::default();
    let flushed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&flushed);
    let app = App::new("slow", slow.routes()).on_shutdown(async move || {
        flag.store(true, Ordering::SeqCst);
        Ok(())
    });
    let server = Server::start(app).await;
    let address = server.address;
    let answer = tokio::spawn(send(address, "GET", "/slow"));
    slow.entered.notified().await;

    server.stop.send(()).unwrap();
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(
        !flushed.load(Ordering::SeqCst),
        "flushed with a request in flight"
    );
    slow.released.notify_one();
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    server.ended.await.unwrap().unwrap();
    assert!(flushed.load(Ordering::SeqCst));
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let routes = Router::new().route("/", get(async || "hello"));
    let server = Server::start(App::new("idle", routes)).await;
    let _silent = TcpStream::connect(server.address).await.unwrap();
    let mut kept_alive = TcpStream::connect(server.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
    kept_alive.write_all(request).await.unwrap();
    let mut first_byte = [0];
    kept_alive.read_exact(&mut first_byte).await.unwrap();
    // Well below the deadline, at which it would end in any case.
    let ended = timeout(Duration::from_secs(5), server.end()).await;
    ended.expect("it ends at once").unwrap();
}

#[tokio::test]
async fn a_request_that_never_ends_is_waited_for_until_the_deadline() {
    let slow = Slow::default();
    let (flushed, was_flushed) = oneshot::channel();
    let app = App::new("stuck", slow.routes())
        .drain_timeout(Duration::from_millis(10))
        .on_shutdown(async move || {
            flushed.send(()).unwrap();
            Ok(())
        });
    let server = Server::start(app).await;
    let _answer = tokio::spawn(send(server.address, "GET", "/slow"));
    slow.entered.notified().await;
    server.end().await.unwrap();
    was_flushed.await.unwrap();
}

#[tokio::test]
async fn a_failed_flush_is_an_error() {
    let app =
        App::new("flush", Router::new()).on_shutdown(async || anyhow::bail!("3 messages are left"));
    let error = Server::start(app).await.end().await.unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "flush at shutdown: 3 messages are left"
    );
}

#[tokio::test]
async fn the_loop_is_told_to_stop_and_waited_for() {
    let (finished, was_finished) = oneshot::channel();
    let app = App::new("pull", Router::new())
        .trigger(Trigger::Kafka)
        .pull(async |stop| {
            stop.cancelled().await;
            // The batch in hand takes a few more turns.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            finished.send(()).unwrap();
            Ok(())
        });
    Server::start(app).await.end().await.unwrap();
    assert!(was_finished.await.is_ok());
}

#[tokio::test]
async fn the_loop_does_not_run_under_the_http_trigger() {
    let app = App::new("push", Router::new()).pull(async |_| panic!("must not run"));
    Server::start(app).await.end().await.unwrap();
}

#[tokio::test]
async fn a_loop_that_stops_by_itself_stops_the_server_with_an_error() {
    type Ending = fn() -> anyhow::Result<()>;
    let endings: [(Ending, &str); 3] = [
        (|| anyhow::bail!("the broker is gone"), "the broker is gone"),
        (|| Ok(()), "ended before it was told to"),
        (|| panic!("a bug"), "the loop panicked"),
    ];
    for (ending, wrong) in endings {
        let app = App::new("pull", Router::new())
            .trigger(Trigger::Kafka)
            .pull(async move |_| ending());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error = run(listener, app, pending()).await.unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.starts_with(&format!("take events from kafka: {wrong}")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn the_error_of_the_loop_outlives_the_deadline() {
    let slow = Slow::default();
    let entered = Arc::clone(&slow.entered);
    let app = App::new("pull", slow.routes())
        .trigger(Trigger::Kafka)
        .drain_timeout(Duration::from_millis(10))
        .pull(async move |_| {
            entered.notified().await;
            anyhow::bail!("the broker is gone")
        });
    let server = Server::start(app).await;
    let _answer = tokio::spawn(send(server.address, "GET", "/slow"));
    let error = server.ended.await.unwrap().unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "take events from kafka: the broker is gone"
    );
}

#[tokio::test]
async fn unknown_paths_and_methods_and_panics_are_answered_with_problems() {
    async fn broken() -> &'static str {
        panic!("the password is hunter2")
    }
    let routes = Router::new().route("/broken", get(broken));
    let server = Server::start(App::new("problems", routes)).await;
    for (method, path, status, title) in [
        ("GET", "/nothing", "404", "Not Found"),
        ("PUT", "/broken", "405", "Method Not Allowed"),
        ("GET", "/broken", "500", "Internal Server Error"),
    ] {
        let answer = send(server.address, method, path).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} {title}\r\n")),
            "{answer}"
        );
        assert!(
            answer.contains("content-type: application/problem+json\r\n"),
            "{answer}"
        );
        assert!(
            answer.contains(&format!(r#""title":"{title}","status":{status}"#)),
            "{answer}"
        );
        assert!(!answer.contains("hunter2"), "{answer}");
        let says_allow = answer.contains("allow: GET,HEAD\r\n");
        assert_eq!(says_allow, status == "405", "{answer}");
    }
    server.end().await.unwrap();
}
