//! Credit accounts on a real Valkey, against their definition: random steps, losses among them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::RangeInclusive,
};

use common::{
    credits::{LONG, account, accounts, check, day_debits, debit, micros, seal, take},
    url,
};
use ledger::{Account, Accounts, Debit, LedgerError, Outcome, Standing, Telling};
use proptest::prelude::*;

const SUBJECT: &str = "s";
const MOST: i64 = (1 << 53) - 1;
const DAYS: i64 = 4;

/// One step on an account. Numbers name grants, events and holds.
#[derive(Clone, Debug)]
enum Step {
    Credit(u8, i64),
    Debit(u8, Option<u8>),
    Seal {
        day: i64,
        total: i64,
        as_of: i64,
        keep: bool,
    },
    Hold(u8, i64),
    Cancel(u8),
    Notified(i64),
    Limit(Option<i64>),
    Tell,
    Open(Option<i64>),
    /// As by FLUSHALL.
    Lose,
    Forget,
    /// From the store, with the days up to this one sealed.
    TellAll(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let limit = || proptest::option::weighted(0.8, 0..20_i64);
    prop_oneof![
        6 => (0..6_u8, -9..50_i64).prop_map(|(grant, amount)| Step::Credit(grant, amount)),
        12 => (0..12_u8, proptest::option::of(0..4_u8)).prop_map(|(id, hold)| Step::Debit(id, hold)),
        3 => (0..DAYS, -9..40_i64, 0..6_i64, any::<bool>())
            .prop_map(|(day, total, as_of, keep)| Step::Seal { day, total, as_of, keep }),
        6 => (0..4_u8, 0..20_i64).prop_map(|(hold, amount)| Step::Hold(hold, amount)),
        2 => (0..4_u8).prop_map(Step::Cancel),
        2 => (1..4_i64).prop_map(Step::Notified),
        2 => limit().prop_map(Step::Limit),
        4 => Just(Step::Tell),
        4 => limit().prop_map(Step::Open),
        2 => Just(Step::Lose),
        1 => Just(Step::Forget),
        2 => (-1..DAYS - 1).prop_map(Step::TellAll),
    ]
}

fn price(id: u8) -> i64 {
    i64::from(id) * 3 - 4
}

fn day_of(id: u8) -> i64 {
    i64::from(id) % DAYS
}

/// What the store has: all that ever was.
#[derive(Default)]
struct Store {
    grants: BTreeMap<u8, i64>,
    events: HashSet<u8>,
    clock: i64,
}

impl Store {
    fn events_of(&self, day: i64) -> impl Iterator<Item = u8> {
        let events = self.events.iter().copied();
        events.filter(move |id| day_of(*id) == day)
    }

    fn balance(&self) -> i64 {
        self.grants.values().sum::<i64>() - self.events.iter().map(|id| price(*id)).sum::<i64>()
    }
}

/// What an account is by its definition: all that Valkey was told since it was lost.
#[derive(Default)]
struct Plain {
    grants: HashMap<u8, i64>,
    debits: HashSet<u8>,
    /// Total and time of reading.
    seals: BTreeMap<i64, (i64, i64)>,
    holds: HashMap<u8, i64>,
    limit: Option<i64>,
    is_open: bool,
    telling: Option<Telling>,
    base: i64,
    topups: i64,
    notified: i64,
}

impl Plain {
    fn sealed(&self) -> Option<i64> {
        self.seals.keys().next_back().copied()
    }

    fn balance(&self) -> i64 {
        let is_single = |id: &&u8| !self.seals.contains_key(&day_of(**id));
        let single = self.debits.iter().filter(is_single);
        let days = self.seals.values().map(|(total, _)| total);
        let costs = single.map(|id| price(*id)).sum::<i64>() + days.sum::<i64>();
        self.grants.values().sum::<i64>() - costs
    }

    fn held(&self) -> i64 {
        self.holds.values().sum()
    }

    fn allows(&self, cost: i64) -> bool {
        let fits = |limit| {
            let remaining = self.balance() - self.held() + limit;
            remaining > 0 && remaining >= cost
        };
        self.is_open && self.limit.is_none_or(fits)
    }

