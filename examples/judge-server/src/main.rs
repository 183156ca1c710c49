//! The program: options, messages, and signals.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use judge_server::judging::Judge;
use judge_server::sandboxes::Settings;
use judge_server::server;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Judges programs in sandboxes, over HTTP
#[derive(Parser)]
struct Options {
    /// Address to listen on; port 0 is a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Wall-clock limit of a program, in seconds
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wall_time: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("judge-server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let mut signals = Signals::new()?;
    let settings = Settings { wall_time: Duration::from_secs(options.wall_time), ..Settings::default() };
    let judge = Arc::new(Judge::new(&settings).await?);
    for unenforced in &judge.enforcement().unenforced {
        eprintln!("not enforced: {}: {}: {}", unenforced.layer, unenforced.requested, unenforced.reason);
    }
    for gap in &judge.enforcement().gaps {
        eprintln!("gap: {gap}");
    }
    let listener = TcpListener::bind(options.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel();
    let serving = server::serve(listener, judge, async {
        let _ = stopped.await;
    });
    let interrupted = async {
        signals.next().await;
        eprintln!("waiting for the submissions that run; a second signal kills them");
        let _ = stop.send(());
        signals.next().await;
    };
    tokio::select! {
        served = serving => Ok(served?),
        () = interrupted => Ok(()),
    }
}

/// The signals that ask the server to terminate.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
