//! The words and the arithmetic of usage metering: no I/O, no async, no clock.
//!
//! Layout:
//! - [`UsageEvent`], [`Identity`], [`Content`]: one event, who it is and what it says
//! - [`Claim`], [`Seen`], [`Verdict`]: which delivery of an identity is counted
//! - [`History`]: what the store remembers of counted events
//! - [`Catalog`], [`Meter`], [`Aggregation`]: the meters, read from YAML
//! - [`Applied`], [`Usage`], [`Invalid`]: what an event adds to each meter, or why not
//! - [`Prepared`]: one event with the meters applied: what it claims and what it would add
//! - [`Decimal`], [`Total`]: exact values and sums
//! - [`Window`], [`WindowSize`], [`MeterQuery`], [`UsageRow`]: questions and answers
//! - [`QuotaRules`], [`PriceList`], [`Policies`]: what usage costs and who may overdraw, from YAML
//! - [`Credits`]: what is charged and held, exact to 10^-6
//! - [`parse_json`]: JSON from strangers
//! - [`WantedSetting`], [`Password`]: what the shared crates ask of an environment that they do not know

mod apply;
mod catalog;
mod credits;
mod decimal;
mod event;
mod history;
mod identity;
mod json;
mod meter;
mod mistakes;
mod path;
mod policy;
mod prepared;
mod price;
mod quota_rules;
mod usage;
mod wanted;
mod window;

pub use apply::{Applied, Invalid, Usage, is_countable, kept_time};
pub use catalog::{Catalog, CatalogError};
pub use credits::{Credits, CreditsError};
pub use decimal::{Decimal, DecimalError, SCALE, Total};
pub use event::{Content, Identity, Payload, UsageEvent, is_json_media_type, micros};
pub use history::{History, SeenPage};
pub use identity::{Claim, Seen, Verdict};
pub use json::parse_json;
pub use meter::{Aggregation, GroupBy, Meter, SUBJECT};
pub use path::{DataPath, PathError};
pub use policy::{Policies, Policy};
pub use prepared::Prepared;
pub use price::{EventPrice, PriceError, PriceList, PriceSpan};
pub use quota_rules::{QuotaRules, QuotaRulesError};
pub use usage::{MeterQuery, UsageRow};
pub use wanted::{Password, WantedSetting};
pub use window::{UnknownWindowSize, Window, WindowSize};
