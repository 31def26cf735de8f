//! Credit accounts on a real Valkey (`OPENMETER_VALKEY_URL`, else the local one).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use common::{
    credits::{
        LONG, account, accounts, check, credit, day_debits, debit, micros, open, seal, take,
    },
    url,
};
use ledger::{Debit, LedgerError, Outcome, Seal, Standing};
use model::Credits;

const MOST: i64 = (1 << 53) - 1;

#[tokio::test]
async fn a_grant_and_a_debit_count_once_each() {
    let (accounts, _) = accounts("once").await;
    assert!(credit(&accounts, "tpp", "g", 100).await);
    assert!(!credit(&accounts, "tpp", "g", 100).await);
    let twice = [debit("a", 30), debit("b", 5), debit("a", 30)];
    let first = take(&accounts, "tpp", 1, &twice).await.unwrap();
    assert_eq!(first.balance, micros(65));
    let (new, before) = (Outcome::Debited, Outcome::Before);
    assert_eq!(first.outcomes, [new, new, before]);
    let again = take(&accounts, "tpp", 1, &twice).await.unwrap();
    assert_eq!(
        (again.balance, again.outcomes),
        (micros(65), vec![before; 3])
    );
    let refused = accounts.credit("tpp", "g", micros(99)).await.unwrap_err();
    assert!(matches!(refused, LedgerError::Conflict(_)), "{refused:?}");
    assert!(!refused.is_retryable());
}

#[tokio::test]
async fn what_may_be_spent_depends_on_limit_and_cost() {
    let (accounts, _) = accounts("limits").await;
    let standing = async |subject, cost| {
        let check = check(&accounts, subject, cost).await;
        (check.allowed, check.remaining.micros(), check.standing)
    };
    assert_eq!(standing("tpp", 0).await, (false, 0, Standing::Unknown));
    credit(&accounts, "tpp", "g", 10).await;
    assert_eq!(
        standing("tpp", 0).await,
        (false, 0, Standing::Unknown),
        "nobody said that this is all"
    );
    let limits = accounts.limit_all(&[("tpp", None)]).await.unwrap();
    assert_eq!(limits, [false], "nor does a limit");
    for (limit, cost, expected) in [
        (Some(0), 0, (true, 10, Standing::Ok)),
        (Some(0), 10, (true, 10, Standing::Ok)),
        (Some(0), 11, (false, 10, Standing::Spent)),
        (Some(5), 15, (true, 15, Standing::Ok)),
        (None, 1000, (true, 10, Standing::Unlimited)),
    ] {
        open(&accounts, "tpp", limit).await;
        assert_eq!(standing("tpp", cost).await, expected, "{limit:?} {cost}");
    }
    take(&accounts, "tpp", 1, &[debit("a", 25)]).await.unwrap();
    for (limit, expected) in [
        (Some(0), (false, -15, Standing::Spent)),
        (Some(15), (false, 0, Standing::Spent)),
        (Some(16), (true, 1, Standing::Ok)),
        (None, (true, -15, Standing::Unlimited)),
    ] {
        let limits = [("tpp", limit.map(micros))];
        assert_eq!(accounts.limit_all(&limits).await.unwrap(), [true]);
        assert_eq!(standing("tpp", 0).await, expected, "{limit:?}");
    }
}

