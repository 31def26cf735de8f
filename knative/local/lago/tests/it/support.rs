//! A stand-in in a test, a client of it, and a receiver of webhooks.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode};
use lago_stand_in::{Settings, StandIn};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub(crate) struct Lago {
    pub(crate) stand_in: StandIn,
    pub(crate) client: Client,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// The body of a success.
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    /// The error_details of a 422.
    pub(crate) fn details(self) -> Value {
        assert_eq!(self.status, 422, "{}", self.body);
        assert_eq!(self.body["error"], "Unprocessable Entity");
        assert_eq!(self.body["code"], "validation_errors");
        self.body["error_details"].clone()
    }
}

pub(crate) async fn lago() -> Lago {
    lago_with(Settings::for_test()).await
}

pub(crate) async fn lago_with(settings: Settings) -> Lago {
    Lago {
        stand_in: StandIn::start(settings).await.unwrap(),
        client: Client::builder().no_proxy().build().unwrap(),
    }
}

impl Lago {
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let key = Settings::default().api_key;
        let url = format!("{}{path}", self.stand_in.url());
        let mut request = self.client.request(method, url).bearer_auth(key);
        if let Some(body) = body {
            request = request.json(body);
        }
        answer(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, &format!("/api/v1{path}"), None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, &format!("/api/v1{path}"), Some(body))
            .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::PUT, &format!("/api/v1{path}"), Some(body))
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, &format!("/api/v1{path}"), None)
            .await
    }

    /// Asks the stand-in's own API.
    pub(crate) async fn order(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, &format!("/stand-in{path}"), Some(body))
            .await
    }

    pub(crate) async fn batch(&self, events: &[Value]) -> Answer {
        self.post("/events/batch", &json!({ "events": events }))
            .await
    }

    /// A customer `bank` with a subscription `tpp` since 2026-01-01, two metrics (a sum for 2
    /// cents a unit and a count for 50) and one that the plan has no price for.
    pub(crate) async fn sells(&self) {
        let mut ids = Vec::new();
        for (code, aggregation) in [
            ("api_calls", "sum_agg"),
            ("logins", "count_agg"),
            ("free", "sum_agg"),
        ] {
            let metric = json!({ "billable_metric": {
                "code": code, "name": code, "aggregation_type": aggregation, "field_name": "value",
            }});
            let metric = self.post("/billable_metrics", &metric).await.ok();
            ids.push(metric["billable_metric"]["lago_id"].clone());
        }
        let charge = |id: &Value, amount: &str| {
            json!({
                "billable_metric_id": id,
                "charge_model": "standard",
                "properties": { "amount": amount },
            })
        };
        let plan = json!({ "plan": {
            "code": "usage", "name": "Usage", "interval": "monthly",
            "amount_cents": 0, "amount_currency": "EUR",
            "charges": [charge(&ids[0], "0.02"), charge(&ids[1], "0.5")],
        }});
        self.post("/plans", &plan).await.ok();
        let customer = json!({ "customer": { "external_id": "bank", "currency": "EUR" } });
        self.post("/customers", &customer).await.ok();
        self.subscribes("tpp", "2026-01-01T00:00:00Z", None).await;
    }

    pub(crate) async fn subscribes(&self, id: &str, from: &str, ending: Option<&str>) -> Value {
        let subscription = json!({ "subscription": {
            "external_customer_id": "bank", "plan_code": "usage", "external_id": id,
            "subscription_at": from, "ending_at": ending,
        }});
        let made = self.post("/subscriptions", &subscription).await.ok();
        made["subscription"].clone()
    }

    /// A wallet of `bank` with these credits, a euro each; returns its id.
    pub(crate) async fn wallet(&self, granted: &str) -> String {
        let wallet = json!({ "wallet": {
            "external_customer_id": "bank", "currency": "EUR", "rate_amount": "1",
            "granted_credits": granted,
        }});
        let made = self.post("/wallets", &wallet).await.ok();
        made["wallet"]["lago_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn wallet_now(&self, id: &str) -> Value {
        self.get(&format!("/wallets/{id}")).await.ok()["wallet"].clone()
    }

    pub(crate) async fn transactions(&self, wallet: &str) -> Vec<Value> {
        let path = format!("/wallets/{wallet}/wallet_transactions");
        let list = self.get(&path).await.ok();
        list["wallet_transactions"].as_array().unwrap().clone()
    }
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer {
        status,
        headers,
        body,
    }
}

/// An event of `tpp` at this second of 2026-01-10.
pub(crate) fn event(id: &str, code: &str, value: &str, second: i64) -> Value {
    json!({
        "transaction_id": id,
        "external_subscription_id": "tpp",
        "code": code,
        "timestamp": 1_768_003_200 + second,
        "properties": { "value": value },
    })
}

/// What a receiver of webhooks got, and what it answers.
#[derive(Clone, Default)]
pub(crate) struct Receiver {
    got: Arc<Mutex<Vec<Received>>>,
    /// Statuses of the next answers; 200 when there is none.
    answers: Arc<Mutex<Vec<u16>>>,
}

#[derive(Clone)]
pub(crate) struct Received {
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Received {
    pub(crate) fn body(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

impl Receiver {
    /// Listens, and has itself registered with this algorithm.
    pub(crate) async fn of(lago: &Lago, algorithm: &str) -> Self {
        let receiver = Self::default();
        let routes = Router::new().fallback(receive).with_state(receiver.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let endpoint = json!({ "webhook_endpoint": {
            "webhook_url": url, "signature_algo": algorithm,
        }});
        lago.post("/webhook_endpoints", &endpoint).await.ok();
        receiver
    }

    pub(crate) fn answers(&self, statuses: &[u16]) {
        *self.answers.lock().unwrap() = statuses.iter().rev().copied().collect();
    }

    /// What came by the time that nothing is under way any more; empties the list.
    pub(crate) async fn take(&self, lago: &Lago) -> Vec<Received> {
        lago.stand_in.webhooks_idle().await;
        std::mem::take(&mut self.got.lock().unwrap())
    }

    /// As [`Receiver::take`], the types in order of the alphabet.
    pub(crate) async fn types(&self, lago: &Lago) -> Vec<String> {
        let got = self.take(lago).await;
        let types = got
            .iter()
            .map(|one| one.body()["webhook_type"].as_str().unwrap().to_owned());
        let mut types: Vec<_> = types.collect();
        types.sort();
        types
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = String::from_utf8(body.to_vec()).unwrap();
    receiver
        .got
        .lock()
        .unwrap()
        .push(Received { headers, text });
    let status = receiver.answers.lock().unwrap().pop().unwrap_or(200);
    StatusCode::from_u16(status).unwrap()
}
