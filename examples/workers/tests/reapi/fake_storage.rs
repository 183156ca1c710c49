//! A content-addressed storage in memory, which can fail and lie.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use prost::Message;
use stockade_workers::reapi::cas::Cas;
use stockade_workers::reapi::connection::{Security, connect};
use stockade_workers::reapi::digest::BlobDigest;
use stockade_workers::reapi::proto::bytestream::byte_stream_server::{ByteStream, ByteStreamServer};
use stockade_workers::reapi::proto::bytestream::{ReadRequest, ReadResponse, WriteRequest, WriteResponse};
use stockade_workers::reapi::proto::execution::content_addressable_storage_server::{
    ContentAddressableStorage, ContentAddressableStorageServer,
};
use stockade_workers::reapi::proto::execution::{
    BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse, Digest,
    FindMissingBlobsRequest, FindMissingBlobsResponse, batch_read_blobs_response, batch_update_blobs_response,
};
use stockade_workers::reapi::proto::rpc;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};

type Pieces = Pin<Box<dyn Stream<Item = Result<ReadResponse, Status>> + Send>>;

#[derive(Clone, Default)]
pub struct FakeStorage(Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    pub blobs: HashMap<BlobDigest, Vec<u8>>,
    /// Number of calls that fail, from now on.
    pub failures: usize,
    /// Calls so far, by name.
    pub calls: HashMap<&'static str, usize>,
    /// What is sent in the place of a blob.
    pub lies: HashMap<BlobDigest, Vec<u8>>,
    /// Bytes after which the next streams break.
    pub breaks_after: Option<usize>,
    /// Whether streams begin, and send nothing more.
    pub stalls: bool,
}

impl FakeStorage {
    /// Starts a server, and returns it with a client.
    pub async fn start() -> (Self, Cas) {
        let storage = Self::default();
        let address = storage.serve(Server::builder(), None).await;
        let cas = client(&format!("grpc://{address}"), &Security::default());
        (storage, cas)
    }

    /// Starts a server with TLS, which wants a bearer token. Returns its address.
    pub async fn start_with_tls(identity: Identity, token: &'static str) -> (Self, SocketAddr) {
        let storage = Self::default();
        let tls = ServerTlsConfig::new().identity(identity);
        let address = storage.serve(Server::builder().tls_config(tls).unwrap(), Some(token)).await;
        (storage, address)
    }

    async fn serve(&self, mut server: Server, token: Option<&'static str>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let check = move |request: Request<()>| {
            let header = request.metadata().get("authorization").and_then(|header| header.to_str().ok());
            let wanted = token.map(|token| format!("Bearer {token}"));
            if header == wanted.as_deref() { Ok(request) } else { Err(Status::unauthenticated("another token")) }
        };
        let server = server
            .add_service(ContentAddressableStorageServer::with_interceptor(self.clone(), check))
            .add_service(ByteStreamServer::with_interceptor(self.clone(), check));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn add(&self, bytes: impl Into<Vec<u8>>) -> Digest {
        let bytes = bytes.into();
        let digest = BlobDigest::of(&bytes);
        self.lock().blobs.insert(digest, bytes);
        digest.into()
    }

    pub fn add_message(&self, message: &impl Message) -> Digest {
        self.add(message.encode_to_vec())
    }

    pub fn get(&self, digest: &Digest) -> Vec<u8> {
        self.lock().blobs[&BlobDigest::try_from(digest).unwrap()].clone()
    }

    /// Counts a call, which may fail.
    fn called(&self, name: &'static str) -> Result<(), Status> {
        let mut state = self.lock();
        *state.calls.entry(name).or_default() += 1;
        match state.failures.checked_sub(1) {
            Some(rest) => {
                state.failures = rest;
                Err(Status::unavailable("the fake storage is away"))
            }
            None => Ok(()),
        }
    }
}

pub fn client(address: &str, security: &Security) -> Cas {
    let service = connect(address, security).unwrap();
    Cas::new(service, String::new(), std::time::Duration::from_secs(3))
}

