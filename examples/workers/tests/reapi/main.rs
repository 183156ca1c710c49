//! Tests of stockade-reapi. Those in `bazel`, `buildstream` and `crashes` use real servers and clients, which
//! `engines/builds` installs; where they are missing, a test prints that it was skipped, and why. The others have servers
//! of their own, in this process.

mod actions;
mod bazel;
mod buildstream;
mod connections;
mod crashes;
mod engine;
mod excess;
mod fake_bots;
mod fake_storage;
mod full_disk;
mod hostile;
mod job;
mod secrets;
mod sessions;
mod startup;
