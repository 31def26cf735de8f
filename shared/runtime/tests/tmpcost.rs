use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
    routing::post,
};
use runtime::App;
use std::time::Instant;
use tower::Service as _;
#[tokio::test]
async fn cost() {
    let routes = || Router::new().route("/api/v1/events", post(async || StatusCode::NO_CONTENT));
    let mut with = App::new("x", routes()).into_router();
    let mut bare = routes();
    for _ in 0..3 {
        for (name, r) in [("bare", &mut bare), ("with", &mut with)] {
            let n = 200_000u32;
            let s = Instant::now();
            for _ in 0..n {
                let q = Request::post("/api/v1/events").body(Body::empty()).unwrap();
                let _ = std::hint::black_box(r.call(q).await.unwrap());
            }
            println!("{name} {:?}", s.elapsed() / n);
        }
    }
}
