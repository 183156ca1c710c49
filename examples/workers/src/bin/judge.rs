//! A worker for judging jobs.

fn main() {}
