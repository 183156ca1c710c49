//! Calls that are tried again if the server cannot be reached, with longer and longer pauses.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Makes a call with a deadline, for the server and for this worker. (That of a request alone ends with the head of an answer,
/// whose body may never come.)
pub async fn within<M, T>(
    deadline: Duration,
    message: M,
    call: impl AsyncFnOnce(Request<M>) -> Result<Response<T>, Status>,
) -> Result<T, Status> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    let answer = tokio::time::timeout(deadline, call(request)).await;
    Ok(answer.map_err(|_| Status::deadline_exceeded(format!("no answer within {deadline:?}")))??.into_inner())
}

/// Returns whether a call that failed so may succeed later.
pub fn is_transient(status: &Status) -> bool {
    use Code::{Aborted, Cancelled, DeadlineExceeded, Internal, ResourceExhausted, Unavailable, Unknown};
    match status.code() {
        // What tonic says of a deadline is `Cancelled`.
        Unavailable | ResourceExhausted | Aborted | DeadlineExceeded | Cancelled => true,
        // What it says of a connection that was closed in mid-call.
        Unknown | Internal => is_of_transport(status),
        _ => false,
    }
}

fn is_of_transport(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::transport::Error>() || error.is::<std::io::Error>() {
            return true;
        }
        source = error.source();
    }
    status.message().contains("h2 protocol error") || status.message().contains("transport error")
}

/// The pauses between attempts.
#[derive(Debug)]
pub struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pauses {
    /// Returns the next pause: twice the last one, a little shorter or longer, so that workers do not come all at once.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        let jitter = uuid::Uuid::new_v4().as_bytes()[0];
        pause.mul_f64(0.75 + f64::from(jitter) / 512.0)
    }
}

/// The attempts of one call.
#[derive(Debug)]
pub struct Attempts {
    what: &'static str,
    patience: Duration,
    pauses: Pauses,
    first_failure: Option<Instant>,
}

impl Attempts {
    /// `patience`: how long a call is tried again after its first failure.
    pub fn new(what: &'static str, patience: Duration) -> Self {
        Self { what, patience, pauses: Pauses::default(), first_failure: None }
    }

    /// Waits until the call should be tried again.
    ///
    /// # Errors
    ///
    /// The status, if it is one for good, or patience has ended.
    pub async fn pause_after(&mut self, status: Status) -> Result<(), Status> {
        let pause = self.pauses.next_pause();
        let since = *self.first_failure.get_or_insert_with(Instant::now);
        if !is_transient(&status) || since.elapsed() + pause > self.patience {
            return Err(status);
        }
        tracing::debug!(%status, ?pause, "{} failed, and is tried again", self.what);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Calls a function until it succeeds, or its attempts have ended.
pub async fn retried<T, F: Future<Output = Result<T, Status>>>(
    what: &'static str,
    patience: Duration,
    mut call: impl FnMut() -> F,
) -> Result<T, Status> {
    let mut attempts = Attempts::new(what, patience);
    loop {
        match call().await {
            Ok(value) => return Ok(value),
            Err(status) => attempts.pause_after(status).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn transient_failures_are_retried_until_patience_ends() {
        let count = &std::cell::Cell::new(0);
        let failing = |status: fn(i32) -> Result<i32, Status>| {
            count.set(0);
            retried("a call", Duration::from_secs(60), move || {
                count.set(count.get() + 1);
                std::future::ready(status(count.get()))
            })
        };
        let third = failing(|count| if count == 3 { Ok(count) } else { Err(Status::unavailable("away")) }).await;
        assert_eq!(third.unwrap(), 3);
        let last = failing(|_| Err(Status::unavailable("away"))).await.unwrap_err();
        assert_eq!((last.code(), count.get() > 10), (Code::Unavailable, true));
        let at_once = failing(|_| Err(Status::invalid_argument("wrong"))).await.unwrap_err();
        assert_eq!((at_once.code(), count.get()), (Code::InvalidArgument, 1));
    }
}
