//! Tests of `stockade-judge`. Those in `broker` need Debian's package rabbitmq-server, that in `browser` needs chromium and
//! chromium-driver; `engines/rabbit install` and apt-get install them. Without them they print why they are skipped, or fail if
//! STOCKADE_ENGINES is set.
#![forbid(unsafe_code)]

mod broker;
mod browser;
mod commands;
mod corpus;
mod http;
mod problems;
mod support;
mod users;
