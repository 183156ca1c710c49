//! The content-addressed storage of the server. What comes from it is compared with its digest, always.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::time::Duration;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::connection::Service;
use super::digest::{BlobDigest, Digesting};
use super::failure::{Failure, Tried, blocking};
use super::proto::bytestream::byte_stream_client::ByteStreamClient;
use super::proto::bytestream::{ReadRequest, WriteRequest};
use super::proto::execution::batch_update_blobs_request::Request as Update;
use super::proto::execution::capabilities_client::CapabilitiesClient;
use super::proto::execution::content_addressable_storage_client::ContentAddressableStorageClient;
use super::proto::execution::{
    BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest, GetCapabilitiesRequest,
};
use super::retry::{Attempts, retried, within};

/// The largest message that servers of gRPC accept if they are not configured, without some room for the rest of it.
const LARGEST_BATCH: u64 = (4 << 20) - (64 << 10);
/// Bytes that a blob takes in a message besides its contents.
const OVERHEAD: u64 = 128;
/// Digests in a question for missing blobs.
const DIGESTS_AT_ONCE: usize = 10_000;
/// Bytes of a large blob in a message.
const CHUNK: usize = 512 << 10;
/// How long a call may take.
const CALL: Duration = Duration::from_secs(60);
/// The same for a large blob.
const TRANSFER: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
pub struct Cas {
    storage: ContentAddressableStorageClient<Service>,
    streams: ByteStreamClient<Service>,
    instance: String,
    /// Bytes in a batch.
    batch: u64,
    /// How long a server may be away.
    patience: Duration,
}

/// A blob to upload.
#[derive(Clone, Debug)]
pub struct Upload {
    pub digest: BlobDigest,
    pub contents: Contents,
}

#[derive(Clone, Debug)]
pub enum Contents {
    Bytes(Vec<u8>),
    /// A file of the worker, which nothing else changes.
    File(PathBuf),
}

impl Upload {
    pub fn bytes(bytes: Vec<u8>) -> Self {
        Self { digest: BlobDigest::of(&bytes), contents: Contents::Bytes(bytes) }
    }
}

impl Cas {
    pub fn new(service: Service, instance: String, patience: Duration) -> Self {
        // A server may send as much as it likes to; what it sends is asked for, and so not larger than a batch.
        let storage = ContentAddressableStorageClient::new(service.clone()).max_decoding_message_size(16 << 20);
        let streams = ByteStreamClient::new(service).max_decoding_message_size(16 << 20);
        Self { storage, streams, instance, batch: LARGEST_BATCH, patience }
    }

    /// Asks the server for the size of batches that it accepts. One that does not answer has the default.
    #[must_use]
    pub async fn with_server_limits(mut self, service: Service) -> Self {
        let mut capabilities = CapabilitiesClient::new(service);
        let request = GetCapabilitiesRequest { instance_name: self.instance.clone() };
        if let Ok(answer) = within(CALL, request, async |request| capabilities.get_capabilities(request).await).await {
            let cache = answer.cache_capabilities.unwrap_or_default();
            if let Ok(most @ 1..) = u64::try_from(cache.max_batch_total_size_bytes) {
                self.batch = most.min(LARGEST_BATCH);
            }
        }
        self
    }

    /// Returns whether a blob is too large for a batch.
    pub fn is_large(&self, digest: &BlobDigest) -> bool {
        digest.size() + OVERHEAD > self.batch
    }

