//! Running one action: fetch its inputs, lay them out, run it in a sandbox, collect and upload its outputs.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prost::Message;
use prost_types::value::Kind;
use prost_types::{Any, Struct, Value};
use stockade::outcome::Usage;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::action_sandbox::{ActionSandbox, Ending, InputRoot, SandboxLimits};
use super::blob_cache::{BlobCache, Placement};
use super::cas::{Cas, Upload};
use super::digest::BlobDigest;
use super::failure::{Failure, blocking};
use super::input_tree::{InputLimits, InputTree, KnownDirectories};
use super::layout;
use super::outputs::{OutputLimits, Produced, RequestedPath, requested, resolve};
use super::platform::Offer;
use super::proto::execution::{Action, ActionResult, Command, Digest, ExecutedActionMetadata};
use super::slot::Slot;
use super::workplace::{ActionDirectory, Workplace};

/// Bytes of a stream that is in the result itself, and not in the CAS.
const INLINE: usize = 16 << 10;

/// Bytes of an action, and of a command, which are read into memory.
const LARGEST_MESSAGE: u64 = 32 << 20;

/// What is the same for all actions of a worker.
#[derive(Debug)]
pub struct ActionSettings {
    /// The name in the metadata of results.
    pub worker: String,
    pub input_root: InputRoot,
    pub placement: Placement,
    pub offer: Offer,
    pub sandbox: SandboxLimits,
    pub outputs: OutputLimits,
    pub inputs: InputLimits,
    /// Time of an action that asks for none, and the most that one may ask for.
    pub timeout: Duration,
    pub longest_timeout: Duration,
}

/// Runs actions.
#[derive(Debug)]
pub struct ActionRunner {
    pub cas: Cas,
    pub cache: Arc<BlobCache>,
    pub workplace: Workplace,
    pub settings: ActionSettings,
    pub known: KnownDirectories,
}

/// The end of an action: its result, and the failure besides which there may be one.
#[derive(Debug, Default)]
pub struct Finished {
    pub result: Option<ActionResult>,
    pub failure: Option<Failure>,
}

impl From<Failure> for Finished {
    fn from(failure: Failure) -> Self {
        Self { result: None, failure: Some(failure) }
    }
}

/// An action whose messages have been fetched.
struct Job {
    action: Action,
    command: Command,
    metadata: ExecutedActionMetadata,
}

impl ActionRunner {
    /// Runs the action of a lease. If it is cancelled, what runs is killed before this returns.
    pub async fn run(&self, payload: &Any, slot: &Slot, cancelled: &CancellationToken) -> Finished {
        self.try_run(payload, slot, cancelled).await.unwrap_or_else(Finished::from)
    }

    async fn try_run(&self, payload: &Any, slot: &Slot, cancelled: &CancellationToken) -> Result<Finished, Failure> {
        let mut job = unless(cancelled, self.fetch_job(payload)).await?;
        let directory = self.workplace.new_action()?;
        let finished = self.run_in(&mut job, &directory, slot, cancelled).await;
        // It may have many files.
        blocking(move || {
            drop(directory);
            Ok(())
        })
        .await?;
        finished
    }

    async fn fetch_job(&self, payload: &Any) -> Result<Job, Failure> {
        let metadata = ExecutedActionMetadata {
            worker: self.settings.worker.clone(),
            worker_start_timestamp: now(),
            ..Default::default()
        };
        let action: Action = match payload.type_url.rsplit('/').next() {
            Some("build.bazel.remote.execution.v2.Action") => decode(&payload.value, "the action of the lease")?,
            Some("build.bazel.remote.execution.v2.Digest") => {
                let digest: Digest = decode(&payload.value, "the digest of the lease")?;
                self.fetch_message(Some(&digest), "the action").await?
            }
            _ => return Err(Failure::invalid(format!("a lease of the type {:?} is no action", payload.type_url))),
        };
        let command = self.fetch_message(action.command_digest.as_ref(), "the command").await?;
        Ok(Job { action, command, metadata })
    }

    async fn fetch_message<M: Message + Default>(&self, digest: Option<&Digest>, what: &str) -> Result<M, Failure> {
        let digest = BlobDigest::required(digest, what)?;
        if digest.size() > LARGEST_MESSAGE {
            return Err(Failure::invalid(format!("{what} is larger than {LARGEST_MESSAGE} bytes")));
        }
        let blobs = self.cas.read(&[digest]).await.map_err(|failure| failure.during(format_args!("fetch {what}")))?;
        decode(&blobs[&digest], what)
    }

