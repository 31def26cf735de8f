//! Cases that run beside each other, each on a stack where no other case's events are.

use futures::future::{BoxFuture, FutureExt as _, ready};
use serde_json::Value;

use super::{
    file::{Case, Failure, Suite},
    fixture::Fixture,
    report::Outcome,
};
use crate::stack::Stack;

/// Events in one request at most.
const BATCH: usize = 500;

/// Runs some cases and gives the outcome of each by its place in the suite.
pub(super) type Job<'a> = BoxFuture<'a, Vec<(usize, Outcome)>>;

/// Compares what a stack answers with what a case says.
pub(super) type Check =
    for<'s> fn(Case<'s>, &'s Fixture, &'s Stack) -> BoxFuture<'s, Result<(), Failure>>;

/// Who sees the events of a case's fixture.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// All cases with an equal fixture: they only ask.
    EqualFixtures,
    /// The case alone: it sends events of its own.
    Nobody,
}

/// Returns the outcome of cases that need no stack.
pub(super) fn done(outcomes: Vec<(usize, Outcome)>) -> Job<'static> {
    ready(outcomes).boxed()
}

/// Returns a suite's cases as skipped.
pub(super) fn skipped<'a>(suite: &'a Suite, reason: &str) -> Vec<Job<'a>> {
    let skipped = |index| (index, Outcome::Skipped(reason.to_owned()));
    vec![done((0..suite.cases.len()).map(skipped).collect())]
}

/// Returns the jobs of a suite whose cases are checked one by one.
pub(super) fn one_by_one<'a>(
    suite: &'a Suite,
    check: fn(Case<'a>) -> BoxFuture<'a, Outcome>,
) -> Vec<Job<'a>> {
    let job = |(index, case): (usize, Result<Case<'a>, Failure>)| match case {
        Ok(case) => check(case)
            .map(move |outcome| vec![(index, outcome)])
            .boxed(),
        Err(failure) => done(vec![(index, failure.into())]),
    };
    suite.cases().map(job).collect()
}

/// Returns the jobs of a suite whose cases are checked on stacks. `prepare` reads a case, or
/// says what becomes of it without a stack.
pub(super) fn on_stacks<'a>(
    suite: &'a Suite,
    sharing: Sharing,
    prepare: fn(&Case<'a>) -> Result<Fixture, Outcome>,
    check: Check,
) -> Vec<Job<'a>> {
    let mut without = Vec::new();
    let mut groups: Vec<(Fixture, Vec<Case<'a>>)> = Vec::new();
    for (index, case) in suite.cases() {
        let read = case.map_err(Outcome::from);
        match read.and_then(|case| Ok((prepare(&case)?, case))) {
            Err(outcome) => without.push((index, outcome)),
            Ok((fixture, case)) => {
                let is_same = |(other, _): &&mut (Fixture, _)| *other == fixture;
                let shared =
                    (groups.iter_mut().find(is_same)).filter(|_| sharing == Sharing::EqualFixtures);
                match shared {
                    Some((_, cases)) => cases.push(case),
                    None => groups.push((fixture, vec![case])),
                }
            }
        }
    }
    let run = |(fixture, cases)| run_group(fixture, cases, check).boxed();
    std::iter::once(done(without))
        .chain(groups.into_iter().map(run))
        .collect()
}

async fn run_group(fixture: Fixture, cases: Vec<Case<'_>>, check: Check) -> Vec<(usize, Outcome)> {
    let stack = match ready_stack(&fixture).await {
        Ok(stack) => stack,
        Err(error) => {
            let failure = Failure::from(error);
            let failed = |case: Case<'_>| (case.index, failure.clone().into());
            return cases.into_iter().map(failed).collect();
        }
    };
    let mut outcomes = Vec::new();
    for case in cases {
        let result = check(case, &fixture, &stack).await;
        outcomes.push((case.index, result.into()));
    }
    put_away(stack).await;
    outcomes
}

/// Starts a stack that has counted the fixture's events.
async fn ready_stack(fixture: &Fixture) -> anyhow::Result<Stack> {
    let stack = Stack::start(&fixture.yaml()).await?;
    match fill(&stack, &fixture.events).await {
        Ok(()) => Ok(stack),
        Err(error) => {
            put_away(stack).await;
            Err(error)
        }
    }
}

async fn fill(stack: &Stack, events: &[Value]) -> anyhow::Result<()> {
    for batch in events.chunks(BATCH) {
        stack.post_events(batch).await?;
    }
    stack.wait_until_counted(events.len() as u64).await
}

/// Stops a stack. What it leaves behind changes no answer that was given.
pub(super) async fn put_away(stack: Stack) {
    let name = stack.name().to_owned();
    if let Err(error) = stack.stop().await {
        eprintln!("warning: {name} did not end well: {error:#}");
    }
}
