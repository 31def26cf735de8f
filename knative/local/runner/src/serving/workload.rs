//! The pods of one Service or Deployment, and who of them takes the next request.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use http::uri::Authority;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{
    front::Client,
    pod::{Phase, Pod, Status},
    template::Template,
};

/// How many requests may wait for a pod at once; Knative's activator lets as many wait.
const LONGEST_QUEUE: usize = 10_000;

/// What all pods of a workload have in common.
pub(super) struct Making {
    pub(super) name: String,
    pub(super) template: Arc<Template>,
    pub(super) program: PathBuf,
    pub(super) platform: Vec<(&'static str, String)>,
    pub(super) client: Client,
}

/// The pods of one Service or Deployment.
pub(crate) struct Workload {
    making: Making,
    /// Requests at once in one pod.
    concurrency: usize,
    state: Mutex<State>,
    /// Something changed.
    changed: watch::Sender<()>,
    /// Cuts short what was told to end.
    hurry: CancellationToken,
}

#[derive(Default)]
struct State {
    pods: Vec<Entry>,
    /// Who waits for a pod, first come, first served.
    waiting: VecDeque<oneshot::Sender<Slot>>,
    load: Load,
    /// How many pods there ever were, for their names.
    count: u64,
    /// How often a process died and was started again.
    restarts: u64,
    /// No pod is started any more.
    ended: bool,
}

struct Entry {
    id: u64,
    status: Status,
    authority: Option<Authority>,
    in_flight: usize,
    /// Takes no new requests, and ends after its last.
    retired: bool,
    stop: CancellationToken,
}

/// Requests that are here, waiting or in flight, and the request-seconds so far.
struct Load {
    level: usize,
    request_seconds: f64,
    since: Instant,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            level: 0,
            request_seconds: 0.0,
            since: Instant::now(),
        }
    }
}

impl Load {
    fn pass(&mut self) {
        let now = Instant::now();
        self.request_seconds += self.level as f64 * (now - self.since).as_secs_f64();
        self.since = now;
    }
}

/// Too many requests wait already.
#[derive(Debug)]
pub(super) struct Overloaded;

/// A request's place in the count of requests, from its arrival to the end of its answer.
pub(super) struct Arrival {
    workload: Arc<Workload>,
    /// Nobody was ready, and nobody was waiting for that: whom a cold start is measured by.
    pub(super) first: bool,
}

/// A request's place in a pod.
pub(super) struct Slot {
    workload: Arc<Workload>,
    id: u64,
    pub(super) authority: Authority,
}

impl Workload {
    pub(super) fn new(making: Making, concurrency: usize) -> Arc<Self> {
        Arc::new(Self {
            making,
            concurrency: if concurrency == 0 {
                usize::MAX
            } else {
                concurrency
            },
            state: Mutex::default(),
            changed: watch::Sender::default(),
            hurry: CancellationToken::new(),
        })
    }

    /// Counts a request in.
    pub(super) fn arrive(self: &Arc<Self>) -> Arrival {
        let mut state = self.lock();
        state.load.pass();
        state.load.level += 1;
        let first = state.waiting.is_empty() && !state.pods.iter().any(Entry::is_open);
        Arrival {
            workload: self.clone(),
            first,
        }
    }

    /// Waits for a place in a pod. `from_zero` pods are started if there are none.
    pub(super) async fn place(self: &Arc<Self>, from_zero: usize) -> Result<Slot, Overloaded> {
        let placed = {
            let mut state = self.lock();
            if state.waiting.is_empty()
                && let Some((id, authority)) = state.take(self.concurrency)
            {
                return Ok(self.slot(id, authority));
            }
            if state.waiting.len() >= LONGEST_QUEUE {
                // Those who gave up count no more.
                state.waiting.retain(|waiter| !waiter.is_closed());
            }
            if state.waiting.len() >= LONGEST_QUEUE {
                return Err(Overloaded);
            }
            let (waiter, placed) = oneshot::channel();
            state.waiting.push_back(waiter);
            if state.pods.iter().all(|pod| pod.retired) {
                self.add(&mut state, from_zero);
            }
            placed
        };
        placed.await.map_err(|_| Overloaded)
    }

    /// Has `count` pods, or one more than none while somebody waits. Those that go end their
    /// requests first.
    pub(super) fn scale(self: &Arc<Self>, count: usize) {
        let mut state = self.lock();
        let count = count.max(usize::from(!state.waiting.is_empty()));
        let kept = state.pods.iter().filter(|pod| !pod.retired).count();
        if count >= kept {
            self.add(&mut state, count - kept);
            return;
        }
        let mut going: Vec<&mut Entry> = state.pods.iter_mut().filter(|pod| !pod.retired).collect();
        going.sort_by_key(|pod| (pod.status.state == Phase::Ready, pod.in_flight));
        for pod in going.into_iter().take(kept - count) {
            pod.retire();
        }
    }

