//! Process behind a real port, as Knative has it.

use std::{net::SocketAddr, time::Duration};

use futures::future::join_all;
use process::build;
use runtime::CancellationToken;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::support::{Service, binary};

struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Served {
    async fn start(process: &Service) -> Self {
        let app = build(process.config.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let told = stop.clone().cancelled_owned();
        let ended = tokio::spawn(async move { Box::pin(runtime::run(listener, app, told)).await });
        Self {
            address,
            stop,
            ended,
        }
    }

    /// Sends a call on a connection of its own; returns the answer, empty if there was none.
    async fn call(&self, id: &str, more: &[(String, String)]) -> String {
        let mut text = "POST / HTTP/1.1\r\nhost: process\r\nconnection: close\r\n".to_owned();
        let own = binary(id, "call");
        let more = more
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.into_iter().chain(more) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("content-length: 8\r\n\r\n{\"ms\":1}");
        let mut answer = String::new();
        if let Ok(mut connection) = TcpStream::connect(self.address).await
            && connection.write_all(text.as_bytes()).await.is_ok()
        {
            // Reset before an answer is as good as none.
            connection.read_to_string(&mut answer).await.ok();
        }
        answer
    }
}

#[tokio::test]
async fn an_event_with_all_extensions_it_may_have_fits_into_the_headers() {
    let process = Service::start();
    let served = Served::start(&process).await;
    let extensions = (0..64).map(|number| (format!("ce-x{number}"), "x".repeat(500)));
    let hops = (0..20).map(|number| (format!("x-hop-{number}"), "y".repeat(100)));
    let answer = served
        .call("1", &extensions.chain(hops).collect::<Vec<_>>())
        .await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(process.totals().await, ["1", "1"]);
    served.stop.cancel();
    served.ended.await.unwrap().unwrap();
    process.remove().await;
}

#[tokio::test]
async fn whoever_was_answered_before_the_end_is_counted() {
    let process = Service::start();
    let served = Served::start(&process).await;
    assert!(served.call("first", &[]).await.contains(" 204 "));
    let ids: Vec<_> = (0..200).map(|id| id.to_string()).collect();
    let calls = join_all(ids.iter().map(|id| served.call(id, &[])));
    let stop = async {
        // Somewhere between the first and the last of them.
        while process.totals().await[0] == "1" {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        served.stop.cancel();
    };
    let (answers, ()) = tokio::join!(calls, stop);
    served.ended.await.unwrap().unwrap();
    let answered = answers
        .iter()
        .filter(|answer| answer.contains(" 204 "))
        .count();
    let others = answers.iter().filter(|answer| !answer.contains(" 204 "));
    assert!(
        others.clone().all(String::is_empty),
        "{:?}",
        others.collect::<Vec<_>>()
    );
    let counted: usize = process.totals().await[0].parse().unwrap();
    assert!(
        answered >= 1 && counted > answered,
        "{answered} answered, {counted} counted"
    );
    process.remove().await;
}
