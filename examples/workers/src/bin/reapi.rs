//! A worker of the Remote Execution API.

fn main() {}
