//! The API's door, and names of the cluster.

use std::net::Ipv4Addr;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use runner::network::{Network as _, Unanswered};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{Running, echo, get, in_time, object, start};

/// The API of a cluster whose route has POST /exact and all of /prefix.
struct Api {
    running: Running,
    url: String,
    client: Client<HttpConnector, Body>,
}

async fn api() -> Api {
    let route = object(json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "route"},
        "spec": {"parentRefs": [{"name": "gateway"}], "rules": [
            {
                "matches": [
                    {"method": "POST", "path": {"type": "Exact", "value": "/exact"}},
                    {"path": {"type": "PathPrefix", "value": "/prefix"}},
                ],
                "backendRefs": [{"name": "echo", "port": 80}],
            },
        ]},
    }));
    let running = start(&[echo(|_| ()), route]);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = axum::serve(listener, running.cluster.api());
    tokio::spawn(server.into_future());
    let client = Client::builder(TokioExecutor::new()).build_http();
    Api {
        running,
        url,
        client,
    }
}

impl Api {
    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Response<Bytes> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).unwrap();
        let (head, body) = in_time(self.client.request(request))
            .await
            .unwrap()
            .into_parts();
        Response::from_parts(head, in_time(body.collect()).await.unwrap().to_bytes())
    }

    async fn status(&self, method: &str, path: &str) -> u16 {
        self.send(method, path, &[], Body::empty())
            .await
            .status()
            .as_u16()
    }
}

#[tokio::test]
async fn a_request_goes_where_the_route_leads() {
    let api = api().await;
    let table = [
        ("POST", "/exact", 200),
        ("GET", "/exact", 404),
        ("POST", "/exact/more", 404),
        ("DELETE", "/prefix/x?y=z", 200),
        ("GET", "/prefixed", 404),
        ("GET", "/", 404),
    ];
    for (method, path, status) in table {
        assert_eq!(api.status(method, path).await, status, "{method} {path}");
    }
    api.running.stop().await;
}

#[tokio::test]
async fn headers_of_the_connection_are_not_passed_on() {
    let api = api().await;
    let headers = [
        ("connection", "keep-alive, x-hop"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("x-hop", "1"),
        ("x-end", "2"),
    ];

    let answer = api.send("POST", "/exact", &headers, "body".into()).await;

    let told: Value = serde_json::from_slice(answer.body()).unwrap();
    let headers = &told["headers"];
    assert_eq!(headers["host"], "echo.ns.svc.cluster.local");
    assert_eq!(headers["x-end"], "2");
    assert_eq!(told["body"], "body");
    for dropped in ["connection", "keep-alive", "te", "x-hop"] {
        assert!(headers.get(dropped).is_none(), "{dropped}: {headers}");
    }
    api.running.stop().await;
}

#[tokio::test]
async fn a_body_is_refused_beyond_16_mib() {
    let api = api().await;
    let limit = 16 * 1024 * 1024;
    let too_large = vec![b'x'; limit + 1];

    let answer = api.send("POST", "/exact", &[], too_large.into()).await;

    assert_eq!(answer.status(), 413);
    assert_eq!(
        api.status("POST", "/exact").await,
        200,
        "the next one is served"
    );
    api.running.stop().await;
}

#[tokio::test]
async fn an_answer_is_passed_on_as_it_comes() {
    let drip = object(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "route"},
        "spec": {"rules": [{"backendRefs": [{"name": "echo", "port": 80}]}]},
    }));
    let running = start(&[echo(|_| ()), drip]);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let uri = format!("http://{}/drip", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, running.cluster.api()).into_future());
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();

    let mut answer = in_time(client.get(uri.parse().unwrap())).await.unwrap();

    let frame = in_time(answer.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "drip");
    drop(answer);
    running.stop().await;
}

#[tokio::test]
async fn a_name_of_the_cluster_is_a_service_and_any_other_is_the_networks() {
    let running = start(&[echo(|_| ())]);
    let answer = in_time(running.cluster.send(get("/x"))).await.unwrap();
    assert_eq!(answer.status(), 200);

    let port = running.service().pods()[0].port;
    let plain = Request::get(format!("http://127.0.0.1:{port}/status/418"));
    let plain = plain.body(Bytes::new()).unwrap();
    assert_eq!(
        in_time(running.cluster.send(plain)).await.unwrap().status(),
        418
    );

    for nobody in ["http://nobody.ns.svc.cluster.local/", "http://127.0.0.1:1/"] {
        let request = Request::get(nobody).body(Bytes::new()).unwrap();
        let answer = in_time(running.cluster.send(request)).await;
        assert!(
            matches!(answer, Err(Unanswered::Unreachable(_))),
            "{answer:?}"
        );
    }
    running.stop().await;
}
