//! quota beside a stack's functions, and what the journeys ask of it.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use jiff::Timestamp;
use runtime::{CancellationToken, Env, Trigger};
use serde_json::{Value, json};
use tests::stack::{Answer, Stack};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};

/// What an administrator shows.
pub(super) const TOKEN: &str = "e2e";

const RULES: &str = r#"
prices:
  - meter: api_calls
    versions:
      - {credits_per_unit: 1, group_by: endpoint, by_value: {/payments: 5}}
  - meter: api_latency
    versions:
      - {credits_per_unit: "0.0000005"}
policies:
  unknown: refuse
  subjects:
    overdrawn: {overdraft: 2}
    internal: unlimited
"#;

/// How long an event may take to an account.
const WITHIN: Duration = Duration::from_secs(20);

/// A quota of a stack's own.
pub(super) struct Till {
    pub(super) url: String,
    functions: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
    rules: PathBuf,
    http: reqwest::Client,
}

impl Till {
    /// Starts it as a consumer group of the stack's topic, with a registry that is whole.
    pub(super) async fn start(stack: &Stack) -> Self {
        let till = Self::start_with(stack, &[]).await;
        till.reconcile().await;
        till
    }

    /// Starts it with settings that go before the stack's.
    pub(super) async fn start_with(stack: &Stack, settings: &[(&str, &str)]) -> Self {
        let rules = std::env::temp_dir().join(format!(
            "rules-{}-{}.yaml",
            stack.name(),
            uuid::Uuid::new_v4().simple()
        ));
        std::fs::write(&rules, RULES).unwrap();
        let group = format!("{}.quota", stack.name());
        let rules_path = rules.to_string_lossy().into_owned();
        let own = stack.settings();
        let own = own.iter().map(|(name, value)| (*name, value.as_str()));
        let more = [
            ("OPENMETER_QUOTA_RULES", &*rules_path),
            ("OPENMETER_QUOTA_KAFKA_GROUP", &group),
            ("OPENMETER_QUOTA_BATCH_WAIT", "5ms"),
            ("OPENMETER_ADMIN_TOKEN", TOKEN),
        ];
        let env = Env::from_pairs(own.chain(more).chain(settings.iter().copied()));
        let app = quota::app(&env).unwrap().trigger(Trigger::Kafka);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (mut functions, stop) = (JoinSet::new(), CancellationToken::new());
        let running = Box::pin(runtime::run(listener, app, stop.clone().cancelled_owned()));
        functions.spawn(running);
        Self {
            url,
            functions,
            stop,
            rules,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(function) = self.functions.join_next().await {
            function.unwrap().unwrap();
        }
        std::fs::remove_file(&self.rules).unwrap();
    }

    /// Asks for a path, and returns the status, the headers that a gateway reads, and the body.
    pub(super) async fn get(&self, path: &str) -> Seen {
        Seen::of(self.http.get(format!("{}{path}", self.url))).await
    }

    /// Checks a subject.
    pub(super) async fn check(&self, subject: &str) -> Seen {
        self.get(&format!("/api/v1/quota/{subject}/check")).await
    }

    /// Grants credits under an idempotency key.
    pub(super) async fn grant(&self, subject: &str, key: &str, amount: &str) -> Answer {
        let request = self
            .http
            .post(format!("{}/api/v1/quota/{subject}/grants", self.url))
            .bearer_auth(TOKEN)
            .header("idempotency-key", key)
            .json(&json!({ "amount": amount }));
        Answer::to(request).await.unwrap()
    }

    /// Sends a request with a JSON body.
    pub(super) async fn send(&self, method: &str, path: &str, body: &Value) -> Seen {
        let method = method.parse().unwrap();
        let request = self.http.request(method, format!("{}{path}", self.url));
        Seen::of(request.bearer_auth(TOKEN).json(body)).await
    }

    /// Gives it other rules, which it reads within a second or so.
    pub(super) fn change_rules(&self, from: &str, to: &str) {
        assert_eq!(RULES.matches(from).count(), 1, "{from}");
        std::fs::write(&self.rules, RULES.replace(from, to)).unwrap();
    }

    /// Does what the PingSource does.
    pub(super) async fn reconcile(&self) {
        let answer = self.send("POST", "/reconcile", &Value::Null).await;
        assert_eq!(answer.line(), "204 - -", "{}", answer.body);
    }

    /// The balance, or why there is none.
    pub(super) async fn balance(&self, subject: &str) -> String {
        let shown = self.get(&format!("/api/v1/quota/{subject}")).await;
        let body: Value = serde_json::from_str(&shown.body).unwrap();
        let balance = body["balance"].as_str();
        balance.map_or_else(|| shown.status.to_string(), str::to_owned)
    }

    /// Waits until the balance is this.
    pub(super) async fn wait_for_balance(&self, subject: &str, wanted: &str) {
        let until = Instant::now() + WITHIN;
        loop {
            let balance = self.balance(subject).await;
            if balance == wanted {
                return;
            }
            assert!(
                Instant::now() < until,
                "{subject} has {balance}, not {wanted}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// An answer as a gateway sees it.
pub(super) struct Seen {
    pub(super) status: u16,
    quota_status: String,
    remaining: String,
    pub(super) body: String,
}

impl Seen {
    pub(super) async fn of(request: reqwest::RequestBuilder) -> Self {
        let answer = request.send().await.unwrap();
        let header = |name: &str| {
            let value = answer.headers().get(name);
            value
                .map_or("-", |value| value.to_str().unwrap())
                .to_owned()
        };
        Self {
            status: answer.status().as_u16(),
            quota_status: header("x-quota-status"),
            remaining: header("x-quota-remaining"),
            body: answer.text().await.unwrap(),
        }
    }

    /// Status, X-Quota-Status and X-Quota-Remaining.
    pub(super) fn line(&self) -> String {
        format!("{} {} {}", self.status, self.quota_status, self.remaining)
    }
}

/// A call that was made just now: 1 credit and 0.0000005 for each millisecond.
pub(super) fn call(id: &str, subject: &str, ms: u64) -> Value {
    crate::support::call(id, subject, &Timestamp::now().to_string(), ms)
}
