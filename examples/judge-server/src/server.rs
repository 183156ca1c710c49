//! The routes, and serving them until a future is ready.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::failure::Failure;
use crate::judging::Judge;
use crate::submission::Submission;
use crate::verdict::Judged;

/// Maximum size of a request, in bytes.
pub const LARGEST_REQUEST: usize = 256 << 10;

fn router(judge: Arc<Judge>) -> Router {
    Router::new()
        .route("/submissions", post(submit))
        .route("/status", get(status))
        .fallback(async || Failure::Route(StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(async || Failure::Route(StatusCode::METHOD_NOT_ALLOWED))
        .layer(DefaultBodyLimit::max(LARGEST_REQUEST))
        .with_state(judge)
}

/// Judges a submission. If the client disconnects, this future is dropped, which kills the program.
async fn submit(
    State(judge): State<Arc<Judge>>,
    submission: Result<Json<Submission>, JsonRejection>,
) -> Result<Json<Judged>, Failure> {
    let Json(submission) = submission?;
    judge.judge(submission).await.map(Json)
}

/// Returns what the server does now, and what it does not enforce.
async fn status(State(judge): State<Arc<Judge>>) -> Json<Value> {
    let pool = judge.pool();
    Json(json!({
        "submissions": judge.statistics(),
        "sessions": {
            "ready": pool.ready,
            "taken_ready": pool.taken_ready,
            "taken_unprepared": pool.taken_unprepared,
            "failed": pool.failed,
            "lost": pool.lost,
            "last_error": pool.last_error.map(|error| error.to_string()),
        },
        "unenforced": judge.enforcement().unenforced,
        "gaps": judge.enforcement().gaps,
    }))
}

/// Serves until `stop` is ready. Submissions that run then are judged and answered. Those that wait are turned away.
pub async fn serve(
    listener: TcpListener,
    judge: Arc<Judge>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let closing = judge.clone();
    let stopped = async move {
        stop.await;
        closing.close();
    };
    let served = axum::serve(listener, router(judge.clone())).with_graceful_shutdown(stopped).await;
    judge.shut_down_sessions().await;
    served
}
