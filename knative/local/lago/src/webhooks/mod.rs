//! Webhooks: who gets them, and what has become of each.

mod deliver;
mod sign;

use axum::Json;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    answers::{Answer, Params, Refusal, page},
    faults::FaultKind,
    fields::Fields,
    id::LagoId,
    organization::Organization,
    time::{self, Millis},
};

pub(crate) use deliver::deliver;
use sign::Algorithm;
pub(crate) use sign::{in_lines, public_key_pem};

/// Receivers in one organization.
const MOST_ENDPOINTS: usize = 10;

/// A receiver of webhooks.
pub(crate) struct Endpoint {
    lago_id: LagoId,
    url: String,
    algorithm: Algorithm,
    name: Option<String>,
    /// `None`: all.
    event_types: Option<Vec<String>>,
    created_at: Millis,
}

impl Endpoint {
    fn view(&self) -> Value {
        json!({
            "lago_id": self.lago_id,
            "webhook_url": self.url,
            "signature_algo": self.algorithm.name(),
            "name": self.name,
            "event_types": self.event_types,
            "created_at": time::iso(self.created_at),
        })
    }

    fn wants(&self, webhook_type: &str) -> bool {
        let types = self.event_types.as_ref();
        types.is_none_or(|types| types.iter().any(|wanted| wanted == webhook_type))
    }
}

/// What has become of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Pending,
    Succeeded,
    Failed,
    /// A fault: it never goes out.
    Dropped,
    /// A fault: it waits for another one to go first.
    Held,
}

#[derive(Clone, Serialize)]
pub(crate) struct Webhook {
    /// X-Lago-Unique-Key.
    key: LagoId,
    endpoint: LagoId,
    webhook_type: String,
    status: Status,
    /// How often it was sent.
    attempts: u32,
    #[serde(skip)]
    attempt: Attempt,
}

/// What goes over the wire, the same at every attempt.
#[derive(Clone)]
pub(crate) struct Attempt {
    key: LagoId,
    url: String,
    body: String,
    algorithm: Algorithm,
    signature: String,
    /// 2 by a fault.
    copies: u32,
}

impl Organization {
    pub(crate) fn create_endpoint(&mut self, body: &Value) -> Answer {
        let mut fields = Fields::of(body, "webhook_endpoint")?;
        let url = fields.required("webhook_url");
        if !url.is_empty() && reqwest::Url::parse(&url).is_err() {
            fields.refuse("webhook_url", "url_invalid");
        }
        if self.endpoints.iter().any(|one| one.url == url) {
            fields.refuse("webhook_url", "value_already_exist");
        }
        if self.endpoints.len() >= MOST_ENDPOINTS {
            fields.refuse("base", "exceeded_limit");
        }
        let algorithm = match fields.text("signature_algo").as_deref() {
            None | Some("jwt") => Algorithm::Jwt,
            Some("hmac") => Algorithm::Hmac,
            Some(_) => {
                fields.refuse("signature_algo", "value_is_invalid");
                Algorithm::Jwt
            }
        };
        let event_types = fields.value("event_types").and_then(Value::as_array);
        let event_types = event_types.map(|types| {
            let texts = types.iter().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        });
        let name = fields.text("name");
        fields.finish()?;
        let endpoint = Endpoint {
            lago_id: LagoId::new(),
            url,
            algorithm,
            name,
            event_types,
            created_at: self.now(),
        };
        let view = endpoint.view();
        self.endpoints.push(endpoint);
        Ok(Json(json!({ "webhook_endpoint": view })))
    }

    pub(crate) fn list_endpoints(&self, params: &Params) -> Answer {
        let rows = self.endpoints.iter().map(Endpoint::view).collect();
        page("webhook_endpoints", rows, params)
    }

    pub(crate) fn delete_endpoint(&mut self, id: &str) -> Answer {
        let place = self
            .endpoints
            .iter()
            .position(|one| one.lago_id.to_string() == id);
        let place = place.ok_or(Refusal::NotFound("webhook_endpoint"))?;
        let endpoint = self.endpoints.remove(place);
        Ok(Json(json!({ "webhook_endpoint": endpoint.view() })))
    }

