//! Places: a few submissions run at a time, the others wait for a place in the order in which they came.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::failure::Failure;

/// The places, of which each submission that runs has one.
#[derive(Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    most_waiting: usize,
    counts: Arc<Counts>,
}

/// A place. Dropping it gives it to the next submission.
#[derive(Debug)]
pub struct Place {
    // Dropped after `Drop::drop`, so that what runs is never counted twice.
    _permit: OwnedSemaphorePermit,
    counts: Arc<Counts>,
}

/// Numbers of submissions.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Statistics {
    /// Those that wait for a place now.
    pub waiting: usize,
    /// Those that have a place now.
    pub running: usize,
    /// The largest number that had a place at a time.
    pub most_running: usize,
    /// Those that have had a place, and have given it back.
    pub ended: u64,
}

#[derive(Debug, Default)]
struct Counts(Mutex<Statistics>);

impl Counts {
    fn lock(&self) -> MutexGuard<'_, Statistics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    pub fn new(number: usize, most_waiting: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(number)), most_waiting, counts: Arc::default() }
    }

    /// Waits for a place. If the future is dropped, the next one gets it.
    pub async fn take(&self) -> Result<Place, Failure> {
        let waiting = Waiting::begin(&self.counts, self.most_waiting)?;
        let permit = self.free.clone().acquire_owned().await.map_err(|_| Failure::ShuttingDown)?;
        drop(waiting);
        let mut counts = self.counts.lock();
        counts.running += 1;
        counts.most_running = counts.most_running.max(counts.running);
        drop(counts);
        Ok(Place { _permit: permit, counts: self.counts.clone() })
    }

    /// Turns away those that wait, and those that come later.
    pub fn close(&self) {
        self.free.close();
    }

    pub fn statistics(&self) -> Statistics {
        *self.counts.lock()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        counts.running -= 1;
        counts.ended += 1;
    }
}

/// A submission that is counted as waiting until this is dropped.
struct Waiting<'a>(&'a Counts);

impl<'a> Waiting<'a> {
    fn begin(counts: &'a Counts, most: usize) -> Result<Self, Failure> {
        let mut locked = counts.lock();
        if locked.waiting >= most {
            return Err(Failure::Busy);
        }
        locked.waiting += 1;
        Ok(Self(counts))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}
