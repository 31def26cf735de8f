//! The stand-in as a whole: it listens, delivers, and its clock ticks.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::Client;
use serde_json::Value;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};

use crate::{
    answers::Refusal,
    faults::{Fault, FaultKind},
    invoices::InvoiceOrder,
    organization::Organization,
    routes,
    settings::{EventStore, Settings},
    usage::UnitsRow,
    webhooks,
};

/// How often what is due is done.
const TICK: Duration = Duration::from_secs(1);

/// What all requests share.
pub(crate) struct Lago {
    organization: Mutex<Organization>,
}

impl Lago {
    pub(crate) fn organization(&self) -> MutexGuard<'_, Organization> {
        let organization = self.organization.lock();
        // A request that panicked is a failed test already.
        organization.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn advance(&self, by: Duration) {
        let mut organization = self.organization();
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        organization.ahead = organization.ahead.saturating_add(by);
        organization.tick();
    }

    pub(crate) fn order(&self, fault: Fault) -> Result<(), Refusal> {
        let mut organization = self.organization();
        let half = fault.kind == FaultKind::HalfBatch;
        if half && organization.settings.event_store == EventStore::Postgres {
            return Err(Refusal::field("kind", "value_is_invalid"));
        }
        organization.faults.order(fault);
        Ok(())
    }

    pub(crate) async fn webhooks_idle(&self) {
        let mut under_way = self.organization().under_way.subscribe();
        // The sender lives as long as the organization.
        let _ended = under_way.wait_for(|count| *count == 0).await;
    }
}

/// A running stand-in; dropped, it ends.
pub struct StandIn {
    lago: Arc<Lago>,
    address: SocketAddr,
    tasks: JoinSet<()>,
}

impl StandIn {
    /// Listens and serves in tasks of the running runtime.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(mut settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        settings.listen = address;
        let timeout = Duration::from_millis(settings.webhook_timeout_ms);
        let client = Client::builder().no_proxy().timeout(timeout).build();
        let client = client.map_err(io::Error::other)?;
        let (deliveries, queue) = mpsc::unbounded_channel();
        let organization = Mutex::new(Organization::new(settings, deliveries));
        let lago = Arc::new(Lago { organization });
        let mut tasks = JoinSet::new();
        let router = routes::router(&lago);
        tasks.spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!("lago-stand-in: {error}");
            }
        });
        tasks.spawn(webhooks::deliver(Arc::clone(&lago), client, queue));
        tasks.spawn(tick(Arc::clone(&lago)));
        Ok(Self {
            lago,
            address,
            tasks,
        })
    }

    /// Serves until it ends by itself, which it does only when something is wrong.
    pub async fn ended(mut self) {
        self.tasks.join_next().await;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a client is given as Lago's address, without `/api/v1`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Orders a fault.
    ///
    /// # Errors
    /// With the refusal, for half a batch in Postgres's store, where there is none.
    pub fn fault(&self, fault: Fault) -> Result<(), String> {
        self.lago
            .order(fault)
            .map_err(|refusal| format!("{refusal:?}"))
    }

    /// Ends a period and so makes its invoice, which is final at once where there is no grace.
    ///
    /// # Errors
    /// With the refusal, when there is no such subscription or nothing left to bill.
    pub fn invoice(&self, order: &InvoiceOrder) -> Result<Value, String> {
        let answer = self.lago.organization().order_invoice(order);
        let answer = answer.map_err(|refusal| format!("{refusal:?}"))?;
        Ok(answer.0["invoice"].clone())
    }

    /// Every unit that was ever accepted, by subscription and metric.
    pub fn units(&self) -> Vec<UnitsRow> {
        self.lago.organization().units()
    }

    /// Moves the clock ahead and does what is due by then.
    pub fn advance(&self, by: Duration) {
        self.lago.advance(by);
    }

    /// Waits until no webhook is under way.
    pub async fn webhooks_idle(&self) {
        self.lago.webhooks_idle().await;
    }
}

async fn tick(lago: Arc<Lago>) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        lago.organization().tick();
    }
}
