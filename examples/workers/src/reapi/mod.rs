//! A worker of the Remote Execution API.
//!
//! A session (`session`) asks a server for work, and gives each action (`action`) a slot (`slot`). The messages of an action
//! are checked (`input_tree`, `platform`), its inputs come from the server (`cas`) through the cache (`blob_cache`) into a
//! directory (`layout`, `workplace`), it runs (`action_sandbox`), and its outputs go back (`outputs`).

pub mod action;
pub mod action_sandbox;
pub mod blob_cache;
pub mod cas;
pub mod connection;
pub mod digest;
pub mod failure;
pub mod input_tree;
pub mod layout;
pub mod options;
pub mod outputs;
pub mod platform;
pub mod proto;
pub mod retry;
pub mod session;
pub mod slot;
pub mod worker;
pub mod workplace;
