//! `quota`: prepaid credits. Debits what events cost, says whether a subject may call, and keeps
//! accounts and books equal.
//!
//! Layout:
//! - [`app`], [`Config`]: the function as it is served
//! - `debit`: the stream of events, by push, by pull or from Lambda
//! - `check`: may this subject make a call?
//! - `books`, `reconcile`: accounts told from what ClickHouse knows
//! - `grants`, `thresholds`, `show`: credits given, announced as used, and shown
//! - `routes`: HTTP in and out

mod books;
mod check;
mod config;
mod debit;
mod grants;
mod reconcile;
mod routes;
mod show;
mod thresholds;

use anyhow::Context as _;
use ledger::{Accounts, Ledger, LedgerConfig, Registry};
use runtime::{App, Env, Meters, Rules};
use store::Store;

use crate::{
    books::Books, check::Checker, debit::Debits, grants::Grants, reconcile::Reconcile,
    routes::Quota, thresholds::Thresholds,
};

pub use check::WhenAway;
pub use config::Config;

/// Returns the function as `env` configures it.
pub fn app(env: &Env) -> anyhow::Result<App> {
    build(Config::from_env(env)?)
}

/// Returns the function as it is configured.
pub fn build(config: Config) -> anyhow::Result<App> {
    let meters = Meters::open(&config.meters)?;
    let rules = Rules::open(&config.rules, &meters)?;
    let ledger = Ledger::new(&config.ledger).context("connect to valkey")?;
    // A connection of its own: a batch of debits would have checks wait.
    let quick = Ledger::new(&LedgerConfig {
        timeout: config.check_timeout,
        ..config.ledger
    })
    .context("connect to valkey")?;
    let store = Store::connect(config.store);
    let accounts = Accounts::new(ledger.clone());
    let thresholds = Thresholds::new(&config.thresholds, config.broker, accounts.clone());
    let registry = Registry::new(ledger, config.registry);
    let debits = Debits::new(
        meters,
        rules.clone(),
        registry.clone(),
        accounts.clone(),
        thresholds.clone(),
    );
    let books = Books::new(store, accounts, rules);
    let reconcile = Reconcile::new(books.clone(), registry, thresholds);
    let checker = Checker::new(
        Accounts::new(quick),
        config.check_timeout,
        books.clone(),
        reconcile.clone(),
        config.when_away,
    );
    let quota = Quota {
        grants: Grants::new(books.clone(), checker.clone(), reconcile.clone()),
        books,
        checker,
        reconcile,
        subject_header: config.subject_header,
        admin_token: config.admin_token,
    };
    // Ready without any engine: while one is away, checks are answered as configured.
    delivery::app(debits, config.delivery, routes::routes(quota))
}
