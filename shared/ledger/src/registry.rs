//! The identity registry: who was first, for whoever asks.

mod wire;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use model::{Claim, History, Identity, Seen};
use redis::Pipeline;

use self::wire::{Reply, encode};
use crate::connection::{Ledger, LedgerError};

/// Parts of the registry. Each lives on one node of a cluster and is trusted or
/// not by itself. A change would lose sight of all that is registered.
pub(crate) const BUCKETS: usize = 64;

/// Identities in one call, so that a call does not hold Valkey up for long.
const CALL: usize = 1000;

/// How far back the registry looks.
#[derive(Clone, Copy, Debug)]
pub struct RegistryConfig {
    /// A delivery is a repeat if ingest took it less than this after the winner.
    pub window: Duration,
    /// How far behind ingest a function may be and still trust the registry's
    /// "never seen"; beyond, it asks the store, which is slower.
    pub lag: Duration,
}

/// Why a batch could not be judged.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError<E: std::error::Error + 'static> {
    /// Valkey failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store, asked instead of the registry, failed.
    #[error("the store could not be asked for counted events")]
    History(#[source] E),
}

/// Identities and their winners. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    pub(crate) ledger: Ledger,
    config: RegistryConfig,
}

/// The winners of a batch, and what they were decided on.
#[derive(Clone, Debug)]
pub struct Judged {
    /// One winner for each claim, in order: the claim's own if it won.
    pub winners: Vec<Seen>,
    /// The epoch of each claim's bucket; empty where there was none.
    epochs: Vec<Arc<str>>,
}

/// What the registry knows by itself of a batch.
struct Told {
    judged: Judged,
    /// The places of claims that only the store can judge, in order.
    unknown: Vec<usize>,
    /// Whether the registry lost data that they need.
    lost: bool,
}

/// What the registry answers about one claim.
struct Answer {
    epoch: Arc<str>,
    /// `None`: the bucket is not to be trusted, and nothing was registered.
    winner: Option<Seen>,
}

/// A claim, and the winner that the store has for it.
#[derive(Clone, Copy)]
struct Asked {
    claim: Claim,
    stored: Option<Seen>,
}

impl Asked {
    fn alone(claim: Claim) -> Self {
        Self {
            claim,
            stored: None,
        }
    }

    /// What is registered, unless the registry knows better.
    fn best(&self) -> Seen {
        self.stored.unwrap_or(self.claim.seen)
    }
}

#[derive(Clone, Copy)]
enum Mode {
    /// Register only in buckets that know all they should know.
    Trust,
    /// Register what was found out elsewhere.
    Adopt,
}

impl Registry {
    /// Returns the registry that lives in `ledger`.
    pub fn new(ledger: Ledger, config: RegistryConfig) -> Self {
        Self { ledger, config }
    }

    /// Returns an error if Valkey is away or may forget keys.
    pub async fn check(&self) -> Result<(), LedgerError> {
        self.ledger.check().await
    }

    /// How long an identity is kept: a repeat can be as late as the window, and
    /// be looked at as late as the lag after that.
    pub(crate) fn kept(&self) -> Duration {
        self.config.window + self.config.lag
    }

    pub(crate) fn kept_millis(&self) -> u64 {
        u64::try_from(self.kept().as_millis()).unwrap_or(u64::MAX)
    }

    /// Registers the claims, in order, and returns who won each identity.
    ///
    /// Idempotent. The caller writes rows by the answer and then asks
    /// [`Registry::confirms`].
    pub async fn judge<H: History>(
        &self,
        claims: &[Claim],
        history: &H,
    ) -> Result<Judged, JudgeError<H::Error>> {
        let Told {
            mut judged,
            unknown,
            lost,
        } = self.tell(claims).await?;
        if !unknown.is_empty() {
            self.look_up(claims, &unknown, history, &mut judged).await?;
        }
        if lost && let Err(error) = self.refill(history).await {
            // The batch is judged all the same; the next one goes on with the refill.
            metrics::counter!("openmeter_registry_refill_failed_total").increment(1);
            tracing::error!(
                error = chain(&error),
                "the identity registry cannot be filled"
            );
        }
        Ok(judged)
    }

