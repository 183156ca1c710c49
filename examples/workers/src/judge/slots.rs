//! Slots: a few jobs are judged at a time, and the others wait, those of a higher priority before the others.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};

use super::failure::Failure;
use super::job::{Job, Priority};
use super::judging::Judge;
use super::report::JobResult;
use super::tracker::{End, Progress, Step, StepKind, Tracker};

/// Jobs that wait for a slot.
type Waiting = [VecDeque<Job>; Priority::ALL.len()];

#[derive(Debug)]
pub struct Slots {
    judge: Arc<Judge>,
    tracker: Tracker,
    waiting: Mutex<Waiting>,
    /// One permit for each job that waits.
    ready: Semaphore,
    /// `None` when all slots have ended.
    events: Mutex<Option<mpsc::UnboundedSender<Event>>>,
}

/// What happens in the slots, in order.
#[derive(Debug)]
pub enum Event {
    Step(Step),
    Result(Arc<JobResult>),
    /// This worker could not judge a job.
    Failed {
        id: String,
        error: String,
    },
}

/// The tasks that take jobs. Dropping it detaches the jobs that are running.
#[derive(Debug)]
pub struct Running(JoinSet<()>);

impl Slots {
    /// Starts tasks that take jobs. What they do is sent to `events`.
    pub fn start(judge: Judge, count: usize) -> (Arc<Self>, Running, mpsc::UnboundedReceiver<Event>) {
        let (events, received) = mpsc::unbounded_channel();
        let slots = Arc::new(Self {
            judge: Arc::new(judge),
            tracker: Tracker::default(),
            waiting: Mutex::default(),
            ready: Semaphore::new(0),
            events: Mutex::new(Some(events)),
        });
        let mut tasks = JoinSet::new();
        for slot in 0..count {
            tasks.spawn(slots.clone().work(slot));
        }
        (slots, Running(tasks), received)
    }

    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// Adds the name of this worker to a result.
    pub fn sign(&self, result: JobResult) -> JobResult {
        self.judge.sign(result)
    }

    /// Number of jobs that wait, and the size of their texts in bytes.
    pub fn waiting(&self) -> (usize, usize) {
        let waiting = self.lock();
        let jobs = || waiting.iter().flatten();
        (jobs().count(), jobs().map(Job::size).sum())
    }

    /// Adds a job, unless one with its ID is waiting, running, or ended recently. Returns its progress.
    pub fn submit(&self, job: Job) -> watch::Receiver<Progress> {
        let (progress, is_new) = self.tracker.track(&job.id);
        if is_new {
            self.lock()[job.priority as usize].push_back(job);
            self.ready.add_permits(1);
        }
        progress
    }

    /// Drops the jobs that wait. Those that run go on.
    pub fn drop_waiting(&self) {
        let waiting = std::mem::take(&mut *self.lock());
        for job in waiting.iter().flatten() {
            self.tracker.end(&job.id, End::Dropped);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, event: Event) {
        if let Some(events) = &*self.events.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = events.send(event);
        }
    }

    async fn work(self: Arc<Self>, slot: usize) {
        while let Ok(permit) = self.ready.acquire().await {
            permit.forget();
            let job = self.lock().iter_mut().find_map(VecDeque::pop_front);
            // There is none if those that waited were dropped.
            let Some(job) = job else { continue };
            let id = job.id.clone();
            let this = self.clone();
            let end = spawn_blocking(move || this.judge(&job, slot)).await;
            let end = end.unwrap_or_else(|error| End::Failed(format!("the judge failed: {error}")));
            self.tracker.end(&id, end.clone());
            match end {
                End::Result(result) => self.send(Event::Result(result)),
                End::Failed(error) => self.send(Event::Failed { id, error }),
                End::Dropped => {}
            }
        }
    }

    fn judge(&self, job: &Job, slot: usize) -> End {
        let step = |kind: StepKind| {
            self.tracker.modify(&job.id, |progress| progress.advance(kind.clone()));
            self.send(Event::Step(Step { id: job.id.clone(), kind }));
        };
        step(StepKind::Start);
        match self.judge.judge(job, slot, |test| step(StepKind::Test(test.clone()))) {
            Ok(result) => End::Result(Arc::new(result)),
            Err(failure @ Failure::Job(_)) => {
                End::Result(Arc::new(self.judge.sign(JobResult::failed(&job.id, &failure))))
            }
            Err(failure @ Failure::Worker(_)) => End::Failed(failure.to_string()),
        }
    }
}

impl Running {
    /// Drops the jobs that wait, and waits until the others have ended. No event follows then.
    pub async fn drain(mut self, slots: &Slots) {
        slots.ready.close();
        slots.drop_waiting();
        while self.0.join_next().await.is_some() {}
        *slots.events.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