    fn account(&self) -> Account {
        Account {
            standing: match self.limit {
                _ if !self.is_open => Standing::Unknown,
                None => Standing::Unlimited,
                Some(_) if self.allows(0) => Standing::Ok,
                Some(_) => Standing::Spent,
            },
            balance: micros(self.balance()),
            limit: self.limit.map(micros),
            held: micros(self.held()),
            base: micros(self.base),
            topups: self.topups,
            notified: self.notified,
            sealed: self.sealed(),
        }
    }
}

/// An account, its definition, and whoever uses it.
struct World {
    accounts: Accounts,
    beginning: String,
    store: Store,
    plain: Plain,
    /// What the last telling began with.
    telling: Option<Telling>,
}

impl World {
    async fn step(&mut self, step: Step) {
        match step {
            Step::Credit(grant, amount) => self.credit(grant, amount).await,
            Step::Debit(id, hold) => self.debit(id, hold).await,
            Step::Seal {
                day,
                total,
                as_of,
                keep,
            } => self.seal(day, total, as_of, keep).await,
            Step::Hold(hold, amount) => self.hold(hold, amount).await,
            Step::Cancel(hold) => {
                let hold_name = hold.to_string();
                self.accounts
                    .cancel_hold(SUBJECT, &hold_name)
                    .await
                    .unwrap();
                self.plain.holds.remove(&hold);
            }
            Step::Notified(percent) => self.notified(percent).await,
            Step::Limit(limit) => {
                let limits = [(SUBJECT, limit.map(micros))];
                let changed = self.accounts.limit_all(&limits).await.unwrap();
                assert_eq!(changed, [self.plain.is_open]);
                if self.plain.is_open {
                    self.plain.limit = limit;
                }
            }
            Step::Tell => self.tell().await,
            Step::Open(limit) => self.open(limit).await,
            Step::Lose => {
                ledger::testing::forget(&url(), &self.beginning)
                    .await
                    .unwrap();
                self.plain = Plain::default();
            }
            Step::Forget => {
                self.accounts.forget_all(&[SUBJECT]).await.unwrap();
                self.plain = Plain {
                    holds: std::mem::take(&mut self.plain.holds),
                    ..Plain::default()
                };
            }
            Step::TellAll(last) => self.tell_all(-1..=last).await,
        }
    }

    async fn credit(&mut self, grant: u8, amount: i64) {
        let name = grant.to_string();
        let credited = self.accounts.credit(SUBJECT, &name, micros(amount)).await;
        match self.plain.grants.get(&grant) {
            Some(known) if *known == amount => assert!(!credited.unwrap()),
            Some(_) => assert!(matches!(credited, Err(LedgerError::Conflict(_)))),
            None => {
                assert!(credited.unwrap());
                self.plain.grants.insert(grant, amount);
                self.store.grants.insert(grant, amount);
                if amount > 0 {
                    self.plain.topups += 1;
                    (self.plain.base, self.plain.notified) = (self.plain.balance(), 0);
                }
            }
        }
    }

    /// Along with an account that cannot be debited.
    async fn debit(&mut self, id: u8, hold: Option<u8>) {
        let one = Debit {
            hold: hold.map(|hold| hold.to_string()),
            ..debit(&id.to_string(), price(id))
        };
        let too_much = ["x", "y"].map(|id| debit(id, MOST));
        let days = [
            day_debits("full", 1, &too_much),
            day_debits(SUBJECT, day_of(id), &[one]),
        ];
        let debited = self.accounts.debit_all(&days).await.unwrap();
        let [Err(LedgerError::Refused(_)), Ok(debited)] = &debited[..] else {
            panic!("{debited:?}");
        };
        self.store.events.insert(id);
        let is_sealed = self
            .plain
            .sealed()
            .is_some_and(|sealed| day_of(id) <= sealed);
        let expected = if is_sealed {
            Outcome::Sealed
        } else if self.plain.debits.insert(id) {
            Outcome::Debited
        } else {
            Outcome::Before
        };
        assert_eq!(debited.outcomes, [expected]);
        if let Some(hold) = hold {
            self.plain.holds.remove(&hold);
        }
    }

    async fn seal(&mut self, day: i64, total: i64, as_of: i64, keep: bool) {
        let before = self.plain.seals.get(&day).copied();
        // Its own debits, if it was never sealed, and those of days that it passes over.
        let sealed = self.plain.sealed().unwrap_or(-1);
        let is_replaced = |id: &u8| day_of(*id) > sealed && day_of(*id) <= day;
        let single = self.plain.debits.iter().filter(|id| is_replaced(id));
        let taken = single.map(|id| price(*id)).sum::<i64>() + before.map_or(0, |(sum, _)| sum);
        let is_newest = before.is_none_or(|(_, read)| read <= as_of);
        let is_set = seal(&self.accounts, SUBJECT, day, total, as_of, keep).await;
        assert_eq!(is_set, is_newest && (!keep || total >= taken));
        if is_set {
            self.plain.seals.insert(day, (total, as_of));
            self.plain.debits.retain(|id| !is_replaced(id));
        }
    }

