//! The registry on a real Valkey (`OPENMETER_VALKEY_URL`, else the local one).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{HOUR, Stored, WINDOW, claim, count, now, registry_at, registry_with, url};
use ledger::Registry;

/// A registry of its own on the shared Valkey.
async fn registry(test: &str) -> (Registry, Wipe) {
    let prefix = format!("test:{test}:{}:{:x}", std::process::id(), now());
    (registry_at(&url(), &prefix).await, Wipe(prefix))
}

/// Makes Valkey forget one registry, as a FLUSHALL would.
struct Wipe(String);

impl Wipe {
    async fn all(&self) {
        let beginning = format!("{}:", self.0);
        ledger::testing::forget(&url(), &beginning).await.unwrap();
    }
}

#[tokio::test]
async fn the_first_delivery_wins_also_within_one_batch() {
    let (registry, _wipe) = registry("first").await;
    let (stored, t) = (Stored::default(), now());
    let batch = [
        claim("a", 1, t, 7),
        claim("b", 2, t, 8),
        claim("a", 3, t + 1, 7),
    ];
    let winners = count(&registry, &stored, &batch).await;
    assert_eq!(winners, [batch[0].seen, batch[1].seen, batch[0].seen]);
    let again = count(&registry, &stored, &[claim("b", 9, t + 2, 1)]).await;
    assert_eq!(
        again,
        [batch[1].seen],
        "the winner is told also to a conflict"
    );
}

#[tokio::test]
async fn a_registry_that_was_wiped_is_filled_from_the_store() {
    let (registry, wipe) = registry("wiped").await;
    let (stored, t) = (Stored::default(), now());
    let first: Vec<_> = (0..500).map(|i| claim(&i.to_string(), i, t, 1)).collect();
    count(&registry, &stored, &first).await;
    wipe.all().await;
    let repeats: Vec<_> = (0..500)
        .map(|i| claim(&i.to_string(), i + 1000, t + 5, 1))
        .collect();
    let half = count(&registry, &stored, &repeats[..250]).await;
    assert!(
        half.iter()
            .zip(&first)
            .all(|(winner, first)| *winner == first.seen),
        "asked of the store"
    );
    stored.0.lock().unwrap().clear();
    let rest = count(&registry, &stored, &repeats[250..]).await;
    assert!(
        rest.iter()
            .zip(&first[250..])
            .all(|(winner, first)| *winner == first.seen),
        "filled again"
    );
}

#[tokio::test]
async fn a_loss_between_judging_and_writing_is_noticed() {
    let (registry, wipe) = registry("between").await;
    let (stored, t) = (Stored::default(), now());
    count(&registry, &stored, &[claim("warm", 1, t, 1)]).await;
    let mine = [claim("a", 10, t, 1)];
    let judged = registry.judge(&mine, &stored).await.unwrap();
    wipe.all().await;
    let other = [claim("a", 20, t + 1, 1)];
    count(&registry, &stored, &other).await;
    assert!(
        !registry.confirms(&mine, &judged, &stored).await.unwrap(),
        "another has won meanwhile"
    );
    let again = registry.judge(&mine, &stored).await.unwrap();
    assert_eq!(again.winners, [other[0].seen]);
    assert!(registry.confirms(&mine, &again, &stored).await.unwrap());
}

#[tokio::test]
async fn a_loss_that_nobody_used_leaves_the_winner_in_place() {
    let (registry, wipe) = registry("unused").await;
    let (stored, t) = (Stored::default(), now());
    count(&registry, &stored, &[claim("warm", 1, t, 1)]).await;
    let mine = [claim("a", 10, t, 1)];
    let judged = registry.judge(&mine, &stored).await.unwrap();
    wipe.all().await;
    assert!(registry.confirms(&mine, &judged, &stored).await.unwrap());
    let late = registry
        .judge(&[claim("a", 20, t + 1, 1)], &stored)
        .await
        .unwrap();
    assert_eq!(
        late.winners,
        [mine[0].seen],
        "confirming put the winner back"
    );
}

#[tokio::test]
async fn a_resend_after_the_window_is_a_new_event() {
    let (registry, _wipe) = registry("resend").await;
    let (stored, t) = (Stored::default(), now());
    let old = claim("a", 1, t - 30 * HOUR, 1);
    let repeat_of_old = claim("a", 2, t - 29 * HOUR, 1);
    let fresh = claim("a", 3, t, 1);
    let repeat_of_fresh = claim("a", 4, t + 1, 1);
    let winners = count(
        &registry,
        &stored,
        &[old, repeat_of_old, fresh, repeat_of_fresh],
    )
    .await;
    assert_eq!(winners, [old.seen, old.seen, fresh.seen, fresh.seen]);
    let replay = count(
        &registry,
        &stored,
        &[old, repeat_of_old, fresh, repeat_of_fresh],
    )
    .await;
    assert_eq!(replay, winners);
}