#[tokio::test]
async fn each_of_many_accounts_is_asked_with_its_own_cost() {
    let (accounts, _) = accounts("all").await;
    let subjects = ["a", "b", "nobody"];
    for subject in &subjects[..2] {
        credit(&accounts, subject, "g", 10).await;
        open(&accounts, subject, Some(0)).await;
    }
    let wanted = [("b", 10), ("nobody", 0), ("a", 11), ("a", 10)];
    let wanted = wanted.map(|(subject, cost)| (subject, micros(cost)));
    let checks = accounts.check_all(&wanted).await.unwrap();
    let allowed: Vec<_> = checks.iter().map(|check| check.allowed).collect();
    assert_eq!(allowed, [true, false, false, true]);
    let all = accounts.accounts(&subjects).await.unwrap();
    let standings: Vec<_> = all.iter().map(|account| account.standing).collect();
    let ok = Standing::Ok;
    assert_eq!(standings, [ok, ok, Standing::Unknown]);
    let grants = [("a", "g", 10), ("b", "g", 9), ("nobody", "g", 1)];
    let grants = grants.map(|(subject, grant, amount)| (subject, grant, micros(amount)));
    let credited = accounts.credit_all(&grants).await.unwrap();
    assert!(
        matches!(
            &credited[..],
            [Ok(false), Err(LedgerError::Conflict(_)), Ok(true)]
        ),
        "{credited:?}"
    );
    assert!(accounts.check_all(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_hold_ends_by_its_event_by_cancel_and_by_time() {
    let (accounts, _) = accounts("holds").await;
    credit(&accounts, "tpp", "g", 10).await;
    open(&accounts, "tpp", Some(0)).await;
    let place = async |hold, amount, ends| {
        let held = accounts.hold("tpp", hold, micros(amount), ends).await;
        held.unwrap()
    };
    let remaining = async || check(&accounts, "tpp", 0).await.remaining.micros();
    for _ in 0..2 {
        let held = place("h1", 6, LONG).await;
        assert!(held.allowed, "a hold that is placed twice is one");
        assert_eq!(remaining().await, 4);
    }
    let refused = place("h2", 5, LONG).await;
    assert_eq!(
        (refused.allowed, refused.standing),
        (false, Standing::Spent)
    );
    let named = Debit {
        hold: Some("h1".to_owned()),
        ..debit("a", 5)
    };
    // Debited by one who knew nothing of the hold, say.
    take(&accounts, "tpp", 1, &[debit("a", 5)]).await.unwrap();
    for _ in 0..2 {
        let named = std::slice::from_ref(&named);
        take(&accounts, "tpp", 1, named).await.unwrap();
        assert_eq!(remaining().await, 5, "the hold became a debit");
    }
    place("h3", 2, LONG).await;
    assert_eq!(account(&accounts, "tpp").await.held, micros(2));
    let cancelled = accounts.cancel_hold("tpp", "h3").await.unwrap();
    assert_eq!((cancelled.remaining, remaining().await), (micros(5), 5));
    place("h4", 5, Duration::from_millis(100)).await;
    assert!(!check(&accounts, "tpp", 0).await.allowed);
    let over = async {
        while remaining().await != 5 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), over)
        .await
        .unwrap();
    assert_eq!(account(&accounts, "tpp").await.held, Credits::ZERO);
    let after = place("h5", 5, LONG).await;
    assert_eq!((after.allowed, after.remaining), (true, Credits::ZERO));
}

#[tokio::test]
async fn a_sealed_day_is_a_total_and_takes_no_debit() {
    let (accounts, beginning) = accounts("seal").await;
    credit(&accounts, "tpp", "g", 100).await;
    take(&accounts, "tpp", 7, &[debit("a", 10)]).await.unwrap();
    take(&accounts, "tpp", 8, &[debit("b", 1)]).await.unwrap();
    for (total, as_of, is_set, balance) in [
        (12, 1000, true, 87),
        (12, 1000, true, 87),
        (15, 1001, true, 84),
        (12, 1000, false, 84),
    ] {
        let sealed = seal(&accounts, "tpp", 7, total, as_of, false).await;
        let account = account(&accounts, "tpp").await;
        assert_eq!(
            (sealed, account.balance.micros(), account.sealed),
            (is_set, balance, Some(7)),
            "{total} as of {as_of}"
        );
    }
    for day in [6, 7] {
        let late = take(&accounts, "tpp", day, &[debit("c", 3)]).await.unwrap();
        assert_eq!(
            (late.balance, late.outcomes),
            (micros(84), vec![Outcome::Sealed])
        );
    }
    let both = [debit("b", 1), debit("c", 3)];
    let unsealed = take(&accounts, "tpp", 8, &both).await.unwrap();
    assert_eq!(unsealed.outcomes, [Outcome::Before, Outcome::Debited]);
    assert_eq!(unsealed.balance, micros(81));
    let debits = async |day| {
        let deleted = format!("{beginning}credits:{{tpp}}:debits:{day}");
        ledger::testing::forget(&url(), &deleted).await.unwrap()
    };
    assert_eq!(
        (debits(7).await, debits(8).await),
        (0, 1),
        "kept until then"
    );
}

#[tokio::test]
async fn a_threshold_is_announced_once_and_again_after_a_top_up() {
    let (accounts, _) = accounts("thresholds").await;
    credit(&accounts, "tpp", "g1", 100).await;
    let standing = async || {
        let standing = take(&accounts, "tpp", 1, &[]).await.unwrap();
        (standing.base.micros(), standing.topups, standing.notified)
    };
    assert_eq!(standing().await, (100, 1, 0));
    assert!(accounts.notified("tpp", 1, 50).await.unwrap());
    assert!(!accounts.notified("tpp", 1, 50).await.unwrap());
    assert!(accounts.notified("tpp", 1, 80).await.unwrap());
    credit(&accounts, "tpp", "g2", 50).await;
    assert_eq!(standing().await, (150, 2, 0));
    assert!(
        !accounts.notified("tpp", 1, 100).await.unwrap(),
        "of the last top-up"
    );
    credit(&accounts, "tpp", "void", -50).await;
    assert_eq!(standing().await.1, 2, "what is taken back is no top-up");
}

#[tokio::test]
async fn what_would_pass_two_to_the_fifty_three_changes_nothing() {
    let (accounts, _) = accounts("bounds").await;
    credit(&accounts, "tpp", "g", MOST).await;
    for amount in [1, MOST] {
        let error = accounts.credit("tpp", "more", micros(amount)).await;
        let error = error.unwrap_err();
        assert!(matches!(error, LedgerError::Refused(_)), "{amount}");
    }
    let debits = [debit("a", 5), debit("b", MOST), debit("c", MOST)];
    let error = take(&accounts, "tpp", 1, &debits).await.unwrap_err();
    assert!(matches!(error, LedgerError::Refused(_)), "{error:?}");
    let after = take(&accounts, "tpp", 1, &debits[..1]).await.unwrap();
    assert_eq!(after.balance, micros(MOST - 5));
    assert_eq!(after.outcomes, [Outcome::Debited], "none of it was done");
}

#[tokio::test]
async fn an_account_that_is_refused_does_not_hold_up_the_others() {
    let (accounts, _) = accounts("others").await;
    credit(&accounts, "full", "g", -MOST).await;
    let one = [debit("a", 1)];
    // Two calls for the last one, so that each answer must find its account.
    let many: Vec<_> = (0..1_500).map(|n| debit(&n.to_string(), 1)).collect();
    let subjects = [("x", &one[..]), ("full", &one), ("y", &many), ("x", &many)];
    let days: Vec<_> = (1..)
        .zip(subjects)
        .map(|(day, (subject, debits))| day_debits(subject, day, debits))
        .collect();
    let debited = accounts.debit_all(&days).await.unwrap();
    let balance = |at: usize| debited[at].as_ref().unwrap().balance.micros();
    assert_eq!((balance(0), balance(2), balance(3)), (-1, -1_500, -1_501));
    let refused = debited[1].as_ref().unwrap_err();
    assert!(matches!(refused, LedgerError::Refused(_)), "{refused:?}");
    assert_eq!(account(&accounts, "full").await.balance, micros(-MOST));
    let seals = ["full", "x"].map(|subject| Seal {
        subject: subject.to_owned(),
        day: 9,
        total: micros(7),
        as_of: 1,
        keep: false,
    });
    let sealed = accounts.seal_all(&seals).await.unwrap();
    assert!(
        matches!(&sealed[..], [Err(LedgerError::Refused(_)), Ok(true)]),
        "{sealed:?}"
    );
}

#[tokio::test]
async fn what_may_be_spent_is_told_up_to_the_bound() {
    let (accounts, _) = accounts("clamped").await;
    for (amount, limit, expected) in [(MOST, Some(MOST), MOST), (-MOST, Some(MOST), 0)] {
        let subject = amount.to_string();
        credit(&accounts, &subject, "g", amount).await;
        open(&accounts, &subject, limit).await;
        let remaining = check(&accounts, &subject, 0).await.remaining;
        assert_eq!(remaining, micros(expected), "{amount}");
    }
    accounts
        .hold(&MOST.to_string(), "h", micros(MOST), LONG)
        .await
        .unwrap();
    take(&accounts, &MOST.to_string(), 1, &[debit("a", MOST)])
        .await
        .unwrap();
    credit(&accounts, &MOST.to_string(), "back", -MOST).await;
    for limit in [None, Some(0)] {
        open(&accounts, &MOST.to_string(), limit).await;
        let remaining = check(&accounts, &MOST.to_string(), 0).await.remaining;
        assert_eq!(remaining, micros(-MOST), "{limit:?}");
    }
}

#[tokio::test]
async fn debits_of_any_number_are_taken_in_one_go() {
    let (accounts, _) = accounts("many").await;
    let debits: Vec<_> = (0..2_500).map(|n| debit(&n.to_string(), n)).collect();
    for outcome in [Outcome::Debited, Outcome::Before] {
        let debited = take(&accounts, "tpp", 1, &debits).await.unwrap();
        assert_eq!(debited.balance, micros(-2_500 * 2_499 / 2));
        assert_eq!(debited.outcomes, vec![outcome; 2_500]);
    }
}

#[tokio::test]
async fn more_debits_than_one_round_trip_takes_find_their_accounts() {
    let (accounts, beginning) = accounts("round-trips").await;
    let debits: Vec<_> = (0..60_000).map(|n| debit(&n.to_string(), 1)).collect();
    let days = ["x", "y", "z"].map(|subject| day_debits(subject, 1, &debits));
    let days = [
        days,
        [("x", 2), ("y", 2), ("z", 1)]
            .map(|(subject, day)| day_debits(subject, day, &debits[..10])),
    ]
    .concat();
    let debited = accounts.debit_all(&days).await.unwrap();
    let balances: Vec<_> = debited
        .iter()
        .map(|debited| debited.as_ref().unwrap().balance.micros())
        .collect();
    assert_eq!(
        balances,
        [-60_000, -60_000, -60_000, -60_010, -60_010, -60_000]
    );
    ledger::testing::forget(&url(), &beginning).await.unwrap();
}

#[tokio::test]
async fn subjects_with_braces_have_accounts_of_their_own() {
    let (accounts, _) = accounts("braces").await;
    let subjects = ["}", "{", "a}b", "a%7Db", "{a}", "", "ü"];
    for (amount, subject) in (1..).zip(subjects) {
        credit(&accounts, subject, "g", amount).await;
        open(&accounts, subject, Some(0)).await;
    }
    for (amount, subject) in (1..).zip(subjects) {
        let remaining = check(&accounts, subject, 0).await.remaining;
        assert_eq!(remaining, micros(amount));
    }
}

#[tokio::test]
async fn what_was_lost_is_unknown_until_it_is_told_again() {
    let (accounts, beginning) = accounts("lost").await;
    let tell = async || {
        credit(&accounts, "tpp", "g", 100).await;
        take(&accounts, "tpp", 1, &[debit("a", 30)]).await.unwrap();
    };
    let check = async || check(&accounts, "tpp", 0).await;
    tell().await;
    open(&accounts, "tpp", Some(0)).await;
    assert_eq!(check().await.remaining, micros(70));
    ledger::testing::forget(&url(), &beginning).await.unwrap();
    // What flows meanwhile is debited, and says nothing of what was there.
    take(&accounts, "tpp", 1, &[debit("b", 1)]).await.unwrap();
    assert_eq!(check().await.standing, Standing::Unknown);
    tell().await;
    open(&accounts, "tpp", Some(0)).await;
    assert_eq!(check().await.remaining, micros(69));
}

#[tokio::test]
async fn an_account_that_is_lost_while_it_is_told_is_not_opened() {
    let (accounts, beginning) = accounts("telling").await;
    let tell = async || accounts.tell_all(&["tpp", "other"]).await.unwrap();
    let limit = Some(Credits::ZERO);
    let first = tell().await;
    credit(&accounts, "tpp", "g", 100).await;
    assert_eq!(
        tell().await,
        first,
        "nothing was lost: they tell it together"
    );
    ledger::testing::forget(&url(), &format!("{beginning}credits:{{tpp}}"))
        .await
        .unwrap();
    let second = tell().await;
    assert_ne!(second[0], first[0]);
    let opened = accounts
        .open_all(&[("tpp", limit, &first[0]), ("other", limit, &first[1])])
        .await;
    assert_eq!(opened.unwrap(), [false, true]);
    assert_eq!(
        account(&accounts, "tpp").await.standing,
        Standing::Unknown,
        "its grant is gone"
    );
    for _ in 0..2 {
        let opened = accounts.open_all(&[("tpp", limit, &second[0])]).await;
        assert_eq!(opened.unwrap(), [true]);
    }
    accounts.forget_all(&["tpp"]).await.unwrap();
    let opened = accounts.open_all(&[("tpp", limit, &second[0])]).await;
    assert_eq!(opened.unwrap(), [false]);
}

#[tokio::test]
async fn what_another_server_said_of_an_account_is_taken_away_by_the_next_change() {
    let (accounts, beginning) = accounts("foreign").await;
    credit(&accounts, "tpp", "g", 100).await;
    let telling = accounts.tell_all(&["tpp"]).await.unwrap();
    let client = redis::Client::open(url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let key = format!("{beginning}credits:{{tpp}}");
    let mut ask = async |command: &str, arguments: &[&str]| -> Option<String> {
        let mut command = redis::cmd(command);
        command.arg(&key).arg(arguments);
        command.query_async(&mut connection).await.unwrap()
    };
    // This server was a replica of that one meanwhile.
    let another = "0123456789012345678901234567890123456789";
    ask("HSET", &["mark", another]).await;
    ask("HSET", &["telling", &format!("{another}:1.1")]).await;
    let standing = async || account(&accounts, "tpp").await.standing;
    assert_eq!(standing().await, Standing::Unknown);
    take(&accounts, "tpp", 1, &[debit("a", 1)]).await.unwrap();
    assert_eq!(ask("HGET", &["mark"]).await, None);
    assert_ne!(accounts.tell_all(&["tpp"]).await.unwrap(), telling);
    let opened = accounts.open_all(&[("tpp", None, &telling[0])]).await;
    assert_eq!(opened.unwrap(), [false]);
}

#[tokio::test]
async fn an_account_is_forgotten_but_for_its_holds() {
    let (accounts, _) = accounts("forget").await;
    credit(&accounts, "tpp", "g", 100).await;
    open(&accounts, "tpp", Some(0)).await;
    seal(&accounts, "tpp", 1, 3, 9, false).await;
    take(&accounts, "tpp", 2, &[debit("a", 30)]).await.unwrap();
    let held = accounts.hold("tpp", "h", micros(6), LONG).await.unwrap();
    assert_eq!((held.allowed, held.remaining), (true, micros(61)));
    accounts.forget_all(&["tpp", "nobody"]).await.unwrap();
    let gone = account(&accounts, "tpp").await;
    let standing = Standing::Unknown;
    assert_eq!((gone.standing, gone.balance), (standing, Credits::ZERO));
    assert_eq!((gone.held, gone.sealed), (micros(6), None));
    assert!(credit(&accounts, "tpp", "g", 100).await, "as if never told");
    let debits = [debit("a", 30)];
    for day in [1, 2] {
        let debited = take(&accounts, "tpp", day, &debits).await.unwrap();
        assert_eq!(debited.outcomes, [Outcome::Debited], "of day {day}");
    }
    open(&accounts, "tpp", Some(0)).await;
    assert_eq!(check(&accounts, "tpp", 0).await.remaining, micros(34));
}

#[tokio::test]
async fn the_watermark_is_kept_until_it_is_lost() {
    let (accounts, beginning) = accounts("watermark").await;
    assert_eq!(accounts.watermark().await.unwrap(), None);
    accounts.set_watermark(9).await.unwrap();
    assert_eq!(accounts.watermark().await.unwrap(), Some(9));
    ledger::testing::forget(&url(), &beginning).await.unwrap();
    assert_eq!(accounts.watermark().await.unwrap(), None);
}

#[tokio::test]
async fn a_day_that_was_passed_over_costs_nothing_unless_credits_are_to_be_kept() {
    let (accounts, beginning) = accounts("passed").await;
    for (day, id) in [(5, "a"), (6, "b"), (7, "c"), (8, "d")] {
        take(&accounts, "tpp", day, &[debit(id, 10)]).await.unwrap();
    }
    assert!(!seal(&accounts, "tpp", 6, 19, 1, true).await);
    assert!(seal(&accounts, "tpp", 6, 20, 1, true).await);
    let sealed = account(&accounts, "tpp").await;
    assert_eq!((sealed.balance.micros(), sealed.sealed), (-40, Some(6)));
    assert!(seal(&accounts, "tpp", 7, 0, 1, false).await);
    let sealed = account(&accounts, "tpp").await;
    assert_eq!((sealed.balance.micros(), sealed.sealed), (-30, Some(7)));
    let late = take(&accounts, "tpp", 5, &[debit("a", 10)]).await.unwrap();
    assert_eq!(late.outcomes, [Outcome::Sealed]);
    ledger::testing::forget(&url(), &beginning).await.unwrap();
}

#[tokio::test]
async fn a_grants_key_is_reserved_for_one_amount() {
    let (accounts, beginning) = accounts("reserved").await;
    for (subject, key, amount, is_ours) in [
        ("tpp", "k", 5, true),
        ("tpp", "k", 5, true),
        ("tpp", "k", 6, false),
        ("tpp", "l", 6, true),
        ("other", "k", 6, true),
    ] {
        let reserved = accounts.reserve_grant(subject, key, micros(amount)).await;
        assert_eq!(reserved.unwrap(), is_ours, "{subject} {key} {amount}");
    }
    ledger::testing::forget(&url(), &beginning).await.unwrap();
}