    async fn hold(&mut self, hold: u8, amount: i64) {
        let name = hold.to_string();
        let held = self.accounts.hold(SUBJECT, &name, micros(amount), LONG);
        let before = self.plain.holds.get(&hold).copied();
        if before.is_some_and(|before| before != amount) {
            assert!(matches!(held.await, Err(LedgerError::Conflict(_))));
            return;
        }
        let (is_held, fits) = (before.is_some(), self.plain.allows(amount));
        assert_eq!(held.await.unwrap().allowed, is_held || fits);
        if !is_held && fits {
            self.plain.holds.insert(hold, amount);
        }
    }

    async fn notified(&mut self, percent: i64) {
        let topups = self.plain.topups;
        let late = self.accounts.notified(SUBJECT, topups + 1, percent).await;
        assert!(!late.unwrap(), "of another top-up");
        let first = self.accounts.notified(SUBJECT, topups, percent).await;
        assert_eq!(first.unwrap(), percent > self.plain.notified);
        self.plain.notified = self.plain.notified.max(percent);
    }

    async fn tell(&mut self) {
        let telling = self.accounts.tell_all(&[SUBJECT]).await.unwrap().remove(0);
        match &self.plain.telling {
            Some(other) => assert_eq!(&telling, other, "they tell it together"),
            None => assert_ne!(Some(&telling), self.telling.as_ref(), "it was lost"),
        }
        self.plain.telling = Some(telling.clone());
        self.telling = Some(telling);
    }

    /// As whoever began to tell, perhaps before a loss.
    async fn open(&mut self, limit: Option<i64>) {
        let Some(telling) = &self.telling else { return };
        let opened = self
            .accounts
            .open_all(&[(SUBJECT, limit.map(micros), telling)])
            .await;
        let is_there = self.plain.telling.as_ref() == Some(telling);
        assert_eq!(opened.unwrap(), [is_there]);
        if is_there {
            (self.plain.is_open, self.plain.limit) = (true, limit);
        }
    }

    /// All that the store has, over whatever is there.
    async fn tell_all(&mut self, sealed: RangeInclusive<i64>) {
        // After whatever another step claims to have read.
        self.store.clock += 10;
        self.tell().await;
        for (grant, amount) in self.store.grants.clone() {
            self.credit(grant, amount).await;
        }
        for day in 0..DAYS {
            let again = self.plain.sealed().is_some_and(|last| day <= last);
            if again || sealed.contains(&day) {
                let total = self.store.events_of(day).map(price).sum();
                self.seal(day, total, self.store.clock, false).await;
            } else {
                let debits: Vec<_> = self
                    .store
                    .events_of(day)
                    .map(|id| debit(&id.to_string(), price(id)))
                    .collect();
                take(&self.accounts, SUBJECT, day, &debits).await.unwrap();
                self.plain.debits.extend(self.store.events_of(day));
            }
        }
        self.open(Some(0)).await;
        assert!(self.plain.is_open, "nothing was lost meanwhile");
        let balance = account(&self.accounts, SUBJECT).await.balance;
        assert_eq!(balance, micros(self.store.balance()), "as never lost");
    }

    async fn agrees(&self) {
        let account = account(&self.accounts, SUBJECT).await;
        assert_eq!(account, self.plain.account());
        for cost in [0, 1, 10] {
            let check = check(&self.accounts, SUBJECT, cost).await;
            assert_eq!(check.allowed, self.plain.allows(cost), "{cost}");
            if let (true, Some(limit)) = (self.plain.is_open, self.plain.limit) {
                let remaining = self.plain.balance() - self.plain.held() + limit;
                assert_eq!(check.remaining, micros(remaining));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens in whatever order, and however often: an account is its grants less
    /// what each event cost once, or each day that is sealed. It is known while it was told whole
    /// since it was lost, and what the store has makes it again what it was.
    #[test]
    fn an_account_is_what_its_definition_says(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let (accounts, beginning) = accounts("law").await;
            let mut world = World {
                accounts,
                beginning,
                store: Store::default(),
                plain: Plain::default(),
                telling: None,
            };
            world.step(Step::TellAll(-1)).await;
            for step in steps {
                world.step(step).await;
                world.agrees().await;
            }
            world.step(Step::Lose).await;
            world.step(Step::TellAll(0)).await;
            ledger::testing::forget(&url(), &world.beginning).await.unwrap();
        });
    }
}