    /// Completes when every pod has ended, those that were told to.
    pub(super) async fn empty(&self) {
        let mut changed = self.changed.subscribe();
        while !self.lock().pods.is_empty() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Ends every pod and starts no other.
    pub(crate) async fn end(&self) {
        {
            let mut state = self.lock();
            state.ended = true;
            state.waiting.clear();
            state.pods.iter_mut().for_each(Entry::retire);
        }
        self.empty().await;
    }

    /// Kills what was told to end.
    pub(crate) fn hurry(&self) {
        let state = self.lock();
        for pod in state.pods.iter().filter(|pod| pod.retired) {
            pod.stop.cancel();
        }
        self.hurry.cancel();
    }

    /// Returns what each pod is at.
    pub(crate) fn pods(&self) -> Vec<Status> {
        let state = self.lock();
        state.pods.iter().map(|pod| pod.status.clone()).collect()
    }

    /// Returns how often a process died and was started again, in pods that are gone too.
    pub(crate) fn restarts(&self) -> u64 {
        self.lock().restarts
    }

    /// Returns the request-seconds so far, and how many pods there are that are not to end.
    pub(super) fn load(&self) -> (f64, usize) {
        let mut state = self.lock();
        state.load.pass();
        let pods = state.pods.iter().filter(|pod| !pod.retired).count();
        (state.load.request_seconds, pods)
    }

    /// Returns a receiver that changes when a pod does.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn add(self: &Arc<Self>, state: &mut State, count: usize) {
        if state.ended {
            return;
        }
        for _ in 0..count {
            state.count += 1;
            let id = state.count;
            let stop = CancellationToken::new();
            let pod = Pod {
                template: self.making.template.clone(),
                program: self.making.program.clone(),
                platform: self.making.platform.clone(),
                label: format!("{}-{id}", self.making.name),
                client: self.making.client.clone(),
                stop: stop.clone(),
                hurry: self.hurry.clone(),
            };
            state.pods.push(Entry {
                id,
                status: Status::default(),
                authority: None,
                in_flight: 0,
                retired: false,
                stop,
            });
            let workload = self.clone();
            tokio::spawn(async move {
                pod.live(|status| workload.report(id, status)).await;
                workload.lock().pods.retain(|pod| pod.id != id);
                workload.changed.send_replace(());
            });
        }
    }

    fn report(self: &Arc<Self>, id: u64, status: &Status) {
        {
            let mut state = self.lock();
            state.restarts += u64::from(status.state == Phase::Restarting);
            let Some(pod) = state.pods.iter_mut().find(|pod| pod.id == id) else {
                return;
            };
            pod.status = status.clone();
            pod.authority = format!("127.0.0.1:{}", status.port).parse().ok();
        }
        self.changed.send_replace(());
        self.hand_out();
    }

    /// Gives the places that are free to those who wait.
    fn hand_out(self: &Arc<Self>) {
        loop {
            let (waiter, slot) = {
                let mut state = self.lock();
                while state
                    .waiting
                    .front()
                    .is_some_and(oneshot::Sender::is_closed)
                {
                    state.waiting.pop_front();
                }
                if state.waiting.is_empty() {
                    return;
                }
                let Some((id, authority)) = state.take(self.concurrency) else {
                    return;
                };
                let Some(waiter) = state.waiting.pop_front() else {
                    return;
                };
                (waiter, self.slot(id, authority))
            };
            // Who gave up just now frees the place as the slot is dropped, out of the lock.
            drop(waiter.send(slot));
        }
    }

    fn slot(self: &Arc<Self>, id: u64, authority: Authority) -> Slot {
        Slot {
            workload: self.clone(),
            id,
            authority,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done by a panic in what the lock guards.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a place in the pod that has the fewest requests.
    fn take(&mut self, concurrency: usize) -> Option<(u64, Authority)> {
        let open = self.pods.iter_mut().filter(|pod| pod.is_open());
        let pod = open.min_by_key(|pod| pod.in_flight)?;
        if pod.in_flight >= concurrency {
            return None;
        }
        let authority = pod.authority.clone()?;
        pod.in_flight += 1;
        Some((pod.id, authority))
    }
}

impl Entry {
    fn is_open(&self) -> bool {
        self.status.state == Phase::Ready && !self.retired
    }

    fn retire(&mut self) {
        self.retired = true;
        if self.in_flight == 0 {
            self.stop.cancel();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let mut state = self.workload.lock();
            if let Some(pod) = state.pods.iter_mut().find(|pod| pod.id == self.id) {
                pod.in_flight -= 1;
                if pod.retired && pod.in_flight == 0 {
                    pod.stop.cancel();
                }
            }
        }
        self.workload.hand_out();
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut state = self.workload.lock();
        state.load.pass();
        state.load.level -= 1;
    }
}
