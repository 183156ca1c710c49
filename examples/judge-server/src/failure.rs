//! Why a submission has no verdict, and the answer to its client: a status code, and JSON with `error` and `hint`.

use std::io;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use stockade::Termination;

#[derive(Debug)]
pub enum Failure {
    /// The request is not a submission.
    Request(JsonRejection),
    /// Nothing is at this path, or not with this method.
    Route(StatusCode),
    /// Too many submissions wait.
    Busy,
    ShuttingDown,
    /// The sandbox could not be started or used.
    Sandbox(stockade::Error),
    /// A file of the sandbox could not be read or written.
    File(io::Error),
    /// The program was terminated for a reason that is not its own.
    Terminated(Termination),
}

impl Failure {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Request(rejection) => rejection.status(),
            Self::Route(status) => *status,
            Self::Busy | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Sandbox(_) | Self::File(_) | Self::Terminated(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error(&self) -> String {
        match self {
            Self::Request(rejection) => rejection.body_text(),
            Self::Route(status) => status.canonical_reason().unwrap_or_default().to_lowercase(),
            Self::Busy => "too many submissions are waiting".into(),
            Self::ShuttingDown => "the server is shutting down".into(),
            Self::Sandbox(error) => error.to_string(),
            Self::File(error) => format!("failed to copy a file of the submission: {error}"),
            Self::Terminated(termination) => format!("failed to judge the submission: {termination}"),
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Request(_) => {
                "send {\"language\": \"sh\" | \"python3\" | \"c\", \"source\", \"input\", \"expected\"}"
            }
            Self::Route(_) => "use POST /submissions or GET /status",
            Self::Sandbox(error) => error.hint().unwrap_or_default(),
            Self::Busy | Self::ShuttingDown | Self::File(_) | Self::Terminated(_) => "submit it again later",
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = self.status();
        let error = self.error();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            eprintln!("judge-server: {error}");
        }
        (status, Json(json!({ "error": error, "hint": self.hint() }))).into_response()
    }
}

impl From<stockade::Error> for Failure {
    fn from(error: stockade::Error) -> Self {
        Self::Sandbox(error)
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Self::Request(rejection)
    }
}
