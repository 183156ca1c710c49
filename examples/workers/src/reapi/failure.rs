//! The error of an action or of a call, as the protocol has it: a code, a message, and details.

use std::fmt::{self, Display, Formatter};

use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};

use super::digest::BlobDigest;
use super::proto::rpc;

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
        let subjects: Vec<_> = digests.into_iter().map(|digest| format!("blobs/{digest}")).collect();
        let message = format!("the CAS lacks {}", subjects.join(", "));
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
    pub fn into_status(self) -> rpc::Status {
        rpc::Status { code: self.code as i32, message: self.message, details: self.details }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.message, self.code)
    }
}

impl std::error::Error for Failure {}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::new(status.code(), status.message())
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