#[tokio::test]
async fn old_and_fresh_events_find_their_own_repeats_in_any_order() {
    let (registry, _wipe) = registry("any-order").await;
    let (stored, t) = (Stored::default(), now());
    count(&registry, &stored, &[claim("warm", 1, t, 1)]).await;
    let fresh = [claim("a", 3, t, 1), claim("a", 4, t + 1, 1)];
    let old = [
        claim("a", 1, t - 30 * HOUR, 1),
        claim("a", 2, t - 29 * HOUR, 1),
    ];
    assert_eq!(
        count(&registry, &stored, &fresh).await,
        [fresh[0].seen, fresh[0].seen]
    );
    assert_eq!(
        count(&registry, &stored, &old).await,
        [old[0].seen, old[0].seen]
    );
    let mixed = [old[1], fresh[1], old[0], fresh[0]];
    assert_eq!(
        count(&registry, &stored, &mixed).await,
        [old[0].seen, fresh[0].seen, old[0].seen, fresh[0].seen]
    );
}

#[tokio::test]
async fn a_longer_window_does_not_trust_what_a_shorter_one_kept() {
    let (short, wipe) = registry("longer").await;
    let (stored, t) = (Stored::default(), now());
    count(&short, &stored, &[claim("warm", 1, t, 1)]).await;
    // Counted 31 hours ago, and let go since.
    let old = claim("a", 2, t - 31 * HOUR, 1);
    stored.add(&old, old.seen);
    let long = registry_with(&url(), &wipe.0, 3 * WINDOW).await;
    let winners = count(&long, &stored, &[claim("a", 3, t, 1)]).await;
    assert_eq!(winners, [old.seen]);
}

#[tokio::test]
async fn many_functions_at_once_agree_on_every_winner() {
    let (registry, wipe) = registry("agree").await;
    let stored = std::sync::Arc::new(Stored::default());
    let t = now();
    let mut tasks = Vec::new();
    for function in 0..8_i64 {
        let (registry, stored) = (registry.clone(), stored.clone());
        tasks.push(tokio::spawn(async move {
            let claims: Vec<_> = (0..200)
                .map(|i| claim(&i.to_string(), function, t + function, 1))
                .collect();
            registry.judge(&claims, &*stored).await.unwrap().winners
        }));
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    assert!(answers.iter().all(|answer| answer == &answers[0]));
    wipe.all().await;
}

#[tokio::test]
async fn what_is_known_is_registered_as_by_judging() {
    let (registry, _wipe) = registry("known").await;
    let (stored, t) = (Stored::default(), now());
    count(&registry, &stored, &[claim("b", 1, t, 1)]).await;
    let batch = [
        claim("a", 2, t, 7),
        claim("b", 3, t + 1, 1),
        claim("a", 4, t + 1, 8),
    ];
    let winners = [batch[0].seen, claim("b", 1, t, 1).seen, batch[0].seen];
    for _ in 0..2 {
        let known = registry.known(&batch).await.unwrap();
        assert_eq!(known, winners.map(Some));
    }
    assert_eq!(count(&registry, &stored, &batch).await, winners);
}

#[tokio::test]
async fn nothing_is_known_nor_registered_after_a_loss() {
    let (registry, wipe) = registry("known-lost").await;
    let (stored, t) = (Stored::default(), now());
    let mine = [claim("a", 1, t, 1), claim("b", 1, t, 1)];
    assert_eq!(registry.known(&mine).await.unwrap(), [None, None], "new");
    count(&registry, &stored, &[claim("a", 0, t, 1)]).await;
    wipe.all().await;
    assert_eq!(registry.known(&mine).await.unwrap(), [None, None], "lost");
    let others = [claim("a", 5, t + 1, 1), claim("b", 5, t + 1, 1)];
    let winners = count(&registry, &stored, &others).await;
    assert_eq!(
        winners,
        [claim("a", 0, t, 1).seen, others[1].seen],
        "asked of the store, which knows nothing of b"
    );
    let known = registry.known(&mine).await.unwrap();
    let winners: Vec<_> = winners.into_iter().map(Some).collect();
    assert_eq!(known, winners, "filled again");
}

#[tokio::test]
async fn nothing_is_known_nor_registered_of_old_claims() {
    let (registry, _wipe) = registry("known-old").await;
    let (stored, t) = (Stored::default(), now());
    count(&registry, &stored, &[claim("warm", 1, t, 1)]).await;
    for (id, old) in [
        ("late", claim("late", 1, t - 2 * HOUR, 1)),
        ("aged", claim("aged", -13 * HOUR, t, 1)),
    ] {
        // A batch is judged in its order: what comes with an old one of its identity waits too.
        let batch = [claim(id, 2, t, 1), old, claim("warm", 3, t, 1)];
        let known = registry.known(&batch).await.unwrap();
        let warm = claim("warm", 1, t, 1).seen;
        assert_eq!(known, [None, None, Some(warm)], "{id}");
        let fresh = claim(id, 4, t + 1, 1);
        let known = registry.known(&[fresh]).await.unwrap();
        assert_eq!(known, [Some(fresh.seen)], "{id}: nobody was there before");
    }
}
