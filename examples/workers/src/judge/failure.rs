//! Why a job has no verdict.

use std::error::Error;
use std::fmt::{self, Display, Formatter};

/// A failure that is not the submission's.
#[derive(Debug)]
pub enum Failure {
    /// The job is invalid, and will be so on every worker.
    Job(String),
    /// This worker could not judge the job. Another, or the same one later, may be able to.
    Worker(String),
}

impl Failure {
    /// Returns a closure that turns an error into a failure of this worker, with what was tried.
    pub fn to<E: Display>(what: impl Display) -> impl FnOnce(E) -> Self {
        move |error| Self::Worker(format!("failed to {what}: {error}"))
    }

    /// Creates the failure of a sandbox.
    pub fn sandbox(what: &str, error: &stockade::Error) -> Self {
        Self::Worker(format!("failed to run {what}: {error}"))
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(error) => write!(f, "invalid job: {error}"),
            Self::Worker(error) => f.write_str(error),
        }
    }
}

impl Error for Failure {}
