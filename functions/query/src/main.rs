//! Runs [`query`] on Knative or on Lambda.

use runtime::Env;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    runtime::main("query", async {
        runtime::serve(query::app(&Env::process())?).await
    })
    .await
}
