//! An online judge behind HTTP: `POST /submissions` runs a program in a sandbox, and answers with its verdict.
//!
//! The parts, from the outside to the inside: [`server`] has the routes, [`judging`] runs a submission in sessions that
//! are kept ready, [`places`] lets a few run at a time, and [`sandboxes`] states what they may do. See README.md.
#![forbid(unsafe_code)]

pub mod failure;
pub mod judging;
pub mod places;
pub mod sandboxes;
pub mod server;
pub mod submission;
pub mod verdict;
