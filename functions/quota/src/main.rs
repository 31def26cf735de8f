//! Runs [`quota`] on Knative, on Lambda or as a member of a consumer group.

use runtime::Env;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    runtime::main("quota", async {
        runtime::serve(quota::app(&Env::process())?).await
    })
    .await
}
