//! Runs [`process`] on Knative, on Lambda or as a member of a consumer group.

use runtime::Env;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    runtime::main("process", async {
        runtime::serve(process::app(&Env::process())?).await
    })
    .await
}
