//! The error of an action or of a call, as the protocol has it: a code, a message, and details.

use std::fmt::{self, Display, Formatter};

use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};

use super::digest::BlobDigest;
use super::proto::rpc;
use super::retry::is_transient;

/// Missing blobs that a status names. Clients upload all that is missing, and a status must fit into a message of the session.
const MOST_MISSING: usize = 1000;
/// Bytes of the text of a status, parts of which are the action's.
const LONGEST_MESSAGE: usize = 16 << 10;

/// An error that is reported to the server, or to the operator.
#[derive(Clone, Debug)]
pub struct Failure {
    pub code: Code,
    pub message: String,
    details: Vec<Any>,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: vec![] }
    }

    /// The action is wrong: another worker would say the same.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// This worker cannot run the action, or must not report its outputs.
    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }

    /// This worker is broken. The server tries the action again.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// Blobs are not in the CAS. The client uploads them, and tries again.
    pub fn missing<'a>(digests: impl IntoIterator<Item = &'a BlobDigest>) -> Self {
        let mut digests = digests.into_iter();
        let subjects: Vec<_> = digests.by_ref().take(MOST_MISSING).map(|digest| format!("blobs/{digest}")).collect();
        let more = match digests.count() {
            0 => String::new(),
            count => format!(", and {count} more"),
        };
        let message = format!("the CAS lacks {}{more}", subjects.join(", "));
        let violation = |subject| rpc::precondition_failure::Violation {
            r#type: "MISSING".into(),
            subject,
            description: "a blob of the action is not in the CAS".into(),
        };
        let failure = rpc::PreconditionFailure { violations: subjects.into_iter().map(violation).collect() };
        let detail = Any {
            type_url: "type.googleapis.com/google.rpc.PreconditionFailure".into(),
            value: failure.encode_to_vec(),
        };
        Self { details: vec![detail], ..Self::precondition(message) }
    }

    /// Says what was tried.
    #[must_use]
    pub fn during(mut self, what: impl Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Returns the status of a lease.
    pub fn into_status(mut self) -> rpc::Status {
        let most = self.message.len().min(LONGEST_MESSAGE);
        let end = (0..=most).rev().find(|&end| self.message.is_char_boundary(end));
        self.message.truncate(end.unwrap_or_default());
        rpc::Status { code: self.code as i32, message: self.message, details: self.details }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.message, self.code)
    }
}

impl std::error::Error for Failure {}

/// The errors of calls. One that the server may not have later is `Unavailable`: `DeadlineExceeded` and `Cancelled` would be
/// those of the action.
impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let code = if is_transient(&status) { Code::Unavailable } else { status.code() };
        Self::new(code, status.message())
    }
}

/// The errors of the sandbox, by whose fault they are.
impl From<stockade::Error> for Failure {
    fn from(error: stockade::Error) -> Self {
        use stockade::ErrorKind::{InvalidConfiguration, LimitExceeded, Unsupported};
        let message = error.to_string();
        match error.kind() {
            InvalidConfiguration => Self::invalid(message),
            Unsupported | LimitExceeded => Self::precondition(message),
            _ => Self::internal(message),
        }
    }
}

/// Adds what was tried to an error of the file system.
pub trait Tried<T> {
    fn tried(self, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> Tried<T> for Result<T, E> {
    fn tried(self, what: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::internal(format!("failed to {what}: {error}")))
    }
}

/// Calls a function that blocks, on a thread for that.
pub async fn blocking<T: Send + 'static>(
    function: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(function).await.unwrap_or_else(|error| Err(Failure::internal(error.to_string())))
}
