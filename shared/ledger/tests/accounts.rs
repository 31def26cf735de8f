//! Credit accounts on a real Valkey (`OPENMETER_VALKEY_URL`, else the local one).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use common::{now, url};
use ledger::{Accounts, Debit, Ledger, LedgerConfig, LedgerError, Outcome, Standing};
use model::Identity;
use proptest::prelude::*;

const MOST: i64 = (1 << 53) - 1;
const LONG: Duration = Duration::from_secs(3600);

/// Accounts of their own on the shared Valkey, and what their keys begin with.
async fn accounts(test: &str) -> (Accounts, String) {
    let prefix = format!("test:{test}:{}:{:x}", std::process::id(), now());
    let config = LedgerConfig {
        url: url(),
        prefix: prefix.clone(),
        timeout: Duration::from_secs(5),
    };
    let ledger = Ledger::new(&config).unwrap();
    ledger.check().await.expect("a Valkey must run: make up");
    let accounts = Accounts::new(ledger);
    accounts.prepare().await.unwrap();
    (accounts, format!("{prefix}:"))
}

fn debit(id: &str, amount: i64) -> Debit {
    Debit {
        identity: Identity::of("gateway", id),
        amount,
        hold: None,
    }
}

#[tokio::test]
async fn a_grant_and_a_debit_count_once_each() {
    let (accounts, _) = accounts("once").await;
    assert!(accounts.credit("tpp", "g", 100).await.unwrap());
    assert!(!accounts.credit("tpp", "g", 100).await.unwrap());
    let twice = [debit("a", 30), debit("b", 5), debit("a", 30)];
    let first = accounts.debit("tpp", 1, &twice).await.unwrap();
    assert_eq!(first.balance, 65);
    let (new, before) = (Outcome::Debited, Outcome::Before);
    assert_eq!(first.outcomes, [new, new, before]);
    let again = accounts.debit("tpp", 1, &twice).await.unwrap();
    assert_eq!((again.balance, again.outcomes), (65, vec![before; 3]));
    let refused = accounts.credit("tpp", "g", 99).await.unwrap_err();
    assert!(matches!(refused, LedgerError::Conflict(_)), "{refused:?}");
    assert!(!refused.is_retryable());
}

#[tokio::test]
async fn what_may_be_spent_depends_on_limit_and_cost() {
    let (accounts, _) = accounts("limits").await;
    let standing = async |subject, cost| {
        let check = accounts.check(subject, cost).await.unwrap();
        (check.allowed, check.remaining, check.standing)
    };
    assert_eq!(standing("tpp", 0).await, (false, 0, Standing::Unknown));
    accounts.credit("tpp", "g", 10).await.unwrap();
    assert_eq!(
        standing("tpp", 0).await,
        (false, 0, Standing::Unknown),
        "nobody said that this is all"
    );
    for (limit, cost, expected) in [
        (Some(0), 0, (true, 10, Standing::Ok)),
        (Some(0), 10, (true, 10, Standing::Ok)),
        (Some(0), 11, (false, 10, Standing::Spent)),
        (Some(5), 15, (true, 15, Standing::Ok)),
        (None, 1000, (true, 10, Standing::Unlimited)),
    ] {
        assert_eq!(accounts.open("tpp", limit).await.unwrap(), 10);
        assert_eq!(standing("tpp", cost).await, expected, "{limit:?} {cost}");
    }
    accounts.debit("tpp", 1, &[debit("a", 25)]).await.unwrap();
    for (limit, expected) in [
        (Some(0), (false, -15, Standing::Spent)),
        (Some(15), (false, 0, Standing::Spent)),
        (Some(16), (true, 1, Standing::Ok)),
        (None, (true, -15, Standing::Unlimited)),
    ] {
        accounts.open("tpp", limit).await.unwrap();
        assert_eq!(standing("tpp", 0).await, expected, "{limit:?}");
    }
    let all = accounts.check_all(&["tpp", "nobody"]).await.unwrap();
    let all: Vec<_> = all.iter().map(|check| check.standing).collect();
    assert_eq!(all, [Standing::Unlimited, Standing::Unknown]);
}

#[tokio::test]
async fn a_hold_ends_by_its_event_by_cancel_and_by_time() {
    let (accounts, _) = accounts("holds").await;
    accounts.credit("tpp", "g", 10).await.unwrap();
    accounts.open("tpp", Some(0)).await.unwrap();
    let remaining = async || accounts.check("tpp", 0).await.unwrap().remaining;
    for _ in 0..2 {
        let held = accounts.hold("tpp", "h1", 6, LONG).await.unwrap();
        assert!(held.allowed, "a hold that is placed twice is one");
        assert_eq!(remaining().await, 4);
    }
    let refused = accounts.hold("tpp", "h2", 5, LONG).await.unwrap();
    assert_eq!(
        (refused.allowed, refused.standing),
        (false, Standing::Spent)
    );
    let named = Debit {
        hold: Some("h1".to_owned()),
        ..debit("a", 5)
    };
    for _ in 0..2 {
        accounts
            .debit("tpp", 1, std::slice::from_ref(&named))
            .await
            .unwrap();
        assert_eq!(remaining().await, 5, "the hold became a debit");
    }
    accounts.hold("tpp", "h3", 2, LONG).await.unwrap();
    let cancelled = accounts.cancel_hold("tpp", "h3").await.unwrap();
    assert_eq!((cancelled.remaining, remaining().await), (5, 5));
    accounts
        .hold("tpp", "h4", 5, Duration::from_millis(100))
        .await
        .unwrap();
    assert!(!accounts.check("tpp", 0).await.unwrap().allowed);
    let over = async {
        while remaining().await != 5 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), over)
        .await
        .unwrap();
    let after = accounts.hold("tpp", "h5", 5, LONG).await.unwrap();
    assert_eq!((after.allowed, after.remaining), (true, 0));
}