    /// Registers the claims, in order, as [`Registry::judge`] does, and returns who won as far as
    /// that is known without the store. Idempotent.
    ///
    /// It is `None`, and nothing is registered, where the registry lost its data, and for all
    /// claims of an identity of which one is so old that its winner may have been let go.
    pub async fn known(&self, claims: &[Claim]) -> Result<Vec<Option<Seen>>, LedgerError> {
        let told = self.tell(claims).await?;
        let mut winners: Vec<_> = told.judged.winners.into_iter().map(Some).collect();
        for place in told.unknown {
            winners[place] = None;
        }
        Ok(winners)
    }

    /// Registers what the registry can judge by itself.
    async fn tell(&self, claims: &[Claim]) -> Result<Told, LedgerError> {
        let trusted_from = micros(SystemTime::now()) - as_micros(self.config.lag);
        // The registry may have let go what these would repeat.
        let is_old = |claim: &Claim| {
            claim.seen.ingested_at < trusted_from || claim.may_be_older_than(self.config.window)
        };
        // With all of its identity, or the batch would not be judged in its order.
        let old: HashSet<_> = claims
            .iter()
            .filter(|claim| is_old(claim))
            .map(|claim| claim.identity)
            .collect();
        let (old, recent): (Vec<_>, Vec<_>) =
            (0..claims.len()).partition(|index| old.contains(&claims[*index].identity));

        let mut judged = Judged {
            winners: claims.iter().map(|claim| claim.seen).collect(),
            epochs: vec![Arc::from(""); claims.len()],
        };
        let mut unknown = old;
        let mut lost = false;
        let recent_claims: Vec<_> = recent
            .iter()
            .map(|index| Asked::alone(claims[*index]))
            .collect();
        for (index, answer) in recent
            .into_iter()
            .zip(self.register(Mode::Trust, &recent_claims).await?)
        {
            judged.epochs[index] = answer.epoch;
            match answer.winner {
                Some(winner) => judged.winners[index] = winner,
                None => {
                    lost = true;
                    unknown.push(index);
                }
            }
        }
        // In the batch's order: of two equal identities the first must win.
        unknown.sort_unstable();
        Ok(Told {
            judged,
            unknown,
            lost,
        })
    }

    /// Judges the claims at these places by the store's memory and lets the
    /// registry settle what several functions find out at the same time.
    async fn look_up<H: History>(
        &self,
        claims: &[Claim],
        places: &[usize],
        history: &H,
        judged: &mut Judged,
    ) -> Result<(), JudgeError<H::Error>> {
        let mut identities: Vec<_> = places.iter().map(|place| claims[*place].identity).collect();
        identities.sort_unstable();
        identities.dedup();
        let stored: HashMap<Identity, Vec<Seen>> = history
            .seen(&identities)
            .await
            .map_err(JudgeError::History)?;
        let asked: Vec<_> = places
            .iter()
            .map(|place| {
                let claim = claims[*place];
                let stored = stored.get(&claim.identity).map_or(&[][..], Vec::as_slice);
                let stored = claim.winner_among(self.config.window, stored).copied();
                Asked { claim, stored }
            })
            .collect();
        for (place, answer) in places.iter().zip(self.register(Mode::Adopt, &asked).await?) {
            judged.epochs[*place] = answer.epoch;
            judged.winners[*place] = answer
                .winner
                .ok_or(LedgerError::Unexpected("om_register"))?;
        }
        Ok(())
    }

    /// Returns whether the winners still stand, now that rows were written by them.
    ///
    /// If Valkey lost its data in between, another function may have registered
    /// another winner meanwhile. Then this is false, and the caller judges and
    /// writes again, before it acknowledges anything.
    pub async fn confirms<H: History>(
        &self,
        claims: &[Claim],
        judged: &Judged,
        history: &H,
    ) -> Result<bool, JudgeError<H::Error>> {
        let touched = claims.iter().map(|claim| bucket(&claim.identity));
        let epochs = self.epochs(touched.collect()).await?;
        let in_doubt: Vec<_> = (0..claims.len())
            .filter(|index| {
                let before = &judged.epochs[*index];
                before.is_empty() || before != &epochs[bucket(&claims[*index].identity)]
            })
            .collect();
        if in_doubt.is_empty() {
            return Ok(true);
        }
        // The store knows what another wrote and the registry, lost again, does not.
        let mut again = judged.clone();
        self.look_up(claims, &in_doubt, history, &mut again).await?;
        Ok(again.winners == judged.winners)
    }

