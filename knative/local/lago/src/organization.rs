//! Everything of the one organization, in memory. A request holds it alone while it works.

use tokio::sync::{mpsc, watch};

use crate::{
    events::Events,
    faults::Faults,
    id::LagoId,
    invoices::Invoice,
    limits::Limiter,
    metrics::{Metric, Plan},
    settings::Settings,
    subscriptions::{Customer, Subscription},
    time::{self, Millis},
    transactions::Transaction,
    wallets::Wallet,
    webhooks::{Attempt, Endpoint, Webhook},
};

/// How often Lago refreshes ongoing balances, with a premium licence.
const REFRESH_EVERY: Millis = 300_000;

pub(crate) struct Organization {
    pub(crate) settings: Settings,
    pub(crate) id: LagoId,
    /// How far this organization's clock is ahead of the system's.
    pub(crate) ahead: Millis,
    pub(crate) refreshed_at: Millis,
    pub(crate) customers: Vec<Customer>,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) plans: Vec<Plan>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) events: Events,
    pub(crate) invoices: Vec<Invoice>,
    pub(crate) wallets: Vec<Wallet>,
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) webhooks: Vec<Webhook>,
    pub(crate) faults: Faults,
    pub(crate) limiter: Limiter,
    /// To whoever delivers webhooks.
    pub(crate) deliveries: mpsc::UnboundedSender<Attempt>,
    /// Webhooks that are under way.
    pub(crate) under_way: watch::Sender<usize>,
}

impl Organization {
    /// An organization with nothing in it.
    pub(crate) fn new(settings: Settings, deliveries: mpsc::UnboundedSender<Attempt>) -> Self {
        Self {
            id: LagoId::new(),
            ahead: 0,
            refreshed_at: time::system_now(),
            customers: Vec::new(),
            metrics: Vec::new(),
            plans: Vec::new(),
            subscriptions: Vec::new(),
            events: Events::new(settings.event_store),
            invoices: Vec::new(),
            wallets: Vec::new(),
            transactions: Vec::new(),
            endpoints: Vec::new(),
            webhooks: Vec::new(),
            faults: Faults::default(),
            limiter: Limiter::new(settings.rate_limits),
            deliveries,
            under_way: watch::Sender::new(0),
            settings,
        }
    }

    /// Forgets everything but its settings and its clock.
    pub(crate) fn reset(&mut self) {
        let mut new = Self::new(self.settings.clone(), self.deliveries.clone());
        new.id = self.id;
        new.ahead = self.ahead;
        // Those under way are counted down when they end, whoever remembers them.
        new.under_way = self.under_way.clone();
        *self = new;
    }

    pub(crate) fn now(&self) -> Millis {
        time::system_now().saturating_add(self.ahead)
    }

    /// What Lago's clock does now and then: ends the grace of drafts and the life of expired
    /// wallets, and refreshes ongoing balances where the licence allows it.
    pub(crate) fn tick(&mut self) {
        let now = self.now();
        self.finalize_due(now);
        self.terminate_expired(now);
        if self.settings.premium && now - self.refreshed_at >= REFRESH_EVERY {
            self.refreshed_at = now;
            self.refresh_ongoing_balances();
        }
    }
}

/// Writes a time, or null.
pub(crate) fn iso_or_null(at: Option<Millis>) -> Option<String> {
    at.map(time::iso)
}
