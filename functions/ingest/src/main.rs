//! Runs [`ingest`] on Knative or on Lambda.

use runtime::Env;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    runtime::main("ingest", async {
        runtime::serve(ingest::app(&Env::process())?).await
    })
    .await
}