    /// Reads blobs into memory, which should be small ones.
    pub async fn read(&self, digests: &[BlobDigest]) -> Result<HashMap<BlobDigest, Vec<u8>>, Failure> {
        let mut found = HashMap::new();
        let unique: HashSet<_> = digests.iter().copied().collect();
        let (large, small): (Vec<_>, Vec<_>) = unique.into_iter().partition(|digest| self.is_large(digest));
        for batch in self.batches(small, |digest| digest.size()) {
            self.read_batch(&batch, &mut found).await?;
        }
        for digest in large {
            let mut bytes = vec![];
            self.stream(digest, |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })
            .await?;
            found.insert(digest, bytes);
        }
        Ok(found)
    }

    async fn read_batch(
        &self,
        digests: &[BlobDigest],
        found: &mut HashMap<BlobDigest, Vec<u8>>,
    ) -> Result<(), Failure> {
        let request = BatchReadBlobsRequest {
            instance_name: self.instance.clone(),
            digests: digests.iter().map(|&digest| digest.into()).collect(),
        };
        let response = retried("BatchReadBlobs", self.patience, || {
            let (mut storage, request) = (self.storage.clone(), request.clone());
            async move { within(CALL, request, async |request| storage.batch_read_blobs(request).await).await }
        });
        for blob in response.await?.responses {
            let digest = BlobDigest::required(blob.digest.as_ref(), "a blob of the CAS")?;
            let code = blob.status.as_ref().map_or(Code::Ok, |status| Code::from(status.code));
            match code {
                Code::Ok => {
                    check(digest, BlobDigest::of(&blob.data))?;
                    found.insert(digest, blob.data);
                }
                Code::NotFound => {}
                code => {
                    let message = blob.status.map(|status| status.message).unwrap_or_default();
                    return Err(Failure::new(code, message).during(format_args!("read {digest} from the CAS")));
                }
            }
        }
        let missing: Vec<_> = digests.iter().filter(|digest| !found.contains_key(digest)).collect();
        if missing.is_empty() { Ok(()) } else { Err(Failure::missing(missing)) }
    }

    /// Writes a blob to a file, from its beginning.
    pub async fn download(&self, digest: BlobDigest, mut file: &File) -> Result<(), Failure> {
        self.stream(digest, |piece| file.write_all(piece).tried("write a blob to the cache")).await
    }

    /// Reads a large blob piece by piece. If the connection breaks, it goes on where it was.
    async fn stream(
        &self,
        digest: BlobDigest,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut digesting = Digesting::default();
        let mut attempts = Attempts::new("Read", self.patience);
        let failed = |status: Status| match status.code() {
            Code::NotFound => Failure::missing([&digest]),
            _ => Failure::from(status).during(format_args!("read {digest} from the CAS")),
        };
        while let Err(status) = self.stream_rest(digest, &mut digesting, &mut take).await? {
            attempts.pause_after(status).await.map_err(failed)?;
        }
        check(digest, digesting.finish())
    }

    /// Reads what is not digested yet. The inner error is one of the connection.
    async fn stream_rest(
        &self,
        digest: BlobDigest,
        digesting: &mut Digesting,
        take: &mut impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<Result<(), Status>, Failure> {
        let resource_name = format!("{}blobs/{digest}", self.prefix());
        let request = ReadRequest { resource_name, read_offset: digesting.size() as i64, read_limit: 0 };
        let mut streams = self.streams.clone();
        let mut pieces = match within(TRANSFER, request, async |request| streams.read(request).await).await {
            Ok(pieces) => pieces,
            Err(status) => return Ok(Err(status)),
        };
        loop {
            let stalled = || Status::deadline_exceeded(format!("nothing was sent for {:?}", self.patience));
            let piece = tokio::time::timeout(self.patience, pieces.message()).await;
            match piece.unwrap_or_else(|_| Err(stalled())) {
                Ok(Some(piece)) => {
                    digesting.add(&piece.data);
                    if digesting.size() > digest.size() {
                        let message = format!("the CAS has sent more for {digest} than its digest says");
                        return Err(Failure::new(Code::DataLoss, message));
                    }
                    take(&piece.data)?;
                }
                Ok(None) => return Ok(Ok(())),
                Err(status) => return Ok(Err(status)),
            }
        }
    }

    /// Uploads the blobs that the CAS lacks.
    pub async fn upload(&self, uploads: Vec<Upload>) -> Result<(), Failure> {
        let mut uploads: HashMap<_, _> = uploads.into_iter().map(|upload| (upload.digest, upload)).collect();
        let missing = self.missing(uploads.keys().copied().collect()).await?;
        let missing = missing.iter().filter_map(|digest| uploads.remove(digest));
        let (large, small): (Vec<_>, Vec<_>) = missing.partition(|upload| self.is_large(&upload.digest));
        for batch in self.batches(small, |upload| upload.digest.size()) {
            self.upload_batch(batch).await?;
        }
        for upload in large {
            self.upload_stream(&upload).await?;
        }
        Ok(())
    }

    async fn missing(&self, digests: Vec<BlobDigest>) -> Result<Vec<BlobDigest>, Failure> {
        let mut missing = vec![];
        for digests in digests.chunks(DIGESTS_AT_ONCE) {
            let request = FindMissingBlobsRequest {
                instance_name: self.instance.clone(),
                blob_digests: digests.iter().map(|&digest| digest.into()).collect(),
            };
            let response = retried("FindMissingBlobs", self.patience, || {
                let (mut storage, request) = (self.storage.clone(), request.clone());
                async move { within(CALL, request, async |request| storage.find_missing_blobs(request).await).await }
            });
            for digest in &response.await?.missing_blob_digests {
                missing.push(digest.try_into()?);
            }
        }
        Ok(missing)
    }

    async fn upload_batch(&self, uploads: Vec<Upload>) -> Result<(), Failure> {
        let mut requests = vec![];
        for Upload { digest, contents } in uploads {
            let data = match contents {
                Contents::Bytes(bytes) => bytes,
                Contents::File(path) => blocking(move || std::fs::read(path).tried("read an output")).await?,
            };
            requests.push(Update { digest: Some(digest.into()), data });
        }
        let request = BatchUpdateBlobsRequest { instance_name: self.instance.clone(), requests };
        let response = retried("BatchUpdateBlobs", self.patience, || {
            let (mut storage, request) = (self.storage.clone(), request.clone());
            async move { within(CALL, request, async |request| storage.batch_update_blobs(request).await).await }
        });
        for blob in response.await?.responses {
            let status = blob.status.unwrap_or_default();
            if status.code != Code::Ok as i32 {
                let hash = blob.digest.unwrap_or_default().hash;
                return Err(Failure::new(Code::from(status.code), status.message)
                    .during(format_args!("write {hash} to the CAS")));
            }
        }
        Ok(())
    }

    async fn upload_stream(&self, upload: &Upload) -> Result<(), Failure> {
        let digest = upload.digest;
        let written = retried("Write", self.patience, || self.write(upload.clone())).await;
        written.map_err(|status| Failure::from(status).during(format_args!("write {digest} to the CAS")))
    }

    async fn write(&self, Upload { digest, contents }: Upload) -> Result<(), Status> {
        let resource = format!("{}uploads/{}/blobs/{digest}", self.prefix(), uuid::Uuid::new_v4());
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        let reading = tokio::task::spawn_blocking(move || send_pieces(contents, &resource, &sender));
        let (mut streams, pieces) = (self.streams.clone(), ReceiverStream::new(receiver));
        let answer = within(TRANSFER, pieces, async |request| streams.write(request).await).await;
        let read = reading.await.map_err(|error| Status::aborted(error.to_string()))?;
        let written = answer?.committed_size;
        // A server that has the blob already answers at once, and with its size, or -1 if it is compressed.
        if written == digest.size() as i64 || written == -1 {
            return Ok(());
        }
        read?;
        Err(Status::data_loss(format!("the server has stored {written} bytes")))
    }

    fn prefix(&self) -> String {
        if self.instance.is_empty() { String::new() } else { format!("{}/", self.instance) }
    }

    /// Divides blobs into batches that the server accepts.
    fn batches<T>(&self, blobs: Vec<T>, size: impl Fn(&T) -> u64) -> Vec<Vec<T>> {
        let mut batches: Vec<Vec<T>> = vec![];
        let mut room = 0;
        for blob in blobs {
            let bytes = size(&blob) + OVERHEAD;
            match batches.last_mut().filter(|_| bytes <= room) {
                Some(batch) => {
                    room -= bytes;
                    batch.push(blob);
                }
                None => {
                    room = self.batch.saturating_sub(bytes);
                    batches.push(vec![blob]);
                }
            }
        }
        batches
    }
}