#[tokio::test]
async fn a_sealed_day_is_a_total_and_takes_no_debit() {
    let (accounts, _) = accounts("seal").await;
    accounts.credit("tpp", "g", 100).await.unwrap();
    accounts.debit("tpp", 7, &[debit("a", 10)]).await.unwrap();
    accounts.debit("tpp", 8, &[debit("b", 1)]).await.unwrap();
    for total in [12, 12, 15] {
        assert_eq!(accounts.seal("tpp", 7, total).await.unwrap(), 99 - total);
    }
    for day in [6, 7] {
        let late = accounts.debit("tpp", day, &[debit("c", 3)]).await.unwrap();
        assert_eq!((late.balance, late.outcomes), (84, vec![Outcome::Sealed]));
    }
    let open = accounts
        .debit("tpp", 8, &[debit("b", 1), debit("c", 3)])
        .await
        .unwrap();
    assert_eq!(open.outcomes, [Outcome::Before, Outcome::Debited]);
    assert_eq!(open.balance, 81);
}

#[tokio::test]
async fn a_threshold_is_announced_once_and_again_after_a_top_up() {
    let (accounts, _) = accounts("thresholds").await;
    accounts.credit("tpp", "g1", 100).await.unwrap();
    let standing = async || accounts.debit("tpp", 1, &[]).await.unwrap();
    let first = standing().await;
    assert_eq!((first.base, first.topups, first.notified), (100, 1, 0));
    assert!(accounts.notified("tpp", 1, 50).await.unwrap());
    assert!(!accounts.notified("tpp", 1, 50).await.unwrap());
    assert!(accounts.notified("tpp", 1, 80).await.unwrap());
    accounts.credit("tpp", "g2", 50).await.unwrap();
    let second = standing().await;
    assert_eq!((second.base, second.topups, second.notified), (150, 2, 0));
    assert!(
        !accounts.notified("tpp", 1, 100).await.unwrap(),
        "of the last top-up"
    );
    accounts.credit("tpp", "void", -50).await.unwrap();
    assert_eq!(
        standing().await.topups,
        2,
        "what is taken back is no top-up"
    );
}

#[tokio::test]
async fn what_would_pass_two_to_the_fifty_three_changes_nothing() {
    let (accounts, _) = accounts("bounds").await;
    accounts.credit("tpp", "g", MOST).await.unwrap();
    for amount in [1, MOST + 1, i64::MAX, i64::MIN] {
        let error = accounts.credit("tpp", "more", amount).await.unwrap_err();
        assert!(matches!(error, LedgerError::Refused(_)), "{amount}");
    }
    let debits = [debit("a", 5), debit("b", MOST), debit("c", MOST)];
    assert!(accounts.debit("tpp", 1, &debits).await.is_err());
    let after = accounts.debit("tpp", 1, &debits[..1]).await.unwrap();
    assert_eq!(after.balance, MOST - 5);
    assert_eq!(after.outcomes, [Outcome::Debited], "none of it was done");
}

#[tokio::test]
async fn debits_of_any_number_are_taken_in_one_go() {
    let (accounts, _) = accounts("many").await;
    let debits: Vec<_> = (0..2_500).map(|n| debit(&n.to_string(), n)).collect();
    for outcome in [Outcome::Debited, Outcome::Before] {
        let debited = accounts.debit("tpp", 1, &debits).await.unwrap();
        assert_eq!(debited.balance, -2_500 * 2_499 / 2);
        assert_eq!(debited.outcomes, vec![outcome; 2_500]);
    }
}

#[tokio::test]
async fn subjects_with_braces_have_accounts_of_their_own() {
    let (accounts, _) = accounts("braces").await;
    let subjects = ["}", "{", "a}b", "a%7Db", "{a}", "", "ü"];
    for (amount, subject) in (1..).zip(subjects) {
        accounts.credit(subject, "g", amount).await.unwrap();
        accounts.open(subject, Some(0)).await.unwrap();
    }
    for (amount, subject) in (1..).zip(subjects) {
        assert_eq!(accounts.check(subject, 0).await.unwrap().remaining, amount);
    }
}