    /// Fills the registry if Valkey lost it, for a function that cannot wait for one that
    /// judges by the store.
    pub async fn restore<H: History>(&self, history: &H) -> Result<(), JudgeError<H::Error>> {
        let epochs = self.epochs((0..BUCKETS).collect()).await?;
        if epochs.iter().any(|epoch| epoch.is_empty()) {
            self.refill(history).await?;
        }
        Ok(())
    }

    /// Returns the epoch of each of these buckets; "" for all others.
    async fn epochs(&self, touched: BTreeSet<usize>) -> Result<Vec<Arc<str>>, LedgerError> {
        let mut epochs = vec![Arc::from(""); BUCKETS];
        if touched.is_empty() {
            return Ok(epochs);
        }
        let mut calls = Pipeline::new();
        for bucket in &touched {
            // A registration of nothing: it answers with the epoch, if it is still current.
            self.add_registration(&mut calls, Mode::Trust, *bucket, &[]);
        }
        for (bucket, reply) in touched.into_iter().zip(self.ledger.call(calls).await?) {
            epochs[bucket] = Reply::read(reply)?.epoch;
        }
        Ok(epochs)
    }

    async fn register(&self, mode: Mode, claims: &[Asked]) -> Result<Vec<Answer>, LedgerError> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let mut buckets = vec![Vec::new(); BUCKETS];
        for (index, claim) in claims.iter().enumerate() {
            buckets[bucket(&claim.claim.identity)].push(index);
        }
        let groups: Vec<(usize, &[usize])> = buckets
            .iter()
            .enumerate()
            .flat_map(|(bucket, places)| places.chunks(CALL).map(move |places| (bucket, places)))
            .collect();
        let mut calls = Pipeline::new();
        for (bucket, places) in &groups {
            let claims: Vec<_> = places.iter().map(|place| claims[*place]).collect();
            self.add_registration(&mut calls, mode, *bucket, &claims);
        }
        let mut answers: Vec<Option<Answer>> = (0..claims.len()).map(|_| None).collect();
        for ((_, places), reply) in groups.into_iter().zip(self.ledger.call(calls).await?) {
            let reply = Reply::read(reply)?;
            let trusted = !reply.winners.is_empty();
            if trusted && reply.winners.len() != places.len() {
                return Err(LedgerError::Unexpected("om_register"));
            }
            for (order, place) in places.iter().enumerate() {
                let winner = trusted.then(|| reply.winners[order].unwrap_or(claims[*place].best()));
                answers[*place] = Some(Answer {
                    epoch: reply.epoch.clone(),
                    winner,
                });
            }
        }
        answers
            .into_iter()
            .collect::<Option<_>>()
            .ok_or(LedgerError::Unexpected("om_register"))
    }

    /// Adds a call of `om_register` with claims that are all of one bucket.
    fn add_registration(&self, calls: &mut Pipeline, mode: Mode, bucket: usize, claims: &[Asked]) {
        calls
            .cmd("FCALL")
            .arg(self.ledger.function("om_register"))
            .arg(claims.len() + 1)
            .arg(self.key(bucket, "epoch"));
        let identities = self.key(bucket, "").into_bytes();
        for claim in claims {
            calls.arg([&identities[..], &claim.claim.identity.0[..]].concat());
        }
        calls.arg(match mode {
            Mode::Trust => "trust",
            Mode::Adopt => "adopt",
        });
        calls
            .arg(as_micros(self.config.window))
            .arg(self.kept_millis());
        for claim in claims {
            let seen = encode(&claim.claim.seen);
            match claim.stored {
                Some(stored) => calls.arg([encode(&stored), seen].concat()),
                None => calls.arg(&seen[..]),
            };
        }
    }

    pub(crate) fn key(&self, bucket: usize, name: &str) -> String {
        format!("{}:{{{bucket:02x}}}:{name}", self.ledger.prefix())
    }

    /// Registers rows that the store has, while a refill runs.
    pub(crate) async fn adopt(&self, rows: &[(Identity, Seen)]) -> Result<(), LedgerError> {
        let claims: Vec<_> = rows
            .iter()
            .map(|(identity, seen)| {
                Asked::alone(Claim {
                    identity: *identity,
                    seen: *seen,
                })
            })
            .collect();
        self.register(Mode::Adopt, &claims).await.map(drop)
    }
}

fn bucket(identity: &Identity) -> usize {
    usize::from(identity.0[0]) % BUCKETS
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

pub(crate) fn as_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(crate) fn micros(time: SystemTime) -> i64 {
    as_micros(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}
