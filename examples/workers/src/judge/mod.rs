//! `stockade-judge`: judging jobs, from a broker or in-process.
//!
//! From the outside to the inside: [`cli`] has the commands. [`front`] serves HTTP, and [`work`] takes jobs from a
//! broker ([`broker`]). Both hand jobs to [`slots`], which judge a few at a time ([`judging`]): a program is compiled in
//! one sandbox ([`compiler`]), run on each test in another ([`sandboxes`]), and its output checked ([`check`]).
//! [`job`] and [`report`] are what is sent and stored. [`store`] keeps each result once, and [`record`] fills it from
//! the broker.

pub mod blobs;
pub mod broker;
pub mod check;
pub mod cli;
pub mod compiler;
pub mod failure;
pub mod front;
pub mod interact;
pub mod job;
pub mod judging;
pub mod problem;
pub mod record;
pub mod report;
pub mod sandboxes;
pub mod scratch;
pub mod signals;
pub mod slots;
pub mod store;
pub mod tracker;
pub mod work;

// The languages, their policies and the verdicts are those of the example `judge`.
#[path = "../../../judge/language.rs"]
pub mod language;
#[path = "../../../judge/policy.rs"]
pub mod policy;
#[path = "../../../judge/verdict.rs"]
pub mod verdict;
