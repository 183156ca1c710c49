//! What is known of the jobs that are waiting or running, or ended recently, by their IDs.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::report::{JobResult, TestResult};

/// How far a job is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub is_running: bool,
    /// The tests that were judged so far.
    pub tests: Vec<TestResult>,
    pub end: Option<End>,
    /// Whether the result is where it cannot be lost.
    pub is_kept: bool,
}

/// How a job ended.
#[derive(Clone, Debug)]
pub enum End {
    Result(Arc<JobResult>),
    /// This worker could not judge it.
    Failed(String),
    /// It was waiting when the worker was stopped, or lost the broker.
    Dropped,
}

/// A step of a job, as workers and recorders announce it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    pub id: String,
    pub kind: StepKind,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// It starts, or starts again on another worker.
    Start,
    Test(TestResult),
    /// Its result is stored.
    Recorded,
}

impl Progress {
    pub fn advance(&mut self, kind: StepKind) {
        self.is_running = true;
        match kind {
            StepKind::Start => self.tests.clear(),
            StepKind::Test(test) => self.tests.push(test),
            StepKind::Recorded => {}
        }
    }
}

/// Number of ended jobs that are remembered.
const REMEMBERED: usize = 1000;

#[derive(Debug, Default)]
pub struct Tracker(Mutex<Tracked>);

#[derive(Debug, Default)]
struct Tracked {
    jobs: HashMap<String, watch::Sender<Progress>>,
    ended: VecDeque<String>,
}

impl Tracker {
    fn lock(&self) -> MutexGuard<'_, Tracked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the progress of a job, and whether it is new.
    pub fn track(&self, id: &str) -> (watch::Receiver<Progress>, bool) {
        let mut tracked = self.lock();
        if let Some(sender) = tracked.jobs.get(id) {
            return (sender.subscribe(), false);
        }
        let (sender, receiver) = watch::channel(Progress::default());
        tracked.jobs.insert(id.to_owned(), sender);
        (receiver, true)
    }

    pub fn get(&self, id: &str) -> Option<watch::Receiver<Progress>> {
        self.lock().jobs.get(id).map(watch::Sender::subscribe)
    }

    /// Returns the IDs of all jobs.
    pub fn ids(&self) -> Vec<String> {
        self.lock().jobs.keys().cloned().collect()
    }

    /// Changes the progress of a job, if it is known.
    pub fn modify(&self, id: &str, change: impl FnOnce(&mut Progress)) {
        if let Some(sender) = self.lock().jobs.get(id) {
            sender.send_modify(change);
        }
    }

    /// Ends a job. A result is remembered, so that the job is not judged again if it is delivered again soon. A failure of
    /// this worker is not.
    pub fn end(&self, id: &str, end: End) {
        let is_result = matches!(end, End::Result(_));
        self.modify(id, |progress| progress.end = Some(end));
        let mut tracked = self.lock();
        if !is_result {
            tracked.jobs.remove(id);
            return;
        }
        tracked.ended.push_back(id.to_owned());
        if tracked.ended.len() > REMEMBERED
            && let Some(oldest) = tracked.ended.pop_front()
            // It may be waiting or running again.
            && tracked.jobs.get(&oldest).is_some_and(|progress| progress.borrow().end.is_some())
        {
            tracked.jobs.remove(&oldest);
        }
    }

    /// Notes that the result of a job is where it cannot be lost. One that is no verdict is forgotten then: when the job is
    /// sent again, it is judged again.
    pub fn keep(&self, result: &JobResult) {
        self.modify(&result.id, |progress| progress.is_kept = true);
        if !result.has_verdict() {
            self.forget(&result.id);
        }
    }

    /// Forgets a job.
    pub fn forget(&self, id: &str) {
        self.lock().jobs.remove(id);
    }
}

/// Waits for the end of a job.
pub async fn ended(progress: &mut watch::Receiver<Progress>) -> End {
    match progress.wait_for(|progress| progress.end.is_some()).await {
        Ok(progress) => progress.end.clone().unwrap_or(End::Dropped),
        Err(_) => End::Dropped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::failure::Failure;

    fn end(tracker: &Tracker, result: JobResult) {
        tracker.track(&result.id);
        tracker.end(&result.id, End::Result(Arc::new(result.clone())));
        tracker.keep(&result);
    }

    #[test]
    fn verdicts_are_remembered_and_failures_are_not() {
        let tracker = Tracker::default();
        end(&tracker, JobResult::judged("verdict", None, vec![]));
        end(&tracker, JobResult::failed("failure", &Failure::Job("no checker".into())));
        assert!(tracker.get("verdict").unwrap().borrow().is_kept);
        assert!(tracker.get("failure").is_none());
    }

    #[test]
    fn a_job_that_is_judged_again_is_not_forgotten_with_its_first_end() {
        let tracker = Tracker::default();
        end(&tracker, JobResult::failed("again", &Failure::Job("no checker".into())));
        tracker.track("again");
        for number in 0..REMEMBERED {
            end(&tracker, JobResult::judged(&number.to_string(), None, vec![]));
        }
        assert!(tracker.get("again").is_some());
        assert!(tracker.get("0").is_some());
        end(&tracker, JobResult::judged("last", None, vec![]));
        assert!(tracker.get("0").is_none());
    }
}
