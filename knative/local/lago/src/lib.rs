//! A stand-in for Lago, for laptops and tests where Lago cannot run. Production uses Lago.
//!
//! It answers as much of Lago's API as OpenMeter for Knative uses, keeps everything in memory,
//! and has an API of its own (`/stand-in`) by which a test ends a period, moves the clock,
//! orders faults and looks at all units. README.md says what is imitated and what is not.
//!
//! Layout:
//! - [`Settings`], [`StandIn`]: what is set, and the running whole
//! - `routes`, `gate`, `admin`: Lago's API, what each request passes, and the stand-in's own API
//! - `answers`, `fields`: refusals, lists, and the fields of a body
//! - `events`, `usage`: events, both stores, and what is counted where
//! - `metrics`, `subscriptions`, `invoices`: what units cost, whose they are, and bills
//! - `wallets`, `transactions`: prepaid credits
//! - `webhooks`: receivers, signatures and deliveries
//! - `faults`, `limits`: what goes wrong, by order and by haste
//! - `money`, `time`, `id`: exact numbers, times and ids as Lago writes them

mod admin;
mod answers;
mod events;
mod faults;
mod fields;
mod gate;
mod id;
mod invoices;
mod limits;
mod metrics;
mod money;
mod organization;
mod routes;
mod server;
mod settings;
mod subscriptions;
mod time;
mod transactions;
mod usage;
mod wallets;
mod webhooks;

pub use faults::{Fault, FaultKind};
pub use invoices::InvoiceOrder;
pub use server::StandIn;
pub use settings::{EventStore, RateLimits, Settings};
pub use usage::{Uncounted, UnitsRow};
