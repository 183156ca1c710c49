//! A build: all steps, several at a time.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;
use crate::cache::{Cache, Keys};
use crate::hermetic;
use crate::step::Step;

/// What a build did.
#[derive(Debug, Default)]
pub struct Summary {
    /// Number of steps that were run.
    pub run: usize,
    /// Number of steps whose outputs the cache had.
    pub cached: usize,
    /// The steps that failed.
    pub failures: Vec<Failure>,
}

/// Runs the steps, as many at a time as `jobs`, and writes their outputs to a directory. After a failure, no step is
/// started.
pub fn build(steps: &[Step], keys: &Keys<'_>, cache: &Cache, out: &Path, jobs: usize) -> Result<Summary, Failure> {
    fs::create_dir_all(out)?;
    let bar = progress(steps.len());
    let (next, summary) = (AtomicUsize::new(0), Mutex::new(Summary::default()));
    let work = || {
        while let Some(step) = steps.get(next.fetch_add(1, Ordering::Relaxed)) {
            bar.set_message(step.name.clone());
            let result = perform(step, keys, cache, out);
            let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(Origin::Cache) => summary.cached += 1,
                Ok(Origin::Run) => summary.run += 1,
                Err(failure) => {
                    summary.failures.push(failure);
                    next.store(steps.len(), Ordering::Relaxed);
                }
            }
            bar.inc(1);
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(work);
        }
    });
    bar.finish_and_clear();
    Ok(summary.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Where the outputs of a step came from.
enum Origin {
    Run,
    Cache,
}

fn perform(step: &Step, keys: &Keys<'_>, cache: &Cache, out: &Path) -> Result<Origin, Failure> {
    let key = keys.of(step)?;
    if cache.restore(&key, out)? {
        return Ok(Origin::Cache);
    }
    hermetic::run(step, keys.sources)?.collect(out)?;
    cache.store(&key, step, out)?;
    Ok(Origin::Run)
}

fn progress(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}");
    ProgressBar::new(steps as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
