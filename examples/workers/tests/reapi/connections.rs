//! Connections with TLS and a bearer token.

use std::fs;

use stockade_workers::reapi::connection::Security;
use stockade_workers::reapi::digest::BlobDigest;
use tonic::Code;
use tonic::transport::Identity;

use crate::fake_storage::{FakeStorage, client};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_known_by_its_certificate_and_a_worker_by_its_token() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let (storage, address) = FakeStorage::start_with_tls(Identity::from_pem(&certificate, key), "secret").await;
    let digest = BlobDigest::try_from(&storage.add("contents")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &str| {
        let path = directory.path().join(name);
        fs::write(&path, contents).unwrap();
        Some(path)
    };
    let (tls_ca, token) = (file("ca", &certificate), file("token", "secret\n"));
    let read = async |scheme: &str, security: Security| {
        let cas = client(&format!("{scheme}://{address}"), &security);
        cas.read(&[digest]).await.map(|blobs| blobs[&digest].clone()).map_err(|failure| failure.code)
    };

    let good = Security { tls_ca: tls_ca.clone(), token_file: token.clone(), ..Security::default() };
    assert_eq!(read("grpcs", good).await, Ok(b"contents".to_vec()));
    let wrong = file("wrong", "guess");
    let wrong_token = Security { tls_ca: tls_ca.clone(), token_file: wrong, ..Security::default() };
    assert_eq!(read("grpcs", wrong_token).await, Err(Code::Unauthenticated));
    let no_token = Security { tls_ca, ..Security::default() };
    assert_eq!(read("https", no_token).await, Err(Code::Unauthenticated));
    // A certificate that nothing vouches for, and no encryption at all.
    let calls = storage.lock().calls.len();
    let unknown = Security { token_file: token, ..Security::default() };
    assert!(read("grpcs", unknown).await.is_err());
    assert!(read("http", Security::default()).await.is_err());
    assert_eq!(storage.lock().calls.len(), calls);
}