    /// Tells every receiver that wants this type.
    pub(crate) fn announce(&mut self, webhook_type: &str, object_type: &str, object: &Value) {
        let body = json!({
            "webhook_type": webhook_type,
            "object_type": object_type,
            "organization_id": self.id,
            object_type: object,
        })
        .to_string();
        for place in 0..self.endpoints.len() {
            if self.endpoints[place].wants(webhook_type) {
                self.post(place, webhook_type, &body);
            }
        }
    }

    fn post(&mut self, endpoint: usize, webhook_type: &str, body: &str) {
        let fault = self.faults.of_webhook(webhook_type);
        let endpoint = &self.endpoints[endpoint];
        let signed = match fault {
            Some(FaultKind::ForgeWebhook) => "{}",
            _ => body,
        };
        let issuer = format!("http://{}", self.settings.listen);
        let signature = endpoint
            .algorithm
            .sign(signed, &self.settings.hmac_key, &issuer);
        let key = LagoId::new();
        let status = match fault {
            Some(FaultKind::DropWebhook) => Status::Dropped,
            Some(FaultKind::HoldWebhook) => Status::Held,
            _ => Status::Pending,
        };
        let attempt = Attempt {
            key,
            url: endpoint.url.clone(),
            body: body.to_owned(),
            algorithm: endpoint.algorithm,
            signature,
            copies: if fault == Some(FaultKind::DuplicateWebhook) {
                2
            } else {
                1
            },
        };
        self.webhooks.push(Webhook {
            key,
            endpoint: endpoint.lago_id,
            webhook_type: webhook_type.to_owned(),
            status,
            attempts: 0,
            attempt: attempt.clone(),
        });
        if status == Status::Pending {
            self.send(attempt);
        }
    }

    fn send(&mut self, attempt: Attempt) {
        // Nobody takes it only when the stand-in ends.
        if self.deliveries.send(attempt).is_ok() {
            self.under_way.send_modify(|count| *count += 1);
        }
    }

    /// Notes how a delivery ended, and lets go what was held for it.
    fn delivered(&mut self, key: LagoId, attempts: u32, status: Status) {
        let place = self.webhooks.iter().position(|one| one.key == key);
        if let Some(place) = place {
            self.webhooks[place].attempts += attempts;
            self.webhooks[place].status = status;
            let endpoint = self.webhooks[place].endpoint;
            self.release(|held| held.endpoint == endpoint);
        }
        self.under_way.send_modify(|count| *count -= 1);
    }

    fn release(&mut self, which: impl Fn(&Webhook) -> bool) {
        for place in 0..self.webhooks.len() {
            let held = &mut self.webhooks[place];
            if held.status == Status::Held && which(held) {
                held.status = Status::Pending;
                let attempt = held.attempt.clone();
                self.send(attempt);
            }
        }
    }

    /// Lets go what is held.
    pub(crate) fn release_all(&mut self) {
        self.release(|_| true);
    }

    /// Sends a webhook once more, as one does by hand in Lago: the same key and body.
    pub(crate) fn resend(&mut self, key: &str) -> Answer {
        let place = self
            .webhooks
            .iter()
            .position(|one| one.key.to_string() == key);
        let place = place.ok_or(Refusal::NotFound("webhook"))?;
        self.webhooks[place].status = Status::Pending;
        let attempt = self.webhooks[place].attempt.clone();
        self.send(attempt);
        Ok(Json(json!({ "webhook": self.webhooks[place] })))
    }

    pub(crate) fn list_webhooks(&self, params: &Params) -> Answer {
        let rows = self.webhooks.iter().map(|one| {
            let mut row = json!(one);
            row["body"] = json!(one.attempt.body);
            row
        });
        page("webhooks", rows.collect(), params)
    }
}
