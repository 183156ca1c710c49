//! The HTTP front: routes, and the page for people. What judges is behind [`Backend`].

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event as ServerEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use super::broker::{Broker, CurrentChannel, publish};
use super::failure::Failure;
use super::job::{Job, LARGEST_SOURCES, LARGEST_TESTS, Priority, Program, Source};
use super::problem::Problem;
use super::record::{TRIED_AGAIN_AFTER, blocking};
use super::report::{JobResult, TestResult};
use super::slots::{Event, Slots};
use super::store::Store;
use super::tracker::{End, Progress, Tracker};

/// Maximum size of a request, in bytes. Escapes of JSON can take several bytes for one.
const LARGEST_REQUEST: usize = 2 * (LARGEST_TESTS + LARGEST_SOURCES);
/// Number of jobs that may wait in-process, and the size of their texts in bytes. Further ones are turned away.
const MOST_WAITING: (usize, usize) = (1000, 1 << 30);
/// Number of event streams that may be open. Each takes a descriptor, which the judge needs too.
const MOST_STREAMS: usize = 256;

/// What judges.
#[derive(Debug)]
pub enum Backend {
    /// This process.
    Embedded(Arc<Slots>),
    /// Workers, through a broker.
    Broker { broker: Broker, channel: CurrentChannel, tracker: Arc<Tracker> },
}

#[derive(Debug)]
pub struct Front {
    /// Names that clients may know this server by, besides `localhost` and IP addresses.
    hosts: Vec<String>,
    problems: BTreeMap<String, Problem>,
    /// Names of the languages.
    languages: Vec<String>,
    store: Arc<Store>,
    backend: Backend,
    streams: Arc<Semaphore>,
}

/// A program for a problem that the front knows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Submission {
    problem: String,
    language: String,
    source: String,
    #[serde(default)]
    priority: Priority,
}

/// How far a job is, as clients get it.
#[derive(Debug, Serialize)]
struct Status {
    id: String,
    state: &'static str,
    /// The tests that were judged so far.
    tests: Vec<TestResult>,
    result: Option<JobResult>,
}

/// An answer without a job.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    error: String,
    hint: &'static str,
}

impl Refusal {
    fn invalid(error: impl ToString) -> Self {
        let hint = "see \"A job\" in README.md for the form of jobs and submissions";
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, error: error.to_string(), hint }
    }

    fn unknown(what: &str) -> Self {
        let hint = "use a problem of GET /api/problems, or the ID that a POST has returned: see \"HTTP\" in README.md";
        Self { status: StatusCode::NOT_FOUND, error: format!("{what} is unknown"), hint }
    }

    fn misdirected() -> Self {
        let error = "this server does not know itself by the name in the header Host".into();
        let hint = "use its IP address or localhost, or start it with --host NAME";
        Self { status: StatusCode::MISDIRECTED_REQUEST, error, hint }
    }

    fn later(error: impl ToString) -> Self {
        let hint = "send it again later, with the same ID";
        Self { status: StatusCode::SERVICE_UNAVAILABLE, error: error.to_string(), hint }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.error, "hint": self.hint }))).into_response()
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Job(_) => Self::invalid(failure),
            Failure::Worker(_) => {
                tracing::error!("{failure}");
                Self { status: StatusCode::INTERNAL_SERVER_ERROR, error: failure.to_string(), hint: "try again later" }
            }
        }
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self { status: rejection.status(), ..Self::invalid(rejection.body_text()) }
    }
}

/// Returns the routes.
pub fn router(front: Arc<Front>) -> Router {
    let file = |kind, text| get(move || async move { page_file(kind, text) });
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("../../web/index.html")))
        .route("/judge.css", file("text/css; charset=utf-8", include_str!("../../web/judge.css")))
        .route("/judge.js", file("text/javascript; charset=utf-8", include_str!("../../web/judge.js")))
        .route("/api/problems", get(problems))
        .route("/api/languages", get(async |State(front): State<Arc<Front>>| Json(front.languages.clone())))
        .route("/api/submissions", post(submit_program))
        .route("/api/jobs", post(submit_job))
        .route("/api/jobs/{id}", get(status))
        .route("/api/jobs/{id}/events", get(events))
        .fallback(async || Refusal::unknown("this path"))
        .layer(DefaultBodyLimit::max(LARGEST_REQUEST))
        .layer(from_fn_with_state(front.clone(), guard))
        .with_state(front)
}