#[tokio::test]
async fn what_was_lost_is_unknown_until_it_is_told_again() {
    let (accounts, beginning) = accounts("lost").await;
    let tell = async || {
        accounts.credit("tpp", "g", 100).await.unwrap();
        accounts.debit("tpp", 1, &[debit("a", 30)]).await.unwrap();
    };
    tell().await;
    accounts.open("tpp", Some(0)).await.unwrap();
    assert_eq!(accounts.check("tpp", 0).await.unwrap().remaining, 70);
    ledger::testing::forget(&url(), &beginning).await.unwrap();
    // What flows meanwhile is debited, and says nothing of what was there.
    accounts.debit("tpp", 1, &[debit("b", 1)]).await.unwrap();
    assert_eq!(
        accounts.check("tpp", 0).await.unwrap().standing,
        Standing::Unknown
    );
    tell().await;
    assert_eq!(accounts.open("tpp", Some(0)).await.unwrap(), 69);
    assert_eq!(accounts.check("tpp", 0).await.unwrap().remaining, 69);
}

/// One step on an account. Numbers name grants, events and holds.
#[derive(Clone, Debug)]
enum Step {
    Credit(u8, i64),
    Debit(u8, Option<u8>),
    Hold(u8, i64),
    Cancel(u8),
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..6_u8, 1..50_i64).prop_map(|(grant, amount)| Step::Credit(grant, amount)),
        6 => (0..12_u8, proptest::option::of(0..4_u8)).prop_map(|(id, hold)| Step::Debit(id, hold)),
        3 => (0..4_u8, 0..20_i64).prop_map(|(hold, amount)| Step::Hold(hold, amount)),
        1 => (0..4_u8).prop_map(Step::Cancel),
        1 => Just(Step::Forget),
    ]
}

/// What an account is by its definition.
#[derive(Default)]
struct Plain {
    grants: HashMap<u8, i64>,
    debits: HashSet<u8>,
    holds: HashMap<u8, i64>,
}

fn price(id: u8) -> i64 {
    i64::from(id) * 3 - 4
}

impl Plain {
    fn balance(&self) -> i64 {
        let costs: i64 = self.debits.iter().map(|id| price(*id)).sum();
        self.grants.values().sum::<i64>() - costs
    }

    fn remaining(&self) -> i64 {
        self.balance() - self.holds.values().sum::<i64>()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens in whatever order, and however often: an account is its grants less
    /// what each event cost once, less what is held.
    #[test]
    fn an_account_is_what_its_definition_says(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let (accounts, beginning) = accounts("law").await;
            let mut plain = Plain::default();
            let day = |id: u8| i64::from(id % 3);
            accounts.open("s", Some(0)).await.unwrap();
            for step in steps {
                match step {
                    Step::Credit(grant, amount) => {
                        let added = accounts.credit("s", &grant.to_string(), amount).await;
                        match plain.grants.get(&grant) {
                            None => assert!(added.unwrap()),
                            Some(known) if *known == amount => assert!(!added.unwrap()),
                            Some(_) => assert!(added.is_err()),
                        }
                        plain.grants.entry(grant).or_insert(amount);
                    }
                    Step::Debit(id, hold) => {
                        let one = Debit {
                            hold: hold.map(|hold| hold.to_string()),
                            ..debit(&id.to_string(), price(id))
                        };
                        let debited = accounts.debit("s", day(id), &[one]).await.unwrap();
                        let is_new = plain.debits.insert(id);
                        let expected = if is_new { Outcome::Debited } else { Outcome::Before };
                        assert_eq!(debited.outcomes, [expected]);
                        if let Some(hold) = hold {
                            plain.holds.remove(&hold);
                        }
                    }
                    Step::Hold(hold, amount) => {
                        let held = accounts.hold("s", &hold.to_string(), amount, LONG).await.unwrap();
                        let is_held = plain.holds.contains_key(&hold);
                        let fits = plain.remaining() > 0 && plain.remaining() >= amount;
                        assert_eq!(held.allowed, is_held || fits);
                        if !is_held && fits {
                            plain.holds.insert(hold, amount);
                        }
                    }
                    Step::Cancel(hold) => {
                        accounts.cancel_hold("s", &hold.to_string()).await.unwrap();
                        plain.holds.remove(&hold);
                    }
                    Step::Forget => {
                        ledger::testing::forget(&url(), &beginning).await.unwrap();
                        for (grant, amount) in &plain.grants {
                            accounts.credit("s", &grant.to_string(), *amount).await.unwrap();
                        }
                        for id in &plain.debits {
                            let one = [debit(&id.to_string(), price(*id))];
                            accounts.debit("s", day(*id), &one).await.unwrap();
                        }
                        plain.holds.clear();
                        accounts.open("s", Some(0)).await.unwrap();
                    }
                }
                let check = accounts.check("s", 0).await.unwrap();
                assert_eq!(check.remaining, plain.remaining());
                assert_eq!(check.allowed, plain.remaining() > 0);
                assert_eq!(accounts.open("s", Some(0)).await.unwrap(), plain.balance());
            }
            ledger::testing::forget(&url(), &beginning).await.unwrap();
        });
    }
}
