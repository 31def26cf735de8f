//! Grants of credits, and how accounts stood at some instants.

use clickhouse::Row;
use model::Credits;
use serde::Deserialize;

use crate::{connection::Store, error::StoreError, row_binary::Block, subjects::Subjects};

/// Credits that were given to a subject. Grants of equal subject and id are one grant; the
/// one stored last is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who has them.
    pub subject: String,
    /// Which of the subject's grants it is.
    pub id: String,
    /// How many.
    pub amount: Credits,
    /// What for, in the words of whoever gave them.
    pub note: String,
    /// When they were given, in microseconds since 1970.
    pub granted_at: i64,
}

/// An account as it was at some instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Whose it is.
    pub subject: String,
    /// When that was, in microseconds since 1970.
    pub at: i64,
    /// Granted less debited.
    pub balance: Credits,
    /// Set aside by holds.
    pub held: Credits,
    /// How far below zero the balance may go; `None`: without end.
    pub limit: Option<Credits>,
}

const GRANT_COLUMNS: [(&str, &str); 5] = [
    ("subject", "String"),
    ("id", "String"),
    ("amount", "Decimal(18, 6)"),
    ("note", "String"),
    ("granted_at", "DateTime64(6, 'UTC')"),
];

const BALANCE_COLUMNS: [(&str, &str); 5] = [
    ("subject", "String"),
    ("at", "DateTime64(6, 'UTC')"),
    ("balance", "Decimal(18, 6)"),
    ("held", "Decimal(18, 6)"),
    ("limit", "Nullable(Decimal(18, 6))"),
];

#[derive(Row, Deserialize)]
struct GrantAnswer {
    subject: String,
    id: String,
    credits: String,
    note: String,
    granted: i64,
}

#[derive(Row, Deserialize)]
struct Clock {
    now: i64,
}

impl Store {
    /// Returns what time it is by the server's clock, in microseconds since 1970: that by
    /// which rows are inserted and grants stored.
    pub async fn clock(&self) -> Result<i64, StoreError> {
        const WHAT: &str = "read the clock";
        let query = self.ask("SELECT toUnixTimestamp64Micro(now64(6)) AS now");
        let rows = self.rows::<Clock>(WHAT, query).await?;
        let row = rows.first();
        row.map(|clock| clock.now)
            .ok_or_else(|| StoreError::unreadable(WHAT, "no time"))
    }

    /// Stores a grant. Storing it again is harmless.
    pub async fn insert_grant(&self, grant: &Grant) -> Result<(), StoreError> {
        let rows = std::slice::from_ref(grant);
        self.insert(
            "insert a grant",
            "grants",
            &GRANT_COLUMNS,
            rows,
            Grant::write,
        )
        .await
    }

    /// Returns the grants of these subjects that were stored at `stored_since` or later
    /// (microseconds since 1970, the server's clock), or ever, by subject, then id.
    pub async fn grants(
        &self,
        subjects: Subjects<'_>,
        stored_since: Option<i64>,
    ) -> Result<Vec<Grant>, StoreError> {
        const WHAT: &str = "read grants";
        let mut grants = Vec::new();
        for of_subjects in subjects.terms() {
            let sql = format!(
                "SELECT subject, id, toString(amount) AS credits, note, \
                    toUnixTimestamp64Micro(granted_at) AS granted \
                 FROM grants FINAL \
                 WHERE {of_subjects} \
                   AND stored_at >= fromUnixTimestamp64Micro({{since:Int64}}, 'UTC') \
                 ORDER BY subject, id"
            );
            let query = self.ask(&sql).param("since", stored_since.unwrap_or(0));
            for answer in self.rows::<GrantAnswer>(WHAT, query).await? {
                grants.push(answer.grant(WHAT)?);
            }
        }
        Ok(grants)
    }

    /// Returns everyone who was ever granted something, sorted.
    pub async fn granted_subjects(&self) -> Result<Vec<String>, StoreError> {
        let query = self.ask("SELECT DISTINCT subject AS name FROM grants ORDER BY name");
        self.names("list who was granted something", query).await
    }

    /// Stores these accounts as they were.
    pub async fn insert_balances(&self, rows: &[Snapshot]) -> Result<(), StoreError> {
        self.insert(
            "insert balances",
            "balances",
            &BALANCE_COLUMNS,
            rows,
            Snapshot::write,
        )
        .await
    }
}

impl Grant {
    fn write(&self, block: &mut Block) {
        block.text(&self.subject);
        block.text(&self.id);
        block.credits(self.amount);
        block.text(&self.note);
        block.fixed(self.granted_at.to_le_bytes());
    }
}

impl Snapshot {
    fn write(&self, block: &mut Block) {
        block.text(&self.subject);
        block.fixed(self.at.to_le_bytes());
        block.credits(self.balance);
        block.credits(self.held);
        block.fixed([u8::from(self.limit.is_none())]);
        if let Some(limit) = self.limit {
            block.credits(limit);
        }
    }
}

impl GrantAnswer {
    fn grant(self, what: &'static str) -> Result<Grant, StoreError> {
        let amount = self.credits.parse();
        Ok(Grant {
            subject: self.subject,
            id: self.id,
            amount: amount.map_err(|error| StoreError::unreadable(what, error))?,
            note: self.note,
            granted_at: self.granted,
        })
    }
}