/// Refuses requests to other hosts. A page of another site can have its own name resolve to the address of this server
/// (DNS rebinding), and its scripts could then submit jobs and read results.
async fn guard(State(front): State<Arc<Front>>, request: Request, next: Next) -> Response {
    let mut response = match is_own(request.headers(), &front.hosts) {
        true => next.run(request).await,
        false => Refusal::misdirected().into_response(),
    };
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Returns whether a request is to an IP address, `localhost`, or one of these hosts.
fn is_own(headers: &HeaderMap, hosts: &[String]) -> bool {
    let authority = headers.get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    authority.is_some_and(|authority| {
        let host = authority.host();
        let is_address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        is_address || hosts.iter().map(String::as_str).chain(["localhost"]).any(|own| host.eq_ignore_ascii_case(own))
    })
}

/// Returns a file of the page. The page runs no script and loads no file from elsewhere, whatever a program prints.
fn page_file(kind: &'static str, text: &'static str) -> Response {
    const POLICY: &str = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
                          frame-ancestors 'none'";
    let headers = [(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, POLICY), (CACHE_CONTROL, "no-cache")];
    (headers, text).into_response()
}

async fn problems(State(front): State<Arc<Front>>) -> Json<Value> {
    let descriptions: Vec<_> = front.problems.values().map(|problem| &problem.description).collect();
    Json(json!(descriptions))
}

async fn submit_program(
    State(front): State<Arc<Front>>,
    submission: Result<Json<Submission>, JsonRejection>,
) -> Result<Response, Refusal> {
    let Json(Submission { problem, language, source, priority }) = submission?;
    let name = problem;
    let problem = front.problems.get(&name).ok_or_else(|| Refusal::unknown(&format!("the problem {name:?}")))?;
    let program = Program { language, sources: vec![Source { name: None, text: source }] };
    front.submit(problem.job(new_id(), priority, program)).await
}

async fn submit_job(
    State(front): State<Arc<Front>>,
    job: Result<Json<Value>, JsonRejection>,
) -> Result<Response, Refusal> {
    let Json(mut job) = job?;
    if let Some(job) = job.as_object_mut() {
        job.entry("id").or_insert_with(|| new_id().into());
    }
    front.submit(serde_path_to_error::deserialize(job).map_err(Refusal::invalid)?).await
}

fn new_id() -> String {
    Uuid::now_v7().to_string()
}

async fn status(State(front): State<Arc<Front>>, Path(id): Path<String>) -> Result<Json<Status>, Refusal> {
    let progress = front.progress(&id).await?;
    let status = Status::of(id, &progress.borrow());
    Ok(Json(status))
}

impl Status {
    fn of(id: String, progress: &Progress) -> Self {
        let result = match &progress.end {
            // What a client has seen must not be lost.
            Some(End::Result(result)) => progress.is_kept.then(|| (**result).clone()),
            Some(End::Failed(error)) => Some(JobResult::failed(&id, &Failure::Worker(error.clone()))),
            Some(End::Dropped) | None => None,
        };
        let state = match (&result, progress.is_running) {
            (Some(_), _) => "ended",
            (None, true) => "running",
            (None, false) => "waiting",
        };
        Self { id, state, tests: progress.tests.clone(), result }
    }
}

/// Streams the steps of a job: `start`, then `test` for each test, then `result`. `start` comes again if the job has to be
/// judged anew, such as on another worker.
async fn events(
    State(front): State<Arc<Front>>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<ServerEvent, Infallible>>>, Refusal> {
    let permit = front.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Refusal::later("too many event streams are open"))?;
    let progress = front.progress(&id).await?;
    Ok(Sse::new(stream(id, progress, permit)).keep_alive(KeepAlive::default()))
}

/// Returns the progress of a job that has ended.
fn ended(result: JobResult) -> watch::Receiver<Progress> {
    let tests = result.tests.clone();
    watch::channel(Progress { is_running: true, tests, end: Some(End::Result(Arc::new(result))), is_kept: true }).1
}

/// What a client of a stream has got.
#[derive(Default)]
struct Sent {
    has_started: bool,
    tests: usize,
    is_over: bool,
}

fn stream(
    id: String,
    progress: watch::Receiver<Progress>,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<ServerEvent, Infallible>> {
    unfold((id, progress, permit, Sent::default()), async |(id, mut progress, permit, mut sent)| {
        loop {
            if sent.is_over {
                return None;
            }
            let next = sent.next(&id, &progress.borrow_and_update());
            if let Some((name, data)) = next {
                let event = ServerEvent::default().event(name).data(data.to_string());
                return Some((Ok(event), (id, progress, permit, sent)));
            }
            // The job was dropped, since the server is shutting down.
            progress.changed().await.ok()?;
        }
    })
}

impl Sent {
    /// Returns the next event, if it has happened.
    fn next(&mut self, id: &str, progress: &Progress) -> Option<(&'static str, Value)> {
        if progress.is_running && !self.has_started || progress.tests.len() < self.tests {
            (self.has_started, self.tests) = (true, 0);
            return Some(("start", json!({})));
        }
        if let Some(test) = progress.tests.get(self.tests) {
            self.tests += 1;
            return Some(("test", json!(test)));
        }
        let result = Status::of(id.to_owned(), progress).result?;
        self.is_over = true;
        Some(("result", json!(result)))
    }
}

impl Backend {
    fn tracker(&self) -> &Tracker {
        match self {
            Self::Embedded(slots) => slots.tracker(),
            Self::Broker { tracker, .. } => tracker,
        }
    }

    /// Returns the progress of a job that was accepted and has no result.
    fn follow(&self, id: &str) -> watch::Receiver<Progress> {
        match self {
            // It is just ending. The stream ends, and a client that connects again gets the result.
            Self::Embedded(_) => watch::channel(Progress::default()).1,
            // Another process has accepted it, or this one before it was started again.
            Self::Broker { tracker, .. } => tracker.track(id).0,
        }
    }

    async fn submit(&self, job: Job) -> Result<(), Refusal> {
        match self {
            Self::Embedded(slots) => {
                let (jobs, bytes) = slots.waiting();
                if jobs >= MOST_WAITING.0 || bytes + job.size() > MOST_WAITING.1 {
                    return Err(Refusal::later("too many jobs are waiting"));
                }
                slots.submit(job);
                Ok(())
            }
            Self::Broker { broker, channel, tracker } => {
                let current = channel.borrow().clone();
                let current = current.ok_or_else(|| Refusal::later("the broker is not reachable now"))?;
                let json = serde_json::to_vec(&job).map_err(Refusal::invalid)?;
                let (_, is_new) = tracker.track(&job.id);
                let published = publish(&current, broker.jobs(job.priority), &job.id, &json).await;
                if published.is_err() && is_new {
                    tracker.forget(&job.id);
                }
                published.map_err(Refusal::later)
            }
        }
    }
}

impl Front {
    pub fn new(
        hosts: Vec<String>,
        problems: BTreeMap<String, Problem>,
        languages: Vec<String>,
        store: Arc<Store>,
        backend: Backend,
    ) -> Self {
        Self { hosts, problems, languages, store, backend, streams: Arc::new(Semaphore::new(MOST_STREAMS)) }
    }

    async fn submit(&self, job: Job) -> Result<Response, Refusal> {
        job.validate()?;
        let id = job.id.clone();
        let has_verdict = self.result(&id).await?.is_some_and(|result| result.has_verdict());
        if !has_verdict && self.backend.tracker().get(&id).is_none() {
            let (store, again) = (self.store.clone(), id.clone());
            let failure = blocking(move || store.withdraw_failure(&again)).await?;
            if let Err(refusal) = self.backend.submit(job).await {
                let store = self.store.clone();
                blocking(move || failure.map_or(Ok(()), |failure| store.record(&failure).map(drop))).await?;
                return Err(refusal);
            }
            let (store, accepted) = (self.store.clone(), id.clone());
            blocking(move || store.accept(&accepted)).await?;
        }
        Ok((StatusCode::ACCEPTED, Json(json!({ "id": id }))).into_response())
    }

    /// Returns the progress of a job that is known.
    async fn progress(&self, id: &str) -> Result<watch::Receiver<Progress>, Refusal> {
        match (self.result(id).await?, self.backend.tracker().get(id)) {
            (Some(result), _) => Ok(ended(result)),
            (None, Some(progress)) => Ok(progress),
            (None, None) if self.store.is_accepted(id) => Ok(self.backend.follow(id)),
            (None, None) => Err(Refusal::unknown("this job")),
        }
    }

    async fn result(&self, id: &str) -> Result<Option<JobResult>, Refusal> {
        let (store, id) = (self.store.clone(), id.to_owned());
        Ok(blocking(move || store.result(&id)).await?)
    }
}

/// Stores what the slots of this process have judged, until they end.
pub async fn keep_results(slots: Arc<Slots>, store: Arc<Store>, mut events: mpsc::UnboundedReceiver<Event>) {
    let mut storing = JoinSet::new();
    while let Some(event) = events.recv().await {
        let result = match event {
            Event::Step(_) => continue,
            Event::Result(result) => result,
            Event::Failed { id, error } => Arc::new(JobResult::failed(&id, &Failure::Worker(error))),
        };
        tracing::info!(job = result.id, verdict = result.summary, error = result.error, "judged");
        storing.spawn(store_surely(slots.clone(), store.clone(), result));
        while storing.try_join_next().is_some() {}
    }
    while storing.join_next().await.is_some() {}
}

/// Stores a result, again and again until the disk has it: a client may have seen it.
async fn store_surely(slots: Arc<Slots>, store: Arc<Store>, result: Arc<JobResult>) {
    loop {
        let (store, stored) = (store.clone(), result.clone());
        match blocking(move || store.record(&stored)).await {
            Ok(_) => return slots.tracker().keep(&result),
            Err(failure) => tracing::error!("{failure}; trying again"),
        }
        sleep(TRIED_AGAIN_AFTER).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_another_site_could_give_this_server_are_not_its_own() {
        for (host, expected) in [
            ("127.0.0.1:8080", true),
            ("192.0.2.7", true),
            ("[::1]:8080", true),
            ("LOCALHOST:8080", true),
            ("judge.example", true),
            ("other.example", false),
            ("127.0.0.1.other.example", false),
            ("localhost.other.example", false),
            ("judge.example.other.example:8080", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            assert_eq!(is_own(&headers, &["judge.example".into()]), expected, "{host:?}");
        }
        assert!(!is_own(&HeaderMap::new(), &[]));
    }
}