    async fn run_in(
        &self,
        job: &mut Job,
        directory: &ActionDirectory,
        slot: &Slot,
        cancelled: &CancellationToken,
    ) -> Result<Finished, Failure> {
        let settings = &self.settings;
        let asked = job.action.platform.as_ref().filter(|platform| !platform.properties.is_empty());
        let asked = asked.or(job.command.platform.as_ref()).map_or(&[][..], |platform| &platform.properties);
        let allowance = settings.offer.allow(asked, slot.cpus.len())?;
        let timeout = self.timeout(&job.action)?;
        let outputs = requested(&job.command, settings.outputs.entries)?;
        let working_directory = resolve("", &job.command.working_directory)?;

        job.metadata.input_fetch_start_timestamp = now();
        self.lay_out(job, directory, cancelled).await?;
        let root = directory.root();
        let mut directories: Vec<_> =
            outputs.iter().filter_map(|output| output.below.parent()).map(Path::to_owned).collect();
        directories.push(working_directory.clone());
        let at = open(&root)?;
        blocking(move || directories.iter().try_for_each(|path| layout::create_directories(&at, path))).await?;
        job.metadata.input_fetch_completed_timestamp = now();

        let described = ActionSandbox {
            input_root: settings.input_root,
            directory: &root,
            allowance: &allowance,
            limits: &settings.sandbox,
            timeout,
            cpus: &slot.cpu_list(),
        };
        job.metadata.execution_start_timestamp = now();
        let ended =
            execute(described.sandbox()?, described.command(&job.command, &working_directory)?, cancelled).await?;
        job.metadata.execution_completed_timestamp = now();
        let Ended { ending, streams, usage } = ended;
        if let Some(usage) = usage {
            add_usage(&mut job.metadata, &usage);
        }
        let (exit_code, failure) = match ending {
            Ending::Exited(code, _) => (code, None),
            Ending::TimedOut => {
                let message = format!("the action ran for longer than its timeout of {timeout:?}");
                (137, Some(Failure::new(Code::DeadlineExceeded, message)))
            }
            Ending::Again(reason) => return Err(Failure::new(Code::Unavailable, reason)),
        };

        job.metadata.output_upload_start_timestamp = now();
        let mut produced = self.collect(directory, outputs, streams, cancelled).await?;
        job.metadata.output_upload_completed_timestamp = now();
        job.metadata.worker_completed_timestamp = now();
        let mut result = std::mem::take(&mut produced.result);
        produced.give_to(&self.cache);
        result.exit_code = exit_code;
        result.execution_metadata = Some(job.metadata.clone());
        Ok(Finished { result: Some(result), failure })
    }

    fn timeout(&self, action: &Action) -> Result<Duration, Failure> {
        let Some(asked) = action.timeout else { return Ok(self.settings.timeout) };
        let asked = Duration::try_from(asked).ok().filter(|asked| !asked.is_zero());
        let asked = asked.ok_or_else(|| Failure::invalid("the timeout of the action is not more than 0"))?;
        let longest = self.settings.longest_timeout;
        if asked <= longest {
            return Ok(asked);
        }
        Err(Failure::invalid(format!("the action asks for a timeout of {asked:?}: this worker allows {longest:?}")))
    }

    async fn lay_out(
        &self,
        job: &Job,
        directory: &ActionDirectory,
        cancelled: &CancellationToken,
    ) -> Result<(), Failure> {
        let root = BlobDigest::required(job.action.input_root_digest.as_ref(), "the input root")?;
        let fetch = async {
            let tree = InputTree::fetch(&self.cas, &self.known, root, self.settings.inputs).await?;
            let pinned = layout::fetch_files(&self.cas, &self.cache, &tree).await?;
            Ok((tree, pinned))
        };
        let (tree, _pinned) = unless(cancelled, fetch).await?;
        let at = open(&directory.root())?;
        // To its end, so that nothing is written to a directory that is being removed.
        layout::lay_out(Arc::new(tree), self.cache.clone(), self.settings.placement, at).await
    }

    /// Collects and uploads the outputs and the streams.
    async fn collect(
        &self,
        directory: &ActionDirectory,
        outputs: Vec<RequestedPath>,
        [stdout, stderr]: [Vec<u8>; 2],
        cancelled: &CancellationToken,
    ) -> Result<Produced, Failure> {
        let (limits, directory) = (self.settings.outputs, directory.paths());
        // To its end, as laying out.
        let mut produced = blocking(move || Produced::collect(&directory, &outputs, limits)).await?;
        let mut uploads = std::mem::take(&mut produced.uploads);
        let result = &mut produced.result;
        (result.stdout_raw, result.stdout_digest) = stream(stdout, &mut uploads);
        (result.stderr_raw, result.stderr_digest) = stream(stderr, &mut uploads);
        let uploaded = unless(cancelled, self.cas.upload(uploads)).await;
        uploaded.map_err(|failure| failure.during("upload the outputs"))?;
        Ok(produced)
    }
}

