//! What must hold when the deliveries of a log come one by one, in any order and to two
//! instances at once, whose steps fall between each other's in every way.
//!
//! With two bounds. While Valkey loses its data, no two are under way, nor overlap by what is under
//! way with both, that ingest took more than a window apart: else one sent again as it was can
//! meet a first delivery that is not confirmed and, its winner having changed meanwhile, be told
//! from it later. And it does so once in the
//! time that a delivery is under way: of two rows that await their confirmation, a second loss
//! lets each find itself the winner.

use super::*;

/// Where a delivery is on its way.
#[derive(Clone)]
enum At {
    Judge,
    Write(Asked),
    Confirm(Asked),
    Done,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Move {
    /// One of those under way does its next step.
    Step(prop::sample::Index),
    /// The instance that has it is killed, and it comes again.
    Kill(prop::sample::Index),
    /// Valkey forgets everything.
    Lose,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        12 => any::<prop::sample::Index>().prop_map(Move::Step),
        1 => any::<prop::sample::Index>().prop_map(Move::Kill),
        1 => Just(Move::Lose),
    ];
    prop::collection::vec(one, 0..40)
}

struct Pushed<'a> {
    world: &'a World,
    instances: [Registry; 2],
    log: &'a [Prepared],
    at: Vec<At>,
}

impl Pushed<'_> {
    /// Returns whether a delivery may begin: those before it are done, or near enough.
    fn may_begin(&self, index: usize) -> bool {
        let claim = self.log[index].claim;
        let is_done = self.at[..index].iter().all(|at| matches!(at, At::Done));
        let mut earlier = self.log[..index].iter();
        is_done || earlier.all(|other| claim.is_within(WINDOW, &other.claim.seen))
    }

    async fn step(&mut self, index: usize) {
        let one = std::slice::from_ref(&self.log[index]);
        let claims = [one[0].claim];
        let registry = &self.instances[index % 2];
        let tables = &self.world.tables;
        self.at[index] = match self.at[index].clone() {
            At::Judge => At::Write(ask(registry, tables, one).await),
            At::Write(asked) => {
                tables.write(one, &asked);
                At::Confirm(asked)
            }
            At::Confirm(asked) => match registry.confirms(&claims, &asked.judged, tables).await {
                Ok(true) => At::Done,
                _ => At::Judge,
            },
            At::Done => At::Done,
        };
    }

    /// Delivers the whole log, by these moves and then in its order.
    async fn deliver(&mut self, moves: &[Move]) {
        self.at = vec![At::Judge; self.log.len()];
        let is_lossy = moves.iter().any(|next| matches!(next, Move::Lose));
        let mut is_lost = false;
        for next in moves {
            match next {
                Move::Step(index) => {
                    let index = index.index(self.log.len());
                    let begins = matches!(self.at[index], At::Judge);
                    if !(is_lossy && begins) || self.may_begin(index) {
                        self.step(index).await;
                    }
                }
                Move::Kill(index) => self.at[index.index(self.log.len())] = At::Judge,
                Move::Lose if is_lost => {}
                Move::Lose => {
                    self.world.forget().await;
                    is_lost = true;
                }
            }
        }
        for index in 0..self.log.len() {
            while !matches!(self.at[index], At::Done) {
                self.step(index).await;
            }
        }
    }
}

/// Returns what is wrong with what is counted of a log that came in any order: nothing, if each
/// delivery is a counted row or less than the window from one, and no two rows are that near.
fn wrong(log: &[Prepared], tables: &Tables) -> Option<String> {
    let counted = tables.counted();
    let rows = tables.0.lock().unwrap();
    let winners = rows.events.iter().filter(|(_, row)| row.counts);
    let winners: Vec<Claim> = winners
        .map(|((identity, ..), row)| Claim {
            identity: *identity,
            seen: row.seen,
        })
        .collect();
    let key = |claim: &Claim| (claim.identity, claim.seen.time, claim.seen.content.0);
    if winners.iter().map(key).collect::<BTreeSet<_>>() != counted {
        return Some("usage and events differ".to_owned());
    }
    for (place, one) in winners.iter().enumerate() {
        if !log.iter().any(|prepared| key(&prepared.claim) == key(one)) {
            return Some("a row is of no delivery".to_owned());
        }
        let is_near =
            |other: &&Claim| other.identity == one.identity && other.is_within(WINDOW, &one.seen);
        if winners[..place].iter().any(|other| is_near(&other)) {
            return Some("two rows are within a window".to_owned());
        }
    }
    let is_known = |claim: &Claim| {
        winners.iter().any(|winner| {
            let is_near = claim.is_within(WINDOW, &winner.seen);
            winner.identity == claim.identity && (is_near || key(winner) == key(claim))
        })
    };
    let lost = log.iter().find(|prepared| !is_known(&prepared.claim));
    lost.map(|prepared| format!("lost: {}", shown(std::slice::from_ref(prepared))))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn in_any_order_nothing_is_lost_and_nothing_doubled(
        log in log(),
        first in moves(),
        second in moves(),
        lag_hours in prop::sample::select(vec![1_u64, 6, 1000]),
    ) {
        block_on(async {
            let lag = Duration::from_secs(lag_hours * 3600);
            let world = World::new(lag);
            let mut pushed = Pushed {
                world: &world,
                instances: [world.registry.clone(), registry(&world.prefix, lag)],
                log: &log,
                at: Vec::new(),
            };
            pushed.deliver(&first).await;
            prop_assert_eq!(wrong(&log, &world.tables), None, "{}", shown(&log));
            let counted = world.tables.counted();
            pushed.deliver(&second).await;
            prop_assert_eq!(world.tables.counted(), counted, "again: {}", shown(&log));
            world.forget().await;
            Ok(())
        })?;
    }
}
