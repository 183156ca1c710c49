//! A server of the Remote Workers API in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use prost_types::Any;
use stockade_workers::reapi::connection::{Security, Service, connect};
use stockade_workers::reapi::proto::workers::bots_server::{Bots, BotsServer};
use stockade_workers::reapi::proto::workers::{
    BotSession, BotStatus, CreateBotSessionRequest, Lease, LeaseState, UpdateBotSessionRequest,
};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// How long a poll is held.
const HELD: Duration = Duration::from_secs(2);

#[derive(Clone, Default)]
pub struct FakeBots(Arc<(Mutex<State>, Notify)>);

#[derive(Default)]
pub struct State {
    pub queue: Vec<Lease>,
    /// Leases of the session.
    pub active: BTreeMap<String, Lease>,
    pub completed: Vec<Lease>,
    /// Names of sessions, the last one being valid.
    pub sessions: Vec<String>,
    pub last: BotSession,
    /// The status of the next call.
    pub fails: Option<Status>,
    pub last_call: Option<Instant>,
}

impl FakeBots {
    pub async fn start() -> (Self, Service) {
        let bots = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder().add_service(BotsServer::new(bots.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (bots, connect(&format!("http://{address}"), &Security::default()).unwrap())
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    pub fn add(&self, id: &str, payload: Any) {
        let lease =
            Lease { id: id.into(), payload: Some(payload), state: LeaseState::Active as i32, ..Default::default() };
        self.lock().queue.push(lease);
        self.0.1.notify_waiters();
    }

    /// Takes a lease back.
    pub fn cancel(&self, id: &str) {
        self.lock().active.remove(id).expect("an active lease");
    }

    /// Waits until something holds.
    pub async fn wait_until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let started = Instant::now();
        while !holds(&self.lock()) {
            assert!(started.elapsed() < Duration::from_secs(60), "waiting in vain until {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn answer(&self, mut session: BotSession) -> Result<BotSession, Status> {
        {
            let mut state = self.lock();
            state.last_call = Some(Instant::now());
            state.last = session.clone();
            if let Some(status) = state.fails.take() {
                return Err(status);
            }
            for lease in &session.leases {
                if lease.state == LeaseState::Completed as i32 && state.active.remove(&lease.id).is_some() {
                    state.completed.push(lease.clone());
                }
            }
        }
        let configs = &session.worker.as_ref().unwrap().configs;
        let capacity: usize = configs.iter().find(|config| config.key == "capacity").unwrap().value.parse().unwrap();
        let before = session.leases.len();
        let deadline = Instant::now() + HELD;
        loop {
            let notified = self.0.1.notified();
            {
                let mut state = self.lock();
                while session.status == BotStatus::Ok as i32 && state.active.len() < capacity && !state.queue.is_empty()
                {
                    let lease = state.queue.remove(0);
                    state.active.insert(lease.id.clone(), lease);
                }
                let is_full = state.active.len() == capacity;
                if state.active.len() != before || is_full || Instant::now() > deadline || session.status != 1 {
                    session.leases = state.active.values().cloned().collect();
                    session.expire_time = Some((SystemTime::now() + Duration::from_secs(60)).into());
                    return Ok(session);
                }
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), notified).await;
        }
    }
}

#[tonic::async_trait]
impl Bots for FakeBots {
    async fn create_bot_session(
        &self,
        request: Request<CreateBotSessionRequest>,
    ) -> Result<Response<BotSession>, Status> {
        let CreateBotSessionRequest { parent, bot_session } = request.into_inner();
        let mut session = bot_session.unwrap();
        {
            let mut state = self.lock();
            session.name = format!("{parent}/{}", state.sessions.len());
            state.sessions.push(session.name.clone());
            // What the same worker had goes back to the queue.
            let lost = std::mem::take(&mut state.active);
            state.queue.extend(lost.into_values());
        }
        Ok(Response::new(self.answer(session).await?))
    }

    async fn update_bot_session(
        &self,
        request: Request<UpdateBotSessionRequest>,
    ) -> Result<Response<BotSession>, Status> {
        let UpdateBotSessionRequest { name, bot_session, .. } = request.into_inner();
        if self.lock().sessions.last() != Some(&name) {
            return Err(Status::invalid_argument("no such session"));
        }
        Ok(Response::new(self.answer(bot_session.unwrap()).await?))
    }
}