/// An action that has run.
struct Ended {
    ending: Ending,
    streams: [Vec<u8>; 2],
    usage: Option<Usage>,
}

async fn execute(
    sandbox: stockade::Sandbox,
    command: stockade::Command,
    cancelled: &CancellationToken,
) -> Result<Ended, Failure> {
    let child = match stockade::tokio::spawn(&sandbox, command).await {
        Ok(child) => child,
        Err(error) => return not_executed(error),
    };
    let killer = child.killer();
    let mut waiting = std::pin::pin!(child.wait_with_output());
    let output = tokio::select! {
        output = &mut waiting => output?,
        () = cancelled.cancelled() => {
            killer.kill()?;
            // Nothing of it runs when its directory is removed.
            let _ = waiting.await;
            return Err(Failure::new(Code::Cancelled, "the action was cancelled"));
        }
    };
    let ending = Ending::of(output.outcome.termination);
    let mut stderr = output.stderr;
    if let Ending::Exited(_, Some(reason)) = &ending {
        add_line(&mut stderr, reason);
    }
    Ok(Ended { ending, streams: [output.stdout, stderr], usage: Some(output.outcome.usage) })
}

fn not_executed(error: stockade::Error) -> Result<Ended, Failure> {
    let ending = Ending::of_error(error)?;
    let mut stderr = vec![];
    if let Ending::Exited(_, Some(reason)) = &ending {
        add_line(&mut stderr, reason);
    }
    Ok(Ended { ending, streams: [vec![], stderr], usage: None })
}

fn add_line(stderr: &mut Vec<u8>, reason: &str) {
    if stderr.last().is_some_and(|last| *last != b'\n') {
        stderr.push(b'\n');
    }
    stderr.extend_from_slice(format!("stockade-reapi: {reason}\n").as_bytes());
}

/// Returns a stream as it is in the result: itself if it is short, and otherwise its digest.
fn stream(bytes: Vec<u8>, uploads: &mut Vec<Upload>) -> (Vec<u8>, Option<Digest>) {
    if bytes.len() <= INLINE {
        return (bytes, None);
    }
    let upload = Upload::bytes(bytes);
    let digest = upload.digest.into();
    uploads.push(upload);
    (vec![], Some(digest))
}

/// Returns the result of a future, or an error if the action is cancelled first.
async fn unless<T>(
    cancelled: &CancellationToken,
    future: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let result = cancelled.run_until_cancelled(future).await;
    result.unwrap_or_else(|| Err(Failure::new(Code::Cancelled, "the action was cancelled")))
}

fn decode<M: Message + Default>(bytes: &[u8], what: &str) -> Result<M, Failure> {
    M::decode(bytes).map_err(|error| Failure::invalid(format!("{what} is no message of the protocol: {error}")))
}

fn open(directory: &Path) -> Result<std::os::fd::OwnedFd, Failure> {
    use super::failure::Tried;
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::empty()).tried("open the input root")
}

fn now() -> Option<prost_types::Timestamp> {
    Some(SystemTime::now().into())
}

/// Adds what the action has used to the metadata: CPU time as the protocol has it, and the rest as a struct.
fn add_usage(metadata: &mut ExecutedActionMetadata, usage: &Usage) {
    let seconds = |time: Duration| Some(time.as_secs_f64());
    let figures = [
        ("wall_seconds", seconds(usage.wall_time)),
        ("cpu_seconds", usage.cpu_time.and_then(|reading| seconds(reading.value))),
        ("user_seconds", usage.user_time.and_then(|reading| seconds(reading.value))),
        ("system_seconds", usage.system_time.and_then(|reading| seconds(reading.value))),
        ("memory_peak_bytes", usage.memory_peak.map(|reading| reading.value as f64)),
        ("max_rss_bytes", usage.max_rss.map(|reading| reading.value as f64)),
        ("read_bytes", usage.read_bytes.map(|reading| reading.value as f64)),
        ("written_bytes", usage.written_bytes.map(|reading| reading.value as f64)),
    ];
    let number = |value| Value { kind: Some(Kind::NumberValue(value)) };
    let fields = figures.into_iter().filter_map(|(name, value)| Some((name.to_owned(), number(value?))));
    let fields = Struct { fields: fields.collect() };
    let type_url = "type.googleapis.com/google.protobuf.Struct".to_owned();
    metadata.auxiliary_metadata.push(Any { type_url, value: fields.encode_to_vec() });
    metadata.virtual_execution_duration = usage.wall_time.try_into().ok();
}
