//! Grants and snapshots of accounts.

use model::Credits;
use store::{Grant, Snapshot, Subjects, testing::TestStore};

fn grant(subject: &str, id: &str, amount: &str) -> Grant {
    Grant {
        subject: subject.to_owned(),
        id: id.to_owned(),
        amount: amount.parse().unwrap(),
        note: String::new(),
        granted_at: 1_704_067_200_000_001,
    }
}

#[tokio::test]
async fn a_grant_that_is_stored_twice_is_one_grant() {
    let test = TestStore::create().await;
    let store = &test.store;
    let first = Grant {
        note: "'quoted', ünd\nmore".to_owned(),
        ..grant("b'", "1", "0.000001")
    };
    let second = grant("a", "1", "9007199254.740991");
    let back = grant("a", "2", "-9007199254.740991");
    for grant in [&first, &second, &back, &first] {
        store.insert_grant(grant).await.unwrap();
    }
    let all = store.grants(Subjects::All, None).await.unwrap();
    assert_eq!(all, [second.clone(), back.clone(), first.clone()]);
    let these = ["b'".to_owned(), "nobody".to_owned()];
    let some = store.grants(Subjects::These(&these), None).await.unwrap();
    assert_eq!(some, std::slice::from_ref(&first));

    let since = store.clock().await.unwrap();
    let stored = || store.grants(Subjects::All, Some(since));
    assert!(stored().await.unwrap().is_empty());
    store.insert_grant(&back).await.unwrap();
    assert_eq!(stored().await.unwrap(), [back]);
    test.remove().await;
}

#[tokio::test]
async fn an_account_is_kept_as_it_was() {
    let test = TestStore::create().await;
    let credits = |text: &str| text.parse::<Credits>().unwrap();
    let at = test.store.clock().await.unwrap();
    let account = |subject: &str, limit| Snapshot {
        subject: subject.to_owned(),
        at,
        balance: credits("-1.5"),
        held: credits("9007199254.740991"),
        limit,
    };
    let rows = [
        account("stopped", Some(Credits::ZERO)),
        account("overdrawn", Some(credits("0.000001"))),
        account("unlimited", None),
    ];
    test.store.insert_balances(&rows).await.unwrap();
    test.store.insert_balances(&[]).await.unwrap();
    let kept = test
        .texts(
            "SELECT concat(subject, ' ', toString(balance), ' ', toString(held), ' ', \
                ifNull(toString(limit), '-'), ' ', toString(toUnixTimestamp64Micro(at))) \
             FROM balances ORDER BY subject SETTINGS output_format_decimal_trailing_zeros = 0",
        )
        .await;
    assert_eq!(
        kept,
        [
            format!("overdrawn -1.5 9007199254.740991 0.000001 {at}"),
            format!("stopped -1.5 9007199254.740991 0 {at}"),
            format!("unlimited -1.5 9007199254.740991 - {at}"),
        ]
    );
    test.remove().await;
}

#[tokio::test]
async fn the_clock_is_that_of_the_rows() {
    let test = TestStore::create().await;
    let before = test.store.clock().await.unwrap();
    test.run("INSERT INTO grants (subject, id) SELECT 's', 'g'")
        .await;
    let after = test.store.clock().await.unwrap();
    let stored = test
        .texts("SELECT toString(toUnixTimestamp64Micro(stored_at)) FROM grants")
        .await;
    let stored: i64 = stored[0].parse().unwrap();
    assert!(
        (before..=after).contains(&stored),
        "{before} {stored} {after}"
    );
    test.remove().await;
}