#[tonic::async_trait]
impl ContentAddressableStorage for FakeStorage {
    async fn find_missing_blobs(
        &self,
        request: Request<FindMissingBlobsRequest>,
    ) -> Result<Response<FindMissingBlobsResponse>, Status> {
        self.called("FindMissingBlobs")?;
        let blobs = &self.lock().blobs;
        let is_missing = |digest: &Digest| !blobs.contains_key(&BlobDigest::try_from(digest).unwrap());
        let missing_blob_digests = request.into_inner().blob_digests.into_iter().filter(is_missing).collect();
        Ok(Response::new(FindMissingBlobsResponse { missing_blob_digests }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<BatchUpdateBlobsRequest>,
    ) -> Result<Response<BatchUpdateBlobsResponse>, Status> {
        self.called("BatchUpdateBlobs")?;
        let requests = request.into_inner().requests.into_iter();
        let responses = requests.map(|blob| {
            let digest = blob.digest.unwrap();
            assert_eq!(self.add(blob.data), digest, "the worker has digested it");
            batch_update_blobs_response::Response { digest: Some(digest), status: None }
        });
        Ok(Response::new(BatchUpdateBlobsResponse { responses: responses.collect() }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<BatchReadBlobsRequest>,
    ) -> Result<Response<BatchReadBlobsResponse>, Status> {
        self.called("BatchReadBlobs")?;
        let state = self.lock();
        let responses = request.into_inner().digests.into_iter().map(|digest| {
            let checked = BlobDigest::try_from(&digest).unwrap();
            let found = state.lies.get(&checked).or(state.blobs.get(&checked));
            let code = if found.is_some() { Code::Ok } else { Code::NotFound };
            let status = Some(rpc::Status { code: code as i32, ..Default::default() });
            let data = found.cloned().unwrap_or_default();
            batch_read_blobs_response::Response { digest: Some(digest), data, status }
        });
        Ok(Response::new(BatchReadBlobsResponse { responses: responses.collect() }))
    }
}

#[tonic::async_trait]
impl ByteStream for FakeStorage {
    type ReadStream = Pieces;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Pieces>, Status> {
        self.called("Read")?;
        let request = request.into_inner();
        let parts: Vec<_> = request.resource_name.split('/').collect();
        let ["blobs", hash, size] = *parts else { return Err(Status::invalid_argument(request.resource_name)) };
        let digest = BlobDigest::from_hash(hash, size.parse().unwrap()).unwrap();
        let mut state = self.lock();
        let Some(blob) = state.lies.get(&digest).or(state.blobs.get(&digest)).cloned() else {
            return Err(Status::not_found(request.resource_name));
        };
        let rest = &blob[request.read_offset as usize..];
        let pieces = |bytes: &[u8]| -> Vec<_> {
            bytes.chunks(100_000).map(|data| Ok(ReadResponse { data: data.to_vec().into() })).collect()
        };
        let pieces = match state.breaks_after.take().filter(|after| *after < rest.len()) {
            Some(after) => {
                let mut pieces = pieces(&rest[..after]);
                pieces.push(Err(Status::unavailable("the stream breaks")));
                pieces
            }
            None => pieces(rest),
        };
        let pieces = tokio_stream::iter(pieces);
        Ok(Response::new(if state.stalls {
            Box::pin(pieces.take(1).chain(tokio_stream::pending()))
        } else {
            Box::pin(pieces)
        }))
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Result<Response<WriteResponse>, Status> {
        self.called("Write")?;
        let mut stream = request.into_inner();
        let (mut name, mut bytes) = (String::new(), vec![]);
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            if bytes.is_empty() {
                name = piece.resource_name;
            }
            assert_eq!(piece.write_offset as usize, bytes.len());
            bytes.extend_from_slice(&piece.data);
            if piece.finish_write {
                break;
            }
        }
        let committed_size = bytes.len() as i64;
        let digest = self.add(bytes);
        let parts: Vec<_> = name.split('/').collect();
        assert!(matches!(*parts, ["uploads", _, "blobs", hash, _] if hash == digest.hash), "{name}");
        Ok(Response::new(WriteResponse { committed_size }))
    }
}