/// Sends a blob in pieces, until it ends or the server has heard enough.
fn send_pieces(
    contents: Contents,
    resource: &str,
    sender: &tokio::sync::mpsc::Sender<WriteRequest>,
) -> Result<(), Status> {
    let failed = |error: std::io::Error| Status::failed_precondition(format!("an output cannot be read: {error}"));
    let (mut reader, size): (Box<dyn Read>, u64) = match contents {
        Contents::Bytes(bytes) => {
            let size = bytes.len() as u64;
            (Box::new(std::io::Cursor::new(bytes)), size)
        }
        Contents::File(path) => {
            let mut file = File::open(path).map_err(failed)?;
            let size = file.seek(std::io::SeekFrom::End(0)).map_err(failed)?;
            file.rewind().map_err(failed)?;
            (Box::new(file), size)
        }
    };
    let mut offset = 0;
    loop {
        let mut data = Vec::with_capacity(CHUNK);
        reader.by_ref().take(CHUNK as u64).read_to_end(&mut data).map_err(failed)?;
        let next = offset + data.len() as u64;
        let is_last = next >= size || data.is_empty();
        let resource_name = if offset == 0 { resource.to_owned() } else { String::new() };
        let request =
            WriteRequest { resource_name, write_offset: offset as i64, finish_write: is_last, data: data.into() };
        if sender.blocking_send(request).is_err() || is_last {
            return Ok(());
        }
        offset = next;
    }
}

fn check(expected: BlobDigest, found: BlobDigest) -> Result<(), Failure> {
    if expected == found {
        return Ok(());
    }
    Err(Failure::new(Code::DataLoss, format!("the CAS has sent {found} where {expected} was asked for")))
}
